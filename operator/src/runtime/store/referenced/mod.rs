//! Objects of a kind that everybody uses, Secrets and ConfigMaps: of all of them the identity alone, as
//! the watch of their metadata tells it, and whole those that somebody here refers to.
//!
//! Who refers to an object says so with [`ReferencedStore::refer`]; [`ReferencedStore::read`] then gets
//! what the watch knows in another form than is held. Between two reads the answers stay as they are, but
//! for deletions, so that one pass sees one state. What cannot be read is an error of its own name: it is
//! never taken for absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{PartialObjectMeta, PartialObjectMetaExt},
    runtime::watcher::Event,
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{AnswerStore, Epoch, ObjectStore, WatchApplier, is_later, is_later_version};
use crate::runtime::{
    at_once::at_once,
    held_back::{HeldBack, Pause},
};

/// Objects of a kind read at a time, in all namespaces together.
const READS_AT_ONCE: usize = 16;
/// A read that takes longer failed.
const LONGEST: Duration = Duration::from_secs(10);
/// What cannot be read is tried again after this.
const FAILED: Pause = Pause::Growing {
    first: Duration::from_secs(1),
    most: Duration::from_secs(60),
};

/// A kind whose objects are held only where they are referred to.
pub trait Referable: Resource<Scope = NamespaceResourceScope, DynamicType = ()> {
    /// Bytes of what the object is there for.
    fn data_bytes(&self) -> usize;
    /// Whether a newer form says anything else to those who refer to it. Annotations of others (elections,
    /// tools) say nothing.
    fn differs(&self, newer: &Self) -> bool;
}

impl Referable for Secret {
    fn data_bytes(&self) -> usize {
        let data = self.data.iter().flatten();
        data.map(|(key, value)| key.len() + value.0.len()).sum()
    }

    fn differs(&self, newer: &Self) -> bool {
        self.data != newer.data || self.type_ != newer.type_
    }
}

impl Referable for ConfigMap {
    fn data_bytes(&self) -> usize {
        let texts = self.data.iter().flatten();
        let texts: usize = texts.map(|(key, value)| key.len() + value.len()).sum();
        let bytes = self.binary_data.iter().flatten();
        let bytes: usize = bytes.map(|(key, value)| key.len() + value.0.len()).sum();
        texts + bytes
    }

    fn differs(&self, newer: &Self) -> bool {
        self.data != newer.data || self.binary_data != newer.binary_data
    }
}

/// An object that is there and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name:?} cannot be read: {cause}")]
pub struct UnreadError {
    pub kind: String,
    pub name: String,
    pub cause: UnreadCause,
}

/// Why it cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadCause {
    #[error("{0}; give the operator the right to get it, it is tried again")]
    Refused(String),
    #[error("{0}; it is tried again")]
    Failed(String),
    #[error("the API server did not answer within {} s; it is tried again", LONGEST.as_secs())]
    Late,
    /// A fault of this program: who reads an object says so before.
    #[error("nobody had it read")]
    NotReferred,
}

impl UnreadCause {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 403 => Self::Refused(status.message.clone()),
            kube::Error::Api(status) => Self::Failed(status.message.clone()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// What is held of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldSize {
    /// Objects that are held whole.
    pub objects: usize,
    /// Bytes of their data.
    pub bytes: usize,
}

/// The objects of one kind in the watched namespaces.
pub struct ReferencedStore<K> {
    /// Identities of all.
    index: ObjectStore<PartialObjectMeta<K>>,
    namespaces: RwLock<BTreeMap<String, ReferencedObjects<K>>>,
    reads: Semaphore,
}

impl<K> fmt::Debug for ReferencedStore<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what is in them.
        f.debug_struct("ReferencedStore").finish_non_exhaustive()
    }
}

/// What is referred to in one namespace.
struct ReferencedObjects<K> {
    names: BTreeSet<String>,
    held: BTreeMap<String, HeldObject<K>>,
    unread: BTreeMap<String, UnreadError>,
    failed: HeldBack<String>,
}

struct HeldObject<K> {
    object: Arc<K>,
    /// resourceVersion since which its data are as they are.
    since: String,
}

impl<K> Default for ReferencedObjects<K> {
    fn default() -> Self {
        Self {
            names: BTreeSet::new(),
            held: BTreeMap::new(),
            unread: BTreeMap::new(),
            failed: HeldBack::default(),
        }
    }
}

impl<K> Default for ReferencedStore<K> {
    fn default() -> Self {
        Self {
            index: ObjectStore::default(),
            namespaces: RwLock::default(),
            reads: Semaphore::new(READS_AT_ONCE),
        }
    }
}

impl<K> ReferencedStore<K> {
    /// As [`ObjectStore::epoch`].
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.index.epoch()
    }
}

