//! The queue of one pair: bounded, in order, carried by at most one stream at a time.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{backoff::Backoff, batch::Batch, failure::Failure, handle::StreamHandle};
use crate::negotiation::{Pair, Side};

/// So long after the pause that followed a failure, the failures are forgotten with the route.
const FORGIVEN: Duration = Duration::from_secs(600);

/// One direction between two domains, and what waits to go there.
#[derive(Debug)]
pub struct Route {
    pub pair: Pair,
    /// Who the next hop is.
    pub side: Side,
    state: Mutex<State>,
    /// Memory held by waiting and unacknowledged batches, in bytes; `state` changes it.
    held: AtomicUsize,
    room: Notify,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Batch>,
    carrier: RouteState,
    backoff: Backoff,
    /// Whether the sweeper knows of this route.
    swept: bool,
    /// Of the task that was started last to set a stream up.
    dial: ConnectNumber,
}

/// Tells the tasks that set streams up for one route from each other: one that has been overtaken
/// has no say any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectNumber(u64);

/// Who takes what waits.
#[derive(Debug)]
enum RouteState {
    Idle,
    /// The task of this number is setting a stream up.
    Connecting(ConnectNumber),
    Connected(Arc<StreamHandle>),
    /// Failed before: nothing is tried, and nothing waits, until then.
    BackingOff {
        until: Instant,
        failure: Failure,
    },
}

/// What became of a batch that was offered.
#[derive(Debug)]
pub enum EnqueueOutcome {
    /// `first`: the sweeper does not know of this queue yet.
    Queued { first: bool },
    /// Queued, and the caller starts a task that sets a stream up.
    Dial { first: bool, number: ConnectNumber },
    /// Not queued: the next hop failed a moment ago.
    Resting {
        batch: Batch,
        failure: Failure,
        until: Instant,
    },
}

/// Memory of all queues together, in bytes.
#[derive(Debug, Default)]
pub struct MemoryBudget(AtomicUsize);

