//! What the API server holds of one kind, as the watches tell it: by namespace and name.
//!
//! Writes of this process are entered from their answers, so that nothing is planned on what was
//! there before them; an older report never replaces a newer one. It knows nothing of meaning.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{Resource, ResourceExt, runtime::watcher::Event};
use parking_lot::RwLock;

type Names<V> = BTreeMap<String, Arc<V>>;

/// The objects of one kind in the watched namespaces.
pub struct ObjectStore<V> {
    objects: RwLock<BTreeMap<String, Names<V>>>,
    /// Whether a newer form of an object is to be looked at; a younger resourceVersion alone is not.
    matters: fn(&V, &V) -> bool,
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
            objects: RwLock::default(),
            matters,
        }
    }

    /// The object of this name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        self.objects.read().get(namespace)?.get(name).cloned()
    }

    /// All of a namespace, sorted by name.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<V>> {
        let objects = self.objects.read();
        let names = objects.get(namespace);
        names.into_iter().flat_map(Names::values).cloned().collect()
    }

    /// All, by namespace and name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<V>> {
        let objects = self.objects.read();
        objects.values().flat_map(Names::values).cloned().collect()
    }

    /// Whether a namespace has none.
    #[must_use]
    pub fn is_empty_in(&self, namespace: &str) -> bool {
        let objects = self.objects.read();
        objects.get(namespace).is_none_or(BTreeMap::is_empty)
    }
}

impl<V: Resource> ObjectStore<V> {
    /// Enters the answer to a write of this process.
    pub fn put(&self, object: V) {
        self.enter(object);
    }

    /// Whether this is the form that is there: one that waited may have been overtaken.
    #[must_use]
    pub fn is_current(&self, object: &V) -> bool {
        let namespace = object.namespace().unwrap_or_default();
        let current = self.get(&namespace, &object.name_any());
        current.is_some_and(|current| current.resource_version() == object.resource_version())
    }

    /// Forgets an object that this process deleted.
    pub fn forget(&self, namespace: &str, name: &str) {
        if let Some(names) = self.objects.write().get_mut(namespace) {
            names.remove(name);
        }
    }

    /// Enters a form of an object unless a newer one is there; says whether it is worth a look.
    fn enter(&self, object: V) -> bool {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let mut objects = self.objects.write();
        let names = objects.entry(namespace).or_default();
        if let Some(old) = names.get(&name) {
            if !is_newer(old.as_ref(), &object) {
                return false;
            }
            let matters = (self.matters)(old, &object);
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
    let number = |object: &V| -> Option<u64> { object.resource_version()?.parse().ok() };
    match (number(old), number(new)) {
        (Some(old), Some(new)) => new > old,
        _ => old.resource_version() != new.resource_version(),
    }
}

/// One watch that fills a table, of one namespace or of all.
pub struct WatchApplier<V> {
    /// `None`: every namespace.
    namespace: Option<String>,
    /// What a list under way has brought so far.
    listing: BTreeMap<String, Names<V>>,
}

impl<V: Resource> WatchApplier<V> {
    #[must_use]
    pub fn of(namespace: Option<String>) -> Self {
        Self {
            namespace,
            listing: BTreeMap::new(),
        }
    }

    /// Takes what the watch says; returns the namespaces to look at.
    pub fn take(&mut self, table: &ObjectStore<V>, event: Event<V>) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                let namespace = object.namespace().unwrap_or_default();
                let names = self.listing.entry(namespace).or_default();
                names.insert(object.name_any(), Arc::new(object));
            }
            Event::InitDone => touched = self.finish(table),
            Event::Apply(object) => {
                let namespace = object.namespace().unwrap_or_default();
                if table.enter(object) {
                    touched.insert(namespace);
                }
            }
            Event::Delete(object) => {
                let namespace = object.namespace().unwrap_or_default();
                table.forget(&namespace, &object.name_any());
                touched.insert(namespace);
            }
        }
        touched
    }

    /// A list is whole: what it does not have is gone.
    fn finish(&mut self, table: &ObjectStore<V>) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        let mut listed = std::mem::take(&mut self.listing);
        let mut objects = table.objects.write();
        let watched: BTreeSet<String> = match &self.namespace {
            Some(namespace) => [namespace.clone()].into(),
            None => objects.keys().chain(listed.keys()).cloned().collect(),
        };
        for namespace in watched {
            let new = listed.remove(&namespace).unwrap_or_default();
            let old = objects.remove(&namespace).unwrap_or_default();
            let mut changed = old.keys().any(|name| !new.contains_key(name));
            let merged: Names<V> = new
                .into_iter()
                .map(|(name, new)| match old.get(&name) {
                    Some(old) if !is_newer(old.as_ref(), new.as_ref()) => (name, old.clone()),
                    Some(old) => {
                        changed |= (table.matters)(old, &new);
                        (name, new)
                    }
                    None => {
                        changed = true;
                        (name, new)
                    }
                })
                .collect();
            if changed {
                touched.insert(namespace.clone());
            }
            if !merged.is_empty() {
                objects.insert(namespace, merged);
            }
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(namespace: &str, name: &str, version: u64) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some(namespace.into());
        map.metadata.name = Some(name.into());
        map.metadata.uid = Some(name.into());
        map.metadata.resource_version = Some(version.to_string());
        map
    }

    fn version(table: &ObjectStore<ConfigMap>, name: &str) -> Option<String> {
        table.get("a", name)?.resource_version()
    }

    #[test]
    fn an_older_report_never_replaces_the_answer_to_a_write() {
        let (table, mut feed) = (ObjectStore::default(), WatchApplier::of(None));
        feed.take(&table, Event::Apply(map("a", "x", 5)));
        table.put(map("a", "x", 9));
        let touched = feed.take(&table, Event::Apply(map("a", "x", 7)));
        assert_eq!(version(&table, "x").as_deref(), Some("9"));
        assert!(touched.is_empty());
        let echo = feed.take(&table, Event::Apply(map("a", "x", 9)));
        assert!(echo.is_empty(), "one's own write is no reason to look");
    }

    #[test]
    fn a_list_removes_what_is_gone_from_its_own_namespace_alone() {
        let table = ObjectStore::default();
        let mut feed = WatchApplier::of(Some("a".into()));
        for object in [map("a", "x", 1), map("a", "y", 2), map("b", "x", 3)] {
            feed.take(&table, Event::Apply(object));
        }
        feed.take(&table, Event::Init);
        feed.take(&table, Event::InitApply(map("a", "y", 2)));
        assert_eq!(table.all().len(), 3, "a list under way changes nothing");
        let touched = feed.take(&table, Event::InitDone);
        assert_eq!(touched, ["a".to_owned()].into());
        assert_eq!(version(&table, "x"), None);
        assert!(table.get("b", "x").is_some());
        feed.take(&table, Event::Init);
        feed.take(&table, Event::InitApply(map("a", "y", 2)));
        assert!(feed.take(&table, Event::InitDone).is_empty());
    }

    #[test]
    fn an_object_made_anew_under_a_name_replaces_the_one_before() {
        let (table, mut feed) = (ObjectStore::default(), WatchApplier::of(None));
        feed.take(&table, Event::Apply(map("a", "x", 9)));
        let mut anew = map("a", "x", 3);
        anew.metadata.uid = Some("other".into());
        assert!(!feed.take(&table, Event::Apply(anew)).is_empty());
        assert_eq!(version(&table, "x").as_deref(), Some("3"));
    }
}