impl<K: Referable + Clone> ReferencedStore<K> {
    /// The object of this name, as it was read last; `None` where there is none.
    ///
    /// # Errors
    /// [`UnreadError`] where there is one that could not be read.
    pub fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, UnreadError> {
        if self.index.get(namespace, name).is_none() {
            return Ok(None);
        }
        let namespaces = self.namespaces.read();
        let objects = namespaces.get(namespace);
        if let Some(error) = objects.and_then(|it| it.unread.get(name)) {
            return Err(error.clone());
        }
        if let Some(held) = objects.and_then(|it| it.held.get(name)) {
            return Ok(Some(held.object.clone()));
        }
        if objects.is_some_and(|it| it.names.contains(name)) {
            // It was made since the last read, whose state this is.
            return Ok(None);
        }
        Err(unread::<K>(name, UnreadCause::NotReferred))
    }

    /// The object of this name in whatever form is held; `None` where none is.
    #[must_use]
    pub fn last_read(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let namespaces = self.namespaces.read();
        let held = namespaces.get(namespace)?.held.get(name)?;
        Some(held.object.clone())
    }

    /// Changes where the data of the object change, or it is made anew.
    pub fn form(&self, namespace: &str, name: &str) -> impl Hash + use<K> {
        let there = self.index.get(namespace, name).is_some();
        let namespaces = self.namespaces.read();
        let objects = namespaces.get(namespace).filter(|_| there);
        let held = objects.and_then(|it| it.held.get(name));
        let held = held.map(|held| (held.object.uid(), held.since.clone()));
        let error = objects.and_then(|it| it.unread.get(name));
        (held, error.map(ToString::to_string))
    }

    /// Says which objects of a namespace are referred to. What is held of others is dropped.
    pub fn refer(&self, namespace: &str, names: BTreeSet<String>) {
        let mut namespaces = self.namespaces.write();
        if names.is_empty() {
            namespaces.remove(namespace);
            return;
        }
        let objects = namespaces.entry(namespace.to_owned()).or_default();
        objects.held.retain(|name, _| names.contains(name));
        objects.unread.retain(|name, _| names.contains(name));
        for gone in objects.names.difference(&names) {
            objects.failed.forget(gone);
        }
        objects.names = names;
    }

    /// What is held of all namespaces.
    #[must_use]
    pub fn size(&self) -> HeldSize {
        let namespaces = self.namespaces.read();
        let held = namespaces.values().flat_map(|it| it.held.values());
        held.fold(HeldSize::default(), |size, held| HeldSize {
            objects: size.objects + 1,
            bytes: size.bytes + held.object.data_bytes(),
        })
    }

    /// Those referred to of which the watch knows another form than is held, with it. What is gone is
    /// dropped on the way.
    fn behind(&self, namespace: &str, now: Instant) -> Vec<(String, u64)> {
        let mut namespaces = self.namespaces.write();
        let Some(objects) = namespaces.get_mut(namespace) else {
            return Vec::new();
        };
        let mut behind = Vec::new();
        for name in &objects.names {
            let Some(there) = self.index.get(namespace, name) else {
                objects.held.remove(name);
                objects.unread.remove(name);
                objects.failed.forget(name);
                continue;
            };
            let held = objects.held.get(name);
            if held.is_some_and(|held| is_current(held.object.meta(), &there.metadata)) {
                objects.unread.remove(name);
                continue;
            }
            let form = fingerprint(&there.metadata);
            if objects.failed.holds(name, form, now).is_none() {
                behind.push((name.clone(), form));
            }
        }
        behind
    }

    /// Whether the watch knows anything else of what is referred to than is held.
    fn is_stale(&self, namespace: &str) -> bool {
        let namespaces = self.namespaces.read();
        let Some(objects) = namespaces.get(namespace) else {
            return false;
        };
        objects.names.iter().any(|name| {
            let held = objects.held.get(name);
            match (self.index.get(namespace, name), held) {
                (Some(there), Some(held)) => !is_current(held.object.meta(), &there.metadata),
                (there, held) => there.is_some() != held.is_some(),
            }
        })
    }

    /// Whether an object is referred to.
    fn is_referred(&self, namespace: &str, name: &str) -> bool {
        let namespaces = self.namespaces.read();
        let objects = namespaces.get(namespace);
        objects.is_some_and(|it| it.names.contains(name))
    }

    /// Keeps an object that was read or written, where the index took this very form or knows none newer.
    fn keep(&self, mut object: K) {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let there = self.index.get(&namespace, &name);
        if !there.is_some_and(|there| is_current(object.meta(), &there.metadata)) {
            return;
        }
        object.meta_mut().managed_fields = None;
        let mut namespaces = self.namespaces.write();
        let objects = namespaces.entry(namespace).or_default();
        objects.unread.remove(&name);
        objects.failed.forget(&name);
        let before = objects.held.get(&name);
        let before = before.filter(|before| before.object.meta().uid == object.meta().uid);
        if before.is_some_and(|before| is_later(&object, before.object.as_ref())) {
            return;
        }
        let since = match before {
            Some(before) if !before.object.differs(&object) => before.since.clone(),
            _ => object.resource_version().unwrap_or_default(),
        };
        let object = Arc::new(object);
        objects.held.insert(name, HeldObject { object, since });
    }

