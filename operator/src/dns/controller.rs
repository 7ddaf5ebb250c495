//! The one scheduler of work on DNS, of a cluster and of standalone: for each key one piece of work at
//! a time in the background, so that a server that does not answer holds up nothing else; the same
//! again only when it is due, and later each time that it fails.
//!
//! It is driven by looks: a caller says what there is to do as things stand, as often as it likes,
//! and hears what came of it last. What is worked on, and how, is a [`DnsBackend`]'s.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// The longest pause between attempts that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A way to get records into DNS.
pub trait DnsBackend: Send + 'static {
    /// What there is to do; the same again is nothing to do.
    type Task: Clone + PartialEq + Send + Sync + 'static;
    type Outcome: DnsOutcome;

    /// Does it. Each exchange is bounded in time; one that began is not broken off.
    fn carry_out(&mut self, task: &Self::Task) -> impl Future<Output = Self::Outcome> + Send;
}

/// What came of a task.
pub trait DnsOutcome: Clone + Send + 'static {
    /// Whether all of it was done: else it is tried again, after longer and longer pauses.
    fn is_good(&self) -> bool;

    /// How long it holds while nothing changes.
    fn look_again(&self) -> Duration;

    /// Whether somebody waits for it, so that pauses do not grow.
    fn is_urgent(&self) -> bool {
        false
    }
}

/// Work for many keys. All of it ends with this.
pub struct DnsController<K, B: DnsBackend> {
    entries: Mutex<HashMap<K, Arc<WorkEntry<B>>>>,
    running: Mutex<JoinSet<()>>,
}

impl<K, B: DnsBackend> fmt::Debug for DnsController<K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsController").finish_non_exhaustive()
    }
}

/// How far the work of a key is.
#[derive(Debug)]
pub struct DnsProgress<O> {
    /// What came last of it, of this task or of one before.
    pub outcome: Option<O>,
    /// Whether `outcome` is of the very task that was asked for, and still holds.
    pub is_current: bool,
    /// When to look again although nothing changes.
    pub again: Option<Duration>,
}

struct WorkEntry<B: DnsBackend> {
    state: Mutex<WorkState<B>>,
    backend: tokio::sync::Mutex<B>,
}

struct WorkState<B: DnsBackend> {
    is_busy: bool,
    done: Option<WorkDone<B>>,
}

struct WorkDone<B: DnsBackend> {
    task: B::Task,
    outcome: B::Outcome,
    at: Instant,
    /// How often it failed in a row, this time included.
    failures: u32,
}

impl<B: DnsBackend> WorkDone<B> {
    fn holds(&self) -> Duration {
        let slower = 1 << self.failures.saturating_sub(1).min(6);
        let once = self.outcome.look_again();
        match self.failures {
            0 => once,
            _ if self.outcome.is_urgent() => once,
            _ => once.saturating_mul(slower).min(LONGEST_PAUSE),
        }
    }
}

impl<K, B: DnsBackend> Default for DnsController<K, B> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            running: Mutex::default(),
        }
    }
}

impl<K: Clone + Eq + Hash, B: DnsBackend> DnsController<K, B> {
    /// Starts what there is to do where it is due, and says how far it is. `backend` makes the
    /// backend of a key that is new; `wake` is called when the work is done.
    pub fn look(
        &self,
        key: &K,
        backend: impl FnOnce() -> B,
        task: B::Task,
        wake: impl FnOnce() + Send + 'static,
    ) -> DnsProgress<B::Outcome> {
        let entry = {
            let mut entries = self.entries.lock();
            let entry = entries.entry(key.clone()).or_insert_with(|| {
                Arc::new(WorkEntry {
                    state: Mutex::new(WorkState {
                        is_busy: false,
                        done: None,
                    }),
                    backend: tokio::sync::Mutex::new(backend()),
                })
            });
            entry.clone()
        };
        let mut state = entry.state.lock();
        let same = state.done.as_ref().filter(|done| done.task == task);
        let is_current = same.is_some_and(|done| done.at.elapsed() < done.holds());
        let progress = DnsProgress {
            outcome: state.done.as_ref().map(|done| done.outcome.clone()),
            is_current,
            again: state.done.as_ref().map(WorkDone::holds),
        };
        if is_current || state.is_busy {
            return progress;
        }
        state.is_busy = true;
        drop(state);
        let mut running = self.running.lock();
        while running.try_join_next().is_some() {}
        running.spawn(entry.work(task, wake));
        progress
    }

    /// What came last of the work of a key, whatever was asked for then.
    #[must_use]
    pub fn last(&self, key: &K) -> Option<B::Outcome> {
        let entry = self.entries.lock().get(key).cloned()?;
        let state = entry.state.lock();
        state.done.as_ref().map(|done| done.outcome.clone())
    }

    /// Forgets keys. What is under way for one ends all the same.
    pub fn retain(&self, mut keep: impl FnMut(&K) -> bool) {
        self.entries.lock().retain(|key, _| keep(key));
    }

    /// Breaks off what is under way, and returns once nothing of it runs any more. Where an update was
    /// sent and its answer not awaited, whoever acts next finds in DNS what came of it.
    pub async fn shutdown(&self) {
        let mut running = std::mem::take(&mut *self.running.lock());
        running.shutdown().await;
    }

    /// Ends after the exchanges that are under way. Records stay: a restart is no reason to change DNS.
    pub async fn stop(self) {
        let mut running = std::mem::take(&mut *self.running.lock());
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!("work on DNS records ended with a fault: {error}");
            }
        }
    }
}

