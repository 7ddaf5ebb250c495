//! What the API server holds of one kind, as the watches tell it: by namespace and name.
//!
//! The watches decide what exists. Answers to writes of this process are entered too, so that nothing
//! is planned on what was there before them, but they travel on other connections and may come late:
//! an answer never replaces a newer form, and never brings back an object that was deleted meanwhile
//! (a tombstone keeps its uid for [`TOMBSTONE_TTL`]). The store knows nothing of meaning.

mod applier;
mod referenced;
mod tombstones;

use std::{collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::tombstones::Tombstones;
pub use self::{
    applier::WatchApplier,
    referenced::{HeldSize, IdentityApplier, Referable, ReferencedStore, UnreadCause, UnreadError},
    tombstones::{Epoch, TOMBSTONE_TTL},
};

type Names<V> = BTreeMap<String, Arc<V>>;

/// The objects of one kind in the watched namespaces.
pub struct ObjectStore<V> {
    held: RwLock<Contents<V>>,
    /// Whether a newer form of an object is to be looked at; a younger resourceVersion alone is not.
    matters: fn(&V, &V) -> bool,
}

impl<V> fmt::Debug for ObjectStore<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of thousands of objects a line is enough.
        let held = self.held.read();
        let objects: usize = held.objects.values().map(BTreeMap::len).sum();
        f.debug_struct("ObjectStore")
            .field("objects", &objects)
            .finish_non_exhaustive()
    }
}

/// A store of any kind, for answers that come as JSON.
pub trait AnswerStore {
    /// As [`ObjectStore::epoch`].
    fn epoch(&self) -> Epoch;
    /// As [`ObjectStore::created`]; what cannot be decoded comes by the watch.
    fn created_json(&self, object: Value, since: Epoch);
    /// As [`ObjectStore::deleted`].
    fn deleted(&self, namespace: &str, name: &str, uid: &str);
}

impl<V: Resource + DeserializeOwned> AnswerStore for ObjectStore<V> {
    fn epoch(&self) -> Epoch {
        self.epoch()
    }

    fn created_json(&self, object: Value, since: Epoch) {
        if let Ok(object) = serde_json::from_value(object) {
            self.created(object, since);
        }
    }

    fn deleted(&self, namespace: &str, name: &str, uid: &str) {
        self.deleted(namespace, name, uid);
    }
}

struct Contents<V> {
    objects: BTreeMap<String, Names<V>>,
    deleted: Tombstones,
}

impl<V> Default for ObjectStore<V> {
    fn default() -> Self {
        Self::new(|_, _| true)
    }
}

impl<V> ObjectStore<V> {
    /// `matters(old, new)` tells whether a change is worth a look.
    #[must_use]
    pub fn new(matters: fn(&V, &V) -> bool) -> Self {
        Self {
            held: RwLock::new(Contents {
                objects: BTreeMap::new(),
                deleted: Tombstones::default(),
            }),
            matters,
        }
    }

    /// To be taken before a write that may create an object, and given to [`Self::created`].
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.held.read().deleted.epoch
    }

    /// The object of this name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        self.held.read().get(namespace, name).cloned()
    }

    /// All of a namespace, sorted by name.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<V>> {
        let held = self.held.read();
        let names = held.objects.get(namespace);
        names.into_iter().flat_map(Names::values).cloned().collect()
    }

    /// All, by namespace and name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<V>> {
        let held = self.held.read();
        let objects = held.objects.values();
        objects.flat_map(Names::values).cloned().collect()
    }

    /// Whether a namespace has none.
    #[must_use]
    pub fn is_empty_in(&self, namespace: &str) -> bool {
        let held = self.held.read();
        held.objects.get(namespace).is_none_or(BTreeMap::is_empty)
    }
}

impl<V: Resource> ObjectStore<V> {
    /// Enters the answer to a change of an object: unless a newer form is there, or the object was
    /// deleted meanwhile, or another was made under its name.
    pub fn updated(&self, object: V) {
        let mut held = self.held.write();
        let there = held.of(&object);
        if there.is_some_and(|there| there.meta().uid == object.meta().uid) {
            held.enter(object, self.matters);
        }
    }