    /// Enters the answer to a write that may have created the object, as [`ObjectStore::created`].
    pub fn created(&self, object: K, since: Epoch) {
        self.index.created(identity(object.meta()), since);
        self.keep(object);
    }
}

impl<K: Referable + Clone + DeserializeOwned + fmt::Debug> ReferencedStore<K> {
    /// Reads the objects referred to of which the watch knows another form than is held, several at a
    /// time. When the next of those that failed may be tried again.
    pub async fn read(&self, client: &Client, namespace: &str) -> Option<Duration> {
        let api: Api<K> = Api::namespaced(client.clone(), namespace);
        let behind = self.behind(namespace, Instant::now());
        let reads = behind.into_iter().map(async |(name, form)| {
            // Never closed.
            let _permit = self.reads.acquire().await;
            self.read_one(&api, namespace, name, form).await;
        });
        at_once(READS_AT_ONCE, reads).await;
        let mut namespaces = self.namespaces.write();
        let now = Instant::now();
        let next = namespaces.get_mut(namespace)?.failed.due(now, |_| ())?;
        Some(next.duration_since(now))
    }

    async fn read_one(&self, api: &Api<K>, namespace: &str, name: String, form: u64) {
        let since = self.epoch();
        let known = self.index.get(namespace, &name);
        let cause = match timeout(LONGEST, api.get_opt(&name)).await {
            Ok(Ok(Some(object))) => return self.created(object, since),
            Ok(Ok(None)) => {
                let uid = known.and_then(|known| known.metadata.uid.clone());
                return self
                    .index
                    .deleted(namespace, &name, &uid.unwrap_or_default());
            }
            Ok(Err(error)) => UnreadCause::of(&error),
            Err(_) => UnreadCause::Late,
        };
        let error = unread::<K>(&name, cause);
        let mut namespaces = self.namespaces.write();
        let objects = namespaces.entry(namespace.to_owned()).or_default();
        if objects.unread.get(&name) != Some(&error) {
            tracing::warn!(namespace, "{error}");
        }
        let now = Instant::now();
        objects.failed.failed(now, name.clone(), form, FAILED, ());
        objects.unread.insert(name, error);
    }
}

impl<K: Referable + Clone + DeserializeOwned> AnswerStore for ReferencedStore<K> {
    fn epoch(&self) -> Epoch {
        self.epoch()
    }

    fn created_json(&self, object: Value, since: Epoch) {
        if let Ok(object) = serde_json::from_value(object) {
            self.created(object, since);
        }
    }

    fn deleted(&self, namespace: &str, name: &str, uid: &str) {
        self.index.deleted(namespace, name, uid);
    }
}

/// A watch of metadata that fills the index.
#[derive(Debug)]
pub struct IdentityApplier<K> {
    applier: WatchApplier<PartialObjectMeta<K>>,
}

impl<K: Referable + Clone> IdentityApplier<K> {
    /// Of one namespace; `None`: of all.
    #[must_use]
    pub fn of(namespace: Option<String>) -> Self {
        let applier = WatchApplier::of(namespace);
        Self { applier }
    }

    /// Takes what the watch says; returns the namespaces where it is about an object that is referred to.
    pub fn take(
        &mut self,
        store: &ReferencedStore<K>,
        event: Event<PartialObjectMeta<K>>,
    ) -> BTreeSet<String> {
        let concerns = match &event {
            Event::Apply(object) | Event::Delete(object) => {
                Some((object.namespace().unwrap_or_default(), object.name_any()))
            }
            _ => None,
        };
        let event = event.modify(|object| *object = identity(&object.metadata));
        let mut touched = self.applier.take(&store.index, event);
        // What is referred to is said before the index is read: an event comes before that, or is seen here.
        match concerns {
            Some((namespace, name)) => {
                let is_referred = store.is_referred(&namespace, &name);
                touched.retain(|_| is_referred);
            }
            None => touched.retain(|namespace| store.is_stale(namespace)),
        }
        touched
    }
}

/// What the index keeps of an object: of thousands of other people's the rest is a burden, and an
/// annotation may hold the whole object once more.
fn identity<K>(metadata: &ObjectMeta) -> PartialObjectMeta<K> {
    let metadata = ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectMeta::default()
    };
    metadata.into_response_partial()
}

/// Whether a form of an object is the one that the index knows, or a newer one.
fn is_current(held: &ObjectMeta, there: &ObjectMeta) -> bool {
    held.uid == there.uid && !is_later_version(held, there)
}

fn fingerprint(metadata: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&metadata.uid, &metadata.resource_version).hash(&mut hasher);
    hasher.finish()
}

fn unread<K: Referable>(name: &str, cause: UnreadCause) -> UnreadError {
    UnreadError {
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
        cause,
    }
}

#[cfg(test)]
mod tests;
