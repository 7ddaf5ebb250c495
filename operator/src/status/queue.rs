//! Writes statuses: few at a time, one at a time for an object, the newest form only.
//!
//! A pass over a namespace hands in what differs from what the API server holds and goes on; the
//! answers enter the caches, so that the next pass sees them. What fails is decided anew by a later
//! pass. It never decides what a status says.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    future::pending,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    task::{Id, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use crate::runtime::{
    caches::Caches,
    held_back::{HeldBack, Pause},
    metrics::Failure,
};

/// Statuses under way at a time.
const AT_ONCE: usize = 16;
/// A call that takes longer failed.
const LONGEST: Duration = Duration::from_secs(30);

/// An object: kind, namespace, name.
pub type Key = (&'static str, String, String);

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server did not answer within {} s", LONGEST.as_secs())]
    Late,
    /// Seen before a call is wasted on it.
    #[error("another form of the object came while it waited")]
    Conflict,
    #[error("the write ended for an internal fault")]
    Panicked,
}

impl WriteError {
    /// Label `reason` of the metric of errors.
    fn reason(&self) -> &'static str {
        match self {
            Self::Late => "Timeout",
            Self::Panicked => "Internal",
            _ if self.is_overtaken() => "Conflict",
            _ if self.is_final() => "Refused",
            _ => "ApiError",
        }
    }

    /// The API server will not have it, now or again: trying harder helps nobody.
    fn is_final(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if (400..429).contains(&status.code))
    }

    /// How long the same is held back; not at all where another form of the object decides anew.
    fn pause(&self) -> Option<Pause> {
        if self.is_overtaken() {
            None
        } else if self.is_final() {
            Some(REFUSED)
        } else {
            Some(FAILED)
        }
    }

    /// Another form of the object is there: its own report brings the next look.
    fn is_overtaken(&self) -> bool {
        match self {
            Self::Conflict => true,
            Self::Api(kube::Error::Api(status)) => matches!(status.code, 404 | 409),
            _ => false,
        }
    }
}

type StatusWrite = BoxFuture<'static, Result<(), WriteError>>;

/// A status that the API server refuses is offered again after this, unless it is another by then.
const REFUSED: Pause = Pause::Even(Duration::from_secs(60));
/// One that could not be written for another cause.
const FAILED: Pause = Pause::Growing {
    first: Duration::from_millis(500),
    most: Duration::from_secs(60),
};

/// What is held back is looked at this often at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

struct Job {
    print: u64,
    task: StatusWrite,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<Key>,
    waiting: HashMap<Key, Job>,
    /// Under way, with what is written.
    in_flight: HashMap<Key, u64>,
    /// Under way, and something else is wanted meanwhile.
    overtaken: HashSet<Key>,
    /// Failed, by object.
    held: HeldBack<Key>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

/// The queue of statuses to write.
#[derive(Clone, Debug, Default)]
pub struct StatusQueue {
    queue: Arc<Mutex<Queue>>,
    news: Arc<Notify>,
    waiting: Gauge,
    errors: Family<Failure, Counter>,
}

impl StatusQueue {
    /// `waiting` follows how many wait or are under way; `errors` counts those that failed.
    #[must_use]
    pub fn new(waiting: Gauge, errors: Family<Failure, Counter>) -> Self {
        Self {
            waiting,
            errors,
            ..Self::default()
        }
    }

    /// Takes a write of `status`; an earlier one of the same object that has not begun is replaced.
    pub fn submit(&self, key: Key, status: &impl Serialize, task: StatusWrite) {
        self.submit_at(Instant::now(), key, status, task);
    }

    fn submit_at(&self, now: Instant, key: Key, status: &impl Serialize, task: StatusWrite) {
        let print = print(status);
        let mut queue = self.queue.lock();
        if queue.held.holds(&key, print, now).is_some() {
            return;
        }
        if let Some(in_flight) = queue.in_flight.get(&key) {
            if *in_flight != print {
                queue.overtaken.insert(key);
            }
            return;
        }
        if queue
            .waiting
            .insert(key.clone(), Job { print, task })
            .is_none()
        {
            queue.order.push_back(key);
        }
        self.show(&queue);
        drop(queue);
        self.news.notify_one();
    }