impl<B: DnsBackend> WorkEntry<B> {
    async fn work(self: Arc<Self>, task: B::Task, wake: impl FnOnce() + Send + 'static) {
        let at_work = AtWork(&self);
        let outcome = self.backend.lock().await.carry_out(&task).await;
        let mut state = self.state.lock();
        let before = state.done.take().filter(|done| done.task == task);
        let failures = if outcome.is_good() {
            0
        } else {
            before.map_or(0, |done| done.failures) + 1
        };
        state.done = Some(WorkDone {
            task,
            outcome,
            at: Instant::now(),
            failures,
        });
        drop(state);
        drop(at_work);
        wake();
    }
}

/// Whatever ends the work, another can begin.
struct AtWork<'a, B: DnsBackend>(&'a WorkEntry<B>);

impl<B: DnsBackend> Drop for AtWork<'_, B> {
    fn drop(&mut self) {
        self.0.state.lock().is_busy = false;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::mpsc;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct CountedOutcome {
        task: u32,
        is_good: bool,
    }

    impl DnsOutcome for CountedOutcome {
        fn is_good(&self) -> bool {
            self.is_good
        }

        fn look_again(&self) -> Duration {
            Duration::from_secs(5)
        }
    }

    /// Fails for odd tasks, panics for 99, never ends for 77; counts what it is asked.
    struct CountingBackend(mpsc::UnboundedSender<u32>);

    impl DnsBackend for CountingBackend {
        type Task = u32;
        type Outcome = CountedOutcome;

        async fn carry_out(&mut self, task: &u32) -> CountedOutcome {
            self.0.send(*task).unwrap();
            assert_ne!(*task, 99, "a fault of ours");
            if *task == 77 {
                std::future::pending::<()>().await;
            }
            CountedOutcome {
                task: *task,
                is_good: task.is_multiple_of(2),
            }
        }
    }

    struct ControllerRig {
        controller: DnsController<&'static str, CountingBackend>,
        asked: mpsc::UnboundedReceiver<u32>,
        tell: mpsc::UnboundedSender<u32>,
        woken: mpsc::UnboundedReceiver<()>,
        wake: mpsc::UnboundedSender<()>,
    }

    impl ControllerRig {
        fn new() -> Self {
            let (tell, asked) = mpsc::unbounded_channel();
            let (wake, woken) = mpsc::unbounded_channel();
            Self {
                controller: DnsController::default(),
                asked,
                tell,
                woken,
                wake,
            }
        }

        fn look(&self, task: u32) -> DnsProgress<CountedOutcome> {
            let (tell, wake) = (self.tell.clone(), self.wake.clone());
            let backend = || CountingBackend(tell);
            let woken = move || wake.send(()).unwrap();
            self.controller.look(&"pool", backend, task, woken)
        }
    }

    #[tokio::test]
    async fn the_same_again_is_nothing_to_do_and_something_else_is_done_at_once() {
        let mut rig = ControllerRig::new();
        assert!(rig.look(2).outcome.is_none());
        rig.woken.recv().await.unwrap();
        let progress = rig.look(2);
        assert_eq!(progress.outcome.unwrap().task, 2);
        assert!(progress.is_current);
        let progress = rig.look(4);
        assert!(!progress.is_current && progress.outcome.unwrap().task == 2);
        rig.woken.recv().await.unwrap();
        assert!(rig.look(4).is_current);
        let asked: Vec<u32> = std::iter::from_fn(|| rig.asked.try_recv().ok()).collect();
        assert_eq!(asked, [2, 4]);
    }

    #[tokio::test]
    async fn failures_are_repeated_after_longer_and_longer_pauses() {
        let mut rig = ControllerRig::new();
        rig.look(1);
        rig.woken.recv().await.unwrap();
        assert_eq!(rig.look(1).again, Some(Duration::from_secs(5)));
        for expected in [10, 20, 40, 60, 60] {
            // As if the pause were over.
            let entry = rig.controller.entries.lock()["pool"].clone();
            let past = Instant::now() - Duration::from_secs(61);
            entry.state.lock().done.as_mut().unwrap().at = past;
            rig.look(1);
            rig.woken.recv().await.unwrap();
            assert_eq!(rig.look(1).again, Some(Duration::from_secs(expected)));
        }
        rig.look(2);
        rig.woken.recv().await.unwrap();
        rig.look(1);
        rig.woken.recv().await.unwrap();
        assert_eq!(
            rig.look(1).again,
            Some(Duration::from_secs(5)),
            "another task begins anew"
        );
    }

    #[tokio::test]
    async fn nothing_is_under_way_any_more_once_it_was_shut_down() {
        let mut rig = ControllerRig::new();
        rig.look(77);
        assert_eq!(rig.asked.recv().await, Some(77));
        let entry = rig.controller.entries.lock()["pool"].clone();
        assert!(entry.state.lock().is_busy);
        rig.controller.shutdown().await;
        assert!(!entry.state.lock().is_busy);
    }

    #[tokio::test]
    async fn work_that_panics_holds_up_nothing_after_it() {
        let mut rig = ControllerRig::new();
        rig.look(99);
        assert_eq!(rig.asked.recv().await, Some(99));
        let entry = rig.controller.entries.lock()["pool"].clone();
        while entry.state.lock().is_busy {
            tokio::task::yield_now().await;
        }
        rig.look(2);
        rig.woken.recv().await.unwrap();
        assert_eq!(rig.look(2).outcome.unwrap().task, 2);
        rig.controller.stop().await;
    }
}
