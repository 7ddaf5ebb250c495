//! Answers and events in any order.

#![allow(clippy::unwrap_used)]
use std::collections::VecDeque;

use kube::runtime::watcher::Event;

use super::{tombstones::MAX_TOMBSTONES, *};
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

enum OwnAnswer {
    Updated(ConfigMap),
    Created(ConfigMap, Epoch),
    Deleted(String, String),
}

#[derive(Default)]
struct ApiModel {
    objects: BTreeMap<usize, ConfigMap>,
    events: VecDeque<Event<ConfigMap>>,
    version: u64,
}

impl ApiModel {
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
        let (mut feed, mut server) = (WatchApplier::of(None), ApiModel::default());
        server.relist();
        let mut answers: Vec<OwnAnswer> = Vec::new();
        let arrive = |answer: OwnAnswer| match answer {
            OwnAnswer::Updated(object) => table.updated(object),
            OwnAnswer::Created(object, since) => table.created(object, since),
            OwnAnswer::Deleted(name, uid) => table.deleted("a", &name, &uid),
        };
        for step in steps {
            match step {
                Step::Write(name) => drop(server.write(name)),
                Step::Delete(name) => drop(server.delete(name)),
                Step::OwnWrite(name) => {
                    let since = table.epoch();
                    let (object, new) = server.write(name);
                    answers.push(if new {
                        OwnAnswer::Created(object, since)
                    } else {
                        OwnAnswer::Updated(object)
                    });
                }
                Step::OwnDelete(name) => {
                    if let Some(gone) = server.delete(name) {
                        let uid = gone.metadata.uid.unwrap();
                        answers.push(OwnAnswer::Deleted(name.to_string(), uid));
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