    fn show(&self, queue: &Queue) {
        let waiting = queue.waiting.len() + queue.in_flight.len();
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    fn next(&self) -> Option<(Key, StatusWrite)> {
        let mut queue = self.queue.lock();
        let key = queue.order.pop_front()?;
        let job = queue.waiting.remove(&key)?;
        queue.in_flight.insert(key.clone(), job.print);
        Some((key, job.task))
    }

    /// Whether the object has to be looked at again. One that failed is held back for a while.
    fn completed(&self, now: Instant, key: &Key, failed: Option<Pause>) -> bool {
        let mut queue = self.queue.lock();
        let print = queue.in_flight.remove(key);
        self.show(&queue);
        match (failed, print) {
            (Some(pause), Some(print)) => {
                queue.held.failed(now, key.clone(), print, pause, ());
            }
            _ => queue.held.forget(key),
        }
        queue.overtaken.remove(key)
    }

    /// When the next that is held back may be tried; the namespaces of those whose time has come.
    fn due(&self, now: Instant) -> (Option<Instant>, HashSet<String>) {
        let mut due = HashSet::new();
        let mut queue = self.queue.lock();
        let next = queue.held.due(now, |(_, namespace, _)| {
            due.insert(namespace.clone());
        });
        (next, due)
    }

    /// Writes until dropped.
    pub async fn run(&self, caches: &Caches) {
        let mut under_way: JoinSet<(Key, Result<(), WriteError>)> = JoinSet::new();
        let mut keys: HashMap<Id, Key> = HashMap::new();
        let mut looked: Option<Instant> = None;
        loop {
            while under_way.len() < AT_ONCE {
                let Some((key, task)) = self.next() else {
                    break;
                };
                let of = key.clone();
                let handle = under_way.spawn(async move {
                    let done = timeout(LONGEST, task)
                        .await
                        .unwrap_or(Err(WriteError::Late));
                    (key, done)
                });
                keys.insert(handle.id(), of);
            }
            // Thousands may be held back: they are not gone over after each write.
            let now = Instant::now();
            let next = match looked {
                Some(looked) if now < looked + LOOK_INTERVAL => Some(looked + LOOK_INTERVAL),
                _ => {
                    looked = Some(now);
                    let (next, due) = self.due(now);
                    for namespace in due {
                        caches.triggers.enqueue(&namespace);
                    }
                    next
                }
            };
            let pause = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => pending().await,
                }
            };
            let ended = tokio::select! {
                Some(ended) = under_way.join_next_with_id() => ended,
                () = self.news.notified(), if under_way.len() < AT_ONCE => continue,
                () = pause => continue,
            };
            let (id, key, done) = match ended {
                Ok((id, (key, done))) => (id, Some(key), done),
                // Its object must not stay marked as being written.
                Err(error) => (error.id(), None, Err(WriteError::Panicked)),
            };
            let known = keys.remove(&id);
            if let Some(key) = key.or(known) {
                self.finish(caches, &key, done);
            }
        }
    }

    /// Takes what came of a write.
    fn finish(&self, caches: &Caches, key: &Key, done: Result<(), WriteError>) {
        let failed = done.as_ref().err().and_then(WriteError::pause);
        let again = self.completed(Instant::now(), key, failed);
        let (kind, namespace, name) = key;
        let Err(error) = done else {
            if again {
                caches.triggers.enqueue(namespace);
            }
            return;
        };
        if error.is_overtaken() {
            tracing::debug!(kind, namespace, name, %error, "the status is decided anew");
            caches.triggers.enqueue(namespace);
            return;
        }
        self.errors
            .get_or_create(&Failure::new(kind, error.reason()))
            .inc();
        if error.is_final() {
            tracing::error!(kind, namespace, name, %error, "the API server refuses the status; it is offered again in a minute");
        } else {
            tracing::warn!(kind, namespace, name, %error, "the status could not be written; it is tried again");
        }
    }
}

/// Tells two statuses apart: thousands may wait, and a copy of each would be their weight again.
fn print(status: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Never fails: a status is plain data.
    serde_json::to_vec(status)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// Applies a status on the form of the object that it was decided on: a newer form refuses it, so
/// that nothing is written over a newer observedGeneration. The answer is the object as it is now.
///
/// A status has one writer. Apply cannot take away what someone else added to a list, so where that
/// happened the status is replaced.
///
/// # Errors
/// [`kube::Error`]; 409 where another form of the object is there.
pub async fn apply_status<K, S>(
    client: &Client,
    object: &impl ResourceExt,
    manager: &str,
    status: &S,
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    S: Serialize,
{
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
        },
        "status": status,
    });
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    let parameters = PatchParams::apply(manager).force();
    let patch = Patch::Apply(&body);
    let mut answer = api.patch_status(&name, &parameters, &patch).await?;
    if has_surplus(&answer.data["status"], &status) {
        let parameters = PostParams {
            field_manager: Some(manager.to_owned()),
            ..PostParams::default()
        };
        answer.data["status"] = status;
        answer = api.replace_status(&name, &parameters, &answer).await?;
    }
    let answer = serde_json::to_value(answer).map_err(kube::Error::SerdeError)?;
    serde_json::from_value(answer).map_err(kube::Error::SerdeError)
}

