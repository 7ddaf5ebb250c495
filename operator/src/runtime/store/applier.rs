//! What a watch says, entered into a store.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use kube::{Resource, ResourceExt, runtime::watcher::Event};

use super::{Contents, Names, ObjectStore, is_newer};

/// One watch that fills a table, of one namespace or of all.
pub struct WatchApplier<V> {
    /// `None`: every namespace.
    namespace: Option<String>,
    /// What a list under way has brought so far.
    listing: BTreeMap<String, Names<V>>,
}

impl<V> fmt::Debug for WatchApplier<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchApplier")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
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
                if table.held.write().enter(object, table.matters) {
                    touched.insert(namespace);
                }
            }
            Event::Delete(object) => {
                let namespace = object.namespace().unwrap_or_default();
                table.held.write().delete(&object);
                touched.insert(namespace);
            }
        }
        touched
    }

    /// A list is whole: what it does not have is gone.
    fn finish(&mut self, table: &ObjectStore<V>) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        let mut listed = std::mem::take(&mut self.listing);
        let mut held = table.held.write();
        let Contents { objects, deleted } = &mut *held;
        deleted.epoch.end();
        let watched: BTreeSet<String> = match &self.namespace {
            Some(namespace) => [namespace.clone()].into(),
            None => objects.keys().chain(listed.keys()).cloned().collect(),
        };
        for namespace in watched {
            let new = listed.remove(&namespace).unwrap_or_default();
            let old = objects.remove(&namespace).unwrap_or_default();
            let mut changed = false;
            for (_, gone) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                changed = true;
                if let Some(uid) = gone.meta().uid.as_deref() {
                    deleted.bury(uid);
                }
            }
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
