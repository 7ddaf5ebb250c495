//! What the API server holds of one kind, as the watches tell it: by namespace and name.
//!
//! The watches decide what exists. Answers to writes of this process are entered too, so that nothing
//! is planned on what was there before them, but they travel on other connections and may come late:
//! an answer never replaces a newer form, and never brings back an object that was deleted meanwhile
//! (a tombstone keeps its uid for [`TOMBSTONE_TTL`]). The store knows nothing of meaning.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use kube::{Resource, ResourceExt, runtime::watcher::Event};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

/// How long the uid of a deleted object is remembered. No call to the API server waits that long for
/// its answer.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(300);
/// Tombstones of one kind, some 100 bytes each. Of more deletions within their time the oldest go, and
/// then no answer that is under way may bring in what the store does not hold.
const MAX_TOMBSTONES: usize = 16_384;

type Names<V> = BTreeMap<String, Arc<V>>;

/// The objects of one kind in the watched namespaces.
pub struct ObjectStore<V> {
    held: RwLock<Held<V>>,
    /// Whether a newer form of an object is to be looked at; a younger resourceVersion alone is not.
    matters: fn(&V, &V) -> bool,
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

struct Held<V> {
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
            held: RwLock::new(Held {
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
        let may = match held.of(&object) {
            Some(there) if there.meta().uid == object.meta().uid => true,
            // Made anew under the name, or the one before: resource versions of a kind compare.
            Some(there) => is_later(there.as_ref(), &object),
            None => held.deleted.epoch == since,
        };
        let gone = object.meta().uid.as_deref();
        if may && !gone.is_some_and(|uid| held.deleted.has(uid)) {
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

impl<V> Held<V> {
    fn get(&self, namespace: &str, name: &str) -> Option<&Arc<V>> {
        self.objects.get(namespace)?.get(name)
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(names) = self.objects.get_mut(namespace) {
            names.remove(name);
        }
    }
}

impl<V: Resource> Held<V> {
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

/// Moments between which no whole list came and no tombstone was dropped early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u64);

/// What was deleted lately.
#[derive(Default)]
struct Tombstones {
    epoch: Epoch,
    uids: HashSet<Arc<str>>,
    order: VecDeque<(Instant, Arc<str>)>,
}

impl Tombstones {
    fn bury(&mut self, uid: &str) {
        let now = Instant::now();
        while let Some((at, _)) = self.order.front() {
            let expired = now.duration_since(*at) >= TOMBSTONE_TTL;
            if !expired && self.order.len() < MAX_TOMBSTONES {
                break;
            }
            if !expired {
                self.epoch.0 += 1;
            }
            if let Some((_, uid)) = self.order.pop_front() {
                self.uids.remove(&uid);
            }
        }
        let uid: Arc<str> = uid.into();
        if self.uids.insert(uid.clone()) {
            self.order.push_back((now, uid));
        }
    }

    fn has(&self, uid: &str) -> bool {
        self.uids.contains(uid)
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
        let Held { objects, deleted } = &mut *held;
        deleted.epoch.0 += 1;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use proptest::prelude::*;

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
        table.updated(map("a", "x", 9));
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

    #[test]
    fn an_answer_that_comes_after_the_deletion_brings_nothing_back() {
        let (table, mut feed) = (ObjectStore::default(), WatchApplier::of(None));
        feed.take(&table, Event::Apply(map("a", "x", 5)));
        let since = table.epoch();
        feed.take(&table, Event::Delete(map("a", "x", 7)));
        table.updated(map("a", "x", 6));
        table.created(map("a", "x", 6), since);
        assert_eq!(version(&table, "x"), None);
    }

    #[test]
    fn an_answer_that_a_whole_list_overtook_brings_nothing_back() {
        let (table, mut feed) = (ObjectStore::default(), WatchApplier::of(None));
        let since = table.epoch();
        // Created and deleted while the watch was away.
        feed.take(&table, Event::Init);
        feed.take(&table, Event::InitDone);
        table.created(map("a", "x", 6), since);
        assert_eq!(version(&table, "x"), None);
        table.created(map("a", "x", 8), table.epoch());
        assert_eq!(version(&table, "x").as_deref(), Some("8"));
    }

    #[test]
    fn tombstones_are_bounded() {
        let table: ObjectStore<ConfigMap> = ObjectStore::default();
        let since = table.epoch();
        for index in 0..=MAX_TOMBSTONES {
            table.deleted("a", "x", &index.to_string());
        }
        assert_eq!(table.held.read().deleted.uids.len(), MAX_TOMBSTONES);
        assert_eq!(table.held.read().deleted.order.len(), MAX_TOMBSTONES);
        let mut first = map("a", "x", 3);
        first.metadata.uid = Some("0".into());
        table.created(first, since);
        assert_eq!(version(&table, "x"), None, "its tombstone went early");
    }

    /// What happens at the API server or on the way from it.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Somebody makes or changes the object.
        Write(usize),
        Delete(usize),
        /// This process makes or changes it; the answer is under way.
        OwnWrite(usize),
        /// This process deletes it; the answer is under way.
        OwnDelete(usize),
        /// The oldest of the answers under way arrives, or a later one.
        Answer(usize),
        /// The watch says its next event.
        Watch,
        /// The watch was cut and begins anew with a list.
        Relist,
    }

    enum Answered {
        Updated(ConfigMap),
        Created(ConfigMap, Epoch),
        Deleted(String, String),
    }

    #[derive(Default)]
    struct Server {
        objects: BTreeMap<usize, ConfigMap>,
        events: VecDeque<Event<ConfigMap>>,
        version: u64,
    }

    impl Server {
        fn write(&mut self, name: usize) -> (ConfigMap, bool) {
            self.version += 1;
            let version = self.version;
            let new = !self.objects.contains_key(&name);
            let object = self.objects.entry(name).or_insert_with(|| {
                let mut object = map("a", &name.to_string(), version);
                object.metadata.uid = Some(format!("{name}-{version}"));
                object
            });
            object.metadata.resource_version = Some(version.to_string());
            let object = object.clone();
            self.events.push_back(Event::Apply(object.clone()));
            (object, new)
        }

        fn delete(&mut self, name: usize) -> Option<ConfigMap> {
            let mut object = self.objects.remove(&name)?;
            self.version += 1;
            object.metadata.resource_version = Some(self.version.to_string());
            self.events.push_back(Event::Delete(object.clone()));
            Some(object)
        }

        fn relist(&mut self) {
            self.events.clear();
            self.events.push_back(Event::Init);
            let listed = self.objects.values().cloned().map(Event::InitApply);
            self.events.extend(listed);
            self.events.push_back(Event::InitDone);
        }
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let name = 0_usize..3;
        prop_oneof![
            2 => name.clone().prop_map(Step::Write),
            2 => name.clone().prop_map(Step::Delete),
            3 => name.clone().prop_map(Step::OwnWrite),
            1 => name.prop_map(Step::OwnDelete),
            4 => (0_usize..4).prop_map(Step::Answer),
            6 => Just(Step::Watch),
            1 => Just(Step::Relist),
        ]
    }

    proptest! {
        /// Whatever the order in which answers and events come: once all have come, the store holds
        /// what the API server holds.
        #[test]
        fn the_store_ends_as_the_api_server_is(steps in proptest::collection::vec(any_step(), 1..120)) {
            let table: ObjectStore<ConfigMap> = ObjectStore::default();
            let (mut feed, mut server) = (WatchApplier::of(None), Server::default());
            server.relist();
            let mut answers: Vec<Answered> = Vec::new();
            let arrive = |answer: Answered| match answer {
                Answered::Updated(object) => table.updated(object),
                Answered::Created(object, since) => table.created(object, since),
                Answered::Deleted(name, uid) => table.deleted("a", &name, &uid),
            };
            for step in steps {
                match step {
                    Step::Write(name) => drop(server.write(name)),
                    Step::Delete(name) => drop(server.delete(name)),
                    Step::OwnWrite(name) => {
                        let since = table.epoch();
                        let (object, new) = server.write(name);
                        answers.push(if new {
                            Answered::Created(object, since)
                        } else {
                            Answered::Updated(object)
                        });
                    }
                    Step::OwnDelete(name) => {
                        if let Some(gone) = server.delete(name) {
                            let uid = gone.metadata.uid.unwrap();
                            answers.push(Answered::Deleted(name.to_string(), uid));
                        }
                    }
                    Step::Answer(index) => {
                        if !answers.is_empty() {
                            let index = index.min(answers.len() - 1);
                            arrive(answers.remove(index));
                        }
                    }
                    Step::Watch => {
                        if let Some(event) = server.events.pop_front() {
                            feed.take(&table, event);
                        }
                    }
                    Step::Relist => server.relist(),
                }
            }
            // The events come last or the answers do.
            for event in std::mem::take(&mut server.events) {
                feed.take(&table, event);
            }
            answers.into_iter().for_each(arrive);
            let held: BTreeMap<String, Option<String>> = table.all().iter()
                .map(|it| (it.name_any(), it.resource_version())).collect();
            let there: BTreeMap<String, Option<String>> = server.objects.values()
                .map(|it| (it.name_any(), it.resource_version())).collect();
            prop_assert_eq!(held, there);
        }
    }
}