/// Whether there is anything in `found` that is not `wanted`. Values differ only where someone was
/// faster, and then the form is another.
fn has_surplus(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => found.iter().any(|(key, found)| {
            let wanted = wanted.get(key);
            wanted.is_none_or(|wanted| has_surplus(found, wanted))
        }),
        (Value::Array(found), Value::Array(wanted)) => found.len() != wanted.len(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_someone_else_added_is_seen_and_the_order_of_lists_is_not() {
        let wanted = json!({"methods": ["A"], "conditions": [{"type": "a"}, {"type": "b"}], "config": {"generation": 3}});
        let table = [
            (wanted.clone(), false),
            (
                json!({"methods": ["A", "B"], "conditions": [{"type": "a"}, {"type": "b"}]}),
                true,
            ),
            (
                json!({"methods": ["A"], "conditions": [{"type": "b"}, {"type": "a"}]}),
                false,
            ),
            (
                json!({"methods": ["A"], "config": {"generation": 3, "extra": 1}}),
                true,
            ),
            (json!({"methods": ["A"], "extra": 1}), true),
            (Value::Null, false),
        ];
        for (found, expected) in table {
            assert_eq!(has_surplus(&found, &wanted), expected, "{found}");
        }
    }

    #[tokio::test]
    async fn the_newest_form_of_an_object_is_the_one_that_waits() {
        let writer = StatusQueue::default();
        let key = |name: &str| ("Kind", "n".to_owned(), name.to_owned());
        let task = || -> StatusWrite { Box::pin(async { Ok(()) }) };
        writer.submit(key("a"), &1, task());
        writer.submit(key("b"), &1, task());
        writer.submit(key("a"), &2, task());
        assert_eq!(writer.waiting.get(), 2);
        let (first, _) = writer.next().expect("one waits");
        assert_eq!(first, key("a"));
        writer.submit(key("a"), &2, task());
        assert!(
            !writer.completed(Instant::now(), &key("a"), None),
            "the same again is no news"
        );
        writer.submit(key("a"), &3, task());
        let _ = writer.next();
        let _ = writer.next();
        writer.submit(key("a"), &4, task());
        assert!(
            writer.completed(Instant::now(), &key("a"), None),
            "something else was wanted meanwhile"
        );
    }

    fn key() -> Key {
        ("Kind", "n".to_owned(), "a".to_owned())
    }

    #[test]
    fn a_refused_status_is_not_offered_again_before_it_is_another_or_a_minute_passed() {
        let (queue, begun) = (StatusQueue::default(), Instant::now());
        let at = |second| begun + Duration::from_secs(second);
        let write = |second, status: u64| -> bool {
            let task = Box::pin(async { Ok(()) });
            queue.submit_at(at(second), key(), &status, task);
            queue.next().is_some()
        };
        assert!(write(0, 1));
        queue.completed(at(0), &key(), Some(REFUSED));
        assert!(!write(0, 1), "the same at once");
        assert!(!write(59, 1), "the same before a minute passed");
        assert!(write(59, 2), "another");
        queue.completed(at(59), &key(), Some(REFUSED));
        assert!(queue.due(at(118)).1.is_empty());
        let due = queue.due(at(119)).1;
        assert_eq!(due, ["n".to_owned()].into(), "its namespace looks again");
        assert!(queue.due(at(119)).1.is_empty(), "once");
        assert!(write(119, 2), "a minute passed");
        queue.completed(at(119), &key(), None);
        assert!(queue.queue.lock().held.is_empty(), "it went well");
    }

    #[test]
    fn an_object_that_always_fails_waits_longer_and_holds_up_no_other() {
        let (queue, mut now) = (StatusQueue::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            queue.submit_at(now, key(), &1, Box::pin(async { Ok(()) }));
            assert!(queue.next().is_some());
            queue.completed(now, &key(), Some(FAILED));
            let (next, _) = queue.due(now);
            let pause = next.expect("it is held").duration_since(now);
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(pauses[..3], [500, 1000, 2000].map(Duration::from_millis));
        assert_eq!(pauses[8], Duration::from_secs(60));
    }

    #[tokio::test]
    async fn a_write_that_panics_leaves_its_object_to_be_written_again() {
        let queue = StatusQueue::default();
        let (caches, _fresh) = Caches::new();
        queue.submit(key(), &1, Box::pin(async { panic!("an internal fault") }));
        let (written, wrote) = tokio::sync::oneshot::channel();
        let other: Key = ("Kind", "n".to_owned(), "b".to_owned());
        queue.submit(
            other,
            &1,
            Box::pin(async move {
                let _ = written.send(());
                Ok(())
            }),
        );
        let runs = queue.clone();
        let running = tokio::spawn(async move { runs.run(&caches).await });
        wrote.await.expect("another object is written");
        while !queue.queue.lock().in_flight.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.waiting.get(), 0);
        running.abort();
    }
}