impl MemoryBudget {
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Route {
    #[must_use]
    pub fn new(pair: Pair, side: Side) -> Self {
        Self {
            pair,
            side,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                carrier: RouteState::Idle,
                backoff: Backoff::default(),
                swept: false,
                dial: ConnectNumber::default(),
            }),
            held: AtomicUsize::new(0),
            room: Notify::new(),
        }
    }

    /// Puts a batch at the end. UnauthenticatedLimiter are the caller's: see [`Self::held`].
    pub fn offer(&self, batch: Batch, total: &MemoryBudget, now: Instant) -> EnqueueOutcome {
        let mut state = self.state.lock();
        let first = !state.swept;
        let outcome = match &state.carrier {
            RouteState::Connected(handle) => {
                handle.wake();
                EnqueueOutcome::Queued { first }
            }
            RouteState::Connecting(_) => EnqueueOutcome::Queued { first },
            RouteState::BackingOff { until, failure } if now < *until => {
                return EnqueueOutcome::Resting {
                    batch,
                    failure: failure.clone(),
                    until: *until,
                };
            }
            RouteState::Idle | RouteState::BackingOff { .. } => {
                let number = state.start_dialling();
                EnqueueOutcome::Dial { first, number }
            }
        };
        state.swept = true;

        self.hold(batch.held(), total);
        state.waiting.push_back(batch);
        outcome
    }

    /// Memory held, in bytes: what waits, and what was sent but not acknowledged.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Stanzas that wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.state
            .lock()
            .waiting
            .iter()
            .map(|batch| u64::from(batch.count()))
            .sum()
    }

    /// Completes when memory was released, or at once if it was since the last call.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    fn hold(&self, bytes: usize, total: &MemoryBudget) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        total.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A batch is done with: settled, answered or dropped. `bytes` is what [`Batch::held`] said.
    pub fn release(&self, bytes: usize, total: &MemoryBudget) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        total.0.fetch_sub(bytes, Ordering::Relaxed);
        self.room.notify_waiters();
        self.room.notify_one();
    }

    /// A batch in custody becomes one batch a stanza, all of them held.
    pub fn cut(&self, batch: Batch, total: &MemoryBudget) -> Vec<Batch> {
        let before = batch.held();
        let parts: Vec<_> = batch.cut().collect();
        self.hold(parts.iter().map(Batch::held).sum(), total);
        self.release(before, total);
        parts
    }

    /// The next batch for the stream that carries this route; its memory stays held until
    /// [`Self::release`].
    pub fn next(&self, handle: &Arc<StreamHandle>) -> Option<Batch> {
        let mut state = self.state.lock();
        match &state.carrier {
            RouteState::Connected(own) if Arc::ptr_eq(own, handle) => state.waiting.pop_front(),
            _ => None,
        }
    }

    /// A stream is ready for this pair. `false` where another one carries it already.
    pub fn bind(&self, handle: &Arc<StreamHandle>) -> bool {
        let mut state = self.state.lock();
        if matches!(&state.carrier, RouteState::Connected(own) if !Arc::ptr_eq(own, handle)) {
            return false;
        }
        state.carrier = RouteState::Connected(Arc::clone(handle));
        state.backoff.succeeded();
        drop(state);
        handle.wake();
        true
    }

    /// The stream has ended: what it had not got acknowledged goes first, in order. Where
    /// something waits, the caller sets up the next stream, under the number answered.
    pub fn unbind(
        &self,
        handle: &Arc<StreamHandle>,
        unacknowledged: Vec<Batch>,
    ) -> Option<ConnectNumber> {
        let mut state = self.state.lock();
        for batch in unacknowledged.into_iter().rev() {
            state.waiting.push_front(batch);
        }
        let ours = matches!(&state.carrier, RouteState::Connected(own) if Arc::ptr_eq(own, handle));
        if !ours {
            if let RouteState::Connected(other) = &state.carrier {
                other.wake();
            }
            let idle = matches!(state.carrier, RouteState::Idle);
            return (idle && !state.waiting.is_empty()).then(|| state.start_dialling());
        }
        state.carrier = RouteState::Idle;
        (!state.waiting.is_empty()).then(|| state.start_dialling())
    }

    /// Whether the task of this number still has something to do.
    #[must_use]
    pub fn is_dialling(&self, number: ConnectNumber) -> bool {
        self.state.lock().is_dialling(number)
    }

    /// The task of this number reaches nothing for now: the backoff starts, and all that waits comes
    /// out to be answered. Says when the next try may be.
    pub fn rest(
        &self,
        number: ConnectNumber,
        failure: &Failure,
        now: Instant,
        jitter: f64,
    ) -> (Vec<Batch>, Option<Instant>) {
        let mut state = self.state.lock();
        if !state.is_dialling(number) {
            return (Vec::new(), None);
        }
        let pause = state.backoff.failed(jitter);
        let until = now + pause;
        state.carrier = if pause.is_zero() {
            RouteState::Idle
        } else {
            RouteState::BackingOff {
                until,
                failure: failure.clone(),
            }
        };
        (state.waiting.drain(..).collect(), Some(until))
    }

    /// The task of this number ends without stream although nothing failed: nobody waits any more.
    /// `false` where something has come in the meantime, so that it goes on.
    pub fn stop_dialling_if_empty(&self, number: ConnectNumber) -> bool {
        let mut state = self.state.lock();
        if !state.is_dialling(number) {
            return true;
        }
        if state.waiting.is_empty() {
            state.carrier = RouteState::Idle;
            return true;
        }
        false
    }

    /// What has waited longer than `limit`, in order. Looks behind the front: what came back from a
    /// dead stream stands before what is older.
    pub fn expired(&self, now: Instant, limit: Duration) -> Vec<Batch> {
        let is_old = |batch: &Batch| now.saturating_duration_since(batch.arrived) >= limit;
        let mut state = self.state.lock();
        if !state.waiting.iter().any(is_old) {
            return Vec::new();
        }
        let (expired, waiting): (VecDeque<_>, _) = state.waiting.drain(..).partition(is_old);
        state.waiting = waiting;
        expired.into()
    }

    /// Everything that waits, taken out: the pair has become forbidden.
    pub fn drain(&self) -> Vec<Batch> {
        self.state.lock().waiting.drain(..).collect()
    }

    /// Marks the route for the sweeper; `true` where it was not marked.
    pub fn mark_swept(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().swept, true)
    }

    /// Whether the sweeper must keep looking; `false` takes the mark off.
    pub fn keep_sweeping(&self) -> bool {
        let mut state = self.state.lock();
        state.swept = !state.waiting.is_empty();
        state.swept
    }

    /// Nothing waits, nothing is held, no stream, and failures are long past: it can be forgotten.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let rests = match &state.carrier {
            RouteState::Idle => true,
            RouteState::BackingOff { until, .. } => now >= *until + FORGIVEN,
            RouteState::Connecting(_) | RouteState::Connected(_) => false,
        };
        self.held() == 0 && !state.swept && rests
    }

    /// Whether a stream carries it now.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        matches!(self.state.lock().carrier, RouteState::Connected(_))
    }

    /// Whether this very stream carries it.
    #[must_use]
    pub fn is_carried_by(&self, handle: &Arc<StreamHandle>) -> bool {
        matches!(&self.state.lock().carrier, RouteState::Connected(own) if Arc::ptr_eq(own, handle))
    }

    /// When the next try may be, where it rests.
    #[must_use]
    pub fn resting_until(&self) -> Option<Instant> {
        match &self.state.lock().carrier {
            RouteState::BackingOff { until, .. } => Some(*until),
            _ => None,
        }
    }
}