    /// Enters the answer to a write that may have created the object. `since` is from before the
    /// write was sent: where a whole list came meanwhile, that list or the watch after it tells.
    pub fn created(&self, object: V, since: Epoch) {
        let mut held = self.held.write();
        let gone = object.meta().uid.as_deref();
        let gone = gone.is_some_and(|uid| held.deleted.has(uid));
        let may = match held.of(&object) {
            // The watch says that it is there.
            Some(there) if there.meta().uid == object.meta().uid => true,
            // Made anew under the name, or the one before: resource versions of a kind compare.
            Some(there) => !gone && is_later(there.as_ref(), &object),
            None => !gone && held.deleted.epoch == since,
        };
        if may {
            held.enter(object, self.matters);
        }
    }

    /// Whether this is the form that is there: one that waited may have been overtaken.
    #[must_use]
    pub fn is_current(&self, object: &V) -> bool {
        let held = self.held.read();
        let current = held.of(object);
        current.is_some_and(|current| current.resource_version() == object.resource_version())
    }

    /// An object of this uid is no more: this process deleted it, or was told that it is not there.
    pub fn deleted(&self, namespace: &str, name: &str, uid: &str) {
        let mut held = self.held.write();
        held.deleted.bury(uid);
        let there = held.get(namespace, name);
        if there.is_some_and(|there| there.meta().uid.as_deref() == Some(uid)) {
            held.remove(namespace, name);
        }
    }
}

impl<V> Contents<V> {
    fn get(&self, namespace: &str, name: &str) -> Option<&Arc<V>> {
        self.objects.get(namespace)?.get(name)
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(names) = self.objects.get_mut(namespace) {
            names.remove(name);
        }
    }
}

impl<V: Resource> Contents<V> {
    /// What is held under the name of `object`.
    fn of(&self, object: &V) -> Option<&Arc<V>> {
        let (namespace, name) = (
            object.meta().namespace.as_deref(),
            object.meta().name.as_deref(),
        );
        self.get(namespace.unwrap_or_default(), name.unwrap_or_default())
    }

    /// The watch says that an object is gone. One that this process made since under the name stays.
    fn delete(&mut self, object: &V) {
        if let Some(uid) = object.meta().uid.as_deref() {
            self.deleted.bury(uid);
        }
        let other = |there: &Arc<V>| {
            there.meta().uid != object.meta().uid && is_later(object, there.as_ref())
        };
        if !self.of(object).is_some_and(other) {
            self.remove(&object.namespace().unwrap_or_default(), &object.name_any());
        }
    }

    /// Enters a form of an object unless a newer one is there; says whether it is worth a look.
    fn enter(&mut self, object: V, matters: fn(&V, &V) -> bool) -> bool {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let names = self.objects.entry(namespace).or_default();
        if let Some(old) = names.get(&name) {
            if !is_newer(old.as_ref(), &object) {
                return false;
            }
            let matters = matters(old, &object);
            names.insert(name, Arc::new(object));
            return matters;
        }
        names.insert(name, Arc::new(object));
        true
    }
}

/// Whether `new` is another and no older form than `old`. Resource versions of one resource compare
/// as numbers; where one is none, the report is taken as it comes.
fn is_newer<V: Resource>(old: &V, new: &V) -> bool {
    if old.meta().uid != new.meta().uid {
        return true;
    }
    is_later(old, new)
}

fn is_later<V: Resource>(old: &V, new: &V) -> bool {
    is_later_version(old.meta(), new.meta())
}

fn is_later_version(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    let number = |of: &ObjectMeta| -> Option<u64> { of.resource_version.as_ref()?.parse().ok() };
    match (number(old), number(new)) {
        (Some(old), Some(new)) => new > old,
        _ => old.resource_version != new.resource_version,
    }
}

#[cfg(test)]
mod tests;