impl State {
    fn start_dialling(&mut self) -> ConnectNumber {
        self.dial = ConnectNumber(self.dial.0 + 1);
        self.carrier = RouteState::Connecting(self.dial);
        self.dial
    }

    fn is_dialling(&self, number: ConnectNumber) -> bool {
        matches!(self.carrier, RouteState::Connecting(own) if own == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::failure::FailureKind;
    use xmpp_edge_crds::domain::DomainName;

    fn route() -> Arc<Route> {
        let domain = |name| DomainName::parse(name).expect("valid");
        let pair = Pair {
            from: domain("org.example"),
            to: domain("partner.example"),
        };
        Arc::new(Route::new(pair, Side::Partner))
    }

    fn batch(text: &str, arrived: Instant) -> Batch {
        Batch::answer(text.as_bytes().to_vec(), None, arrived)
    }

    #[test]
    fn what_is_older_expires_although_something_younger_was_put_before_it() {
        let (route, total, handle) = (route(), MemoryBudget::default(), Arc::default());
        let start = Instant::now();
        assert!(route.bind(&handle));
        for text in ["<a/>", "<b/>"] {
            route.offer(batch(text, start), &total, start);
        }
        let later = start + Duration::from_secs(15);
        let mut sent = route.next(&handle).expect("the first");
        sent.arrived = later;
        assert!(route.unbind(&handle, vec![sent]).is_some());
        let expired = route.expired(start + Duration::from_secs(21), Duration::from_secs(20));
        assert_eq!(expired.len(), 1);
        assert_eq!(&expired[0].unsettled()[..], b"<b/>");
        assert_eq!(route.waiting(), 1);
    }

    #[test]
    fn a_route_that_failed_is_forgotten_once_its_failures_are_long_past() {
        let (route, total, start) = (route(), MemoryBudget::default(), Instant::now());
        let failure = Failure::new(FailureKind::Unreachable, "nobody there");
        for _ in 0..2 {
            let EnqueueOutcome::Dial { number, .. } =
                route.offer(batch("<a/>", start), &total, start)
            else {
                panic!("it is tried");
            };
            for batch in route.rest(number, &failure, start, 0.0).0 {
                route.release(batch.held(), &total);
            }
        }
        route.keep_sweeping();
        let until = route
            .resting_until()
            .expect("rests after the second failure");
        assert!(!route.is_idle(until), "its backoff counts still");
        assert!(route.is_idle(until + FORGIVEN));
        assert_eq!(total.held(), 0);
    }

    #[test]
    fn a_task_that_was_overtaken_ends_nothing_that_the_newer_one_set_out_to_do() {
        let (route, total, handle) = (route(), MemoryBudget::default(), Arc::default());
        let start = Instant::now();
        let EnqueueOutcome::Dial { number: old, .. } =
            route.offer(batch("<a/>", start), &total, start)
        else {
            panic!("nobody dials yet");
        };
        // The peer opens a stream both ways meanwhile, and it dies.
        assert!(route.bind(&handle));
        let new = route.unbind(&handle, Vec::new()).expect("one waits");
        let failure = Failure::new(FailureKind::Unreachable, "nobody there");
        assert!(route.rest(old, &failure, start, 0.0).0.is_empty());
        assert!(!route.is_dialling(old) && route.is_dialling(new));
        assert!(route.stop_dialling_if_empty(old), "it has nothing to do");
        assert_eq!(route.waiting(), 1);
        assert_eq!(route.rest(new, &failure, start, 0.0).0.len(), 1);
    }
}
