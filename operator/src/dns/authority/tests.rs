#![allow(clippy::unwrap_used)]
//! The loop against a primary that does what real ones rarely do.

use super::*;
use crate::dns::rrset::{RecordData, name};

/// What the primary does to us.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Someone changes the records before each of our updates, so many times.
    Contended(u32),
    /// A wildcard answers for every name that is not there.
    Wildcard,
    /// Updates are taken and do nothing.
    Deaf,
}

struct Model {
    zone: ObservedRrset,
    mood: Mood,
    updates: u32,
}

impl Model {
    fn new(mood: Mood) -> Self {
        Self {
            zone: ObservedRrset::new(),
            mood,
            updates: 0,
        }
    }
}

fn spf() -> RecordData {
    RecordData::Txt(vec![b"v=spf1 -all".to_vec()])
}

impl Primary for Model {
    async fn zone_of(&mut self, _: &Name) -> Result<Name, DnsError> {
        Ok(name("org.example").unwrap())
    }

    async fn read(&mut self, at: &Name, kind: RecordKind) -> Result<Option<RrSet>, DnsError> {
        let there = self.zone.keys().any(|(name, _)| name == at);
        if self.mood == Mood::Wildcard && !there && kind == RecordKind::Txt {
            return Ok(Some(RrSet {
                ttl: 300,
                data: BTreeSet::from([spf()]),
            }));
        }
        Ok(self.zone.get(&(at.clone(), kind)).cloned())
    }

    async fn name_exists(&mut self, _: &Name, at: &Name) -> Result<bool, DnsError> {
        Ok(self.zone.keys().any(|(name, _)| name == at))
    }

    async fn update(&mut self, _: &Name, update: &Update) -> Result<UpdateOutcome, DnsError> {
        self.updates += 1;
        if let Mood::Contended(left @ 1..) = &mut self.mood {
            *left -= 1;
            let (at, _) = update.prerequisites.keys().next().unwrap().clone();
            let set = self.zone.entry((at, RecordKind::Srv)).or_default();
            set.data.insert(RecordData::Srv {
                priority: 1,
                weight: 1,
                port: u16::try_from(self.updates).unwrap(),
                target: name("elsewhere.example").unwrap(),
            });
        }
        let zone = &self.zone;
        let holds = |(key, seen): (&(Name, RecordKind), &Option<BTreeSet<RecordData>>)| {
            zone.get(key).map(|set| &set.data) == seen.as_ref()
        };
        if !update.prerequisites.iter().all(holds) {
            return Ok(UpdateOutcome::Changed);
        }
        if self.mood != Mood::Deaf {
            for ((at, data), ttl) in &update.add {
                let set = self.zone.entry((at.clone(), data.kind())).or_default();
                set.ttl = *ttl;
                set.data.insert(data.clone());
            }
        }
        Ok(UpdateOutcome::Done)
    }

    fn not_answered(&self, at: &Name) -> DnsError {
        DnsError::NotAnswered {
            server: "model".to_owned(),
            name: at.clone().into(),
        }
    }
}

async fn publish(model: &mut Model) -> Result<PlanResult, DnsError> {
    let place = RecordGroup::Domain("org.example".to_owned());
    let wanted = RecordData::Srv {
        priority: 10,
        weight: 100,
        port: 5269,
        target: name("edge.example").unwrap(),
    };
    let mut records = Records::new();
    for at in place.names().unwrap() {
        records.insert(at, BTreeSet::from([wanted.clone()]));
    }
    let goal = Goal {
        claim: &RecordOwner {
            owner: "o".parse().unwrap(),
            namespace: "org".to_owned(),
            pool: "hq".to_owned(),
        },
        standing: Availability::Serving,
        place: &place,
        records: &records,
        ttl: 60,
    };
    converge(model, &goal).await
}

#[tokio::test]
async fn an_update_starts_over_when_others_changed_the_records() {
    let mut model = Model::new(Mood::Contended(3));
    assert!(publish(&mut model).await.unwrap().published);
    assert_eq!(model.updates, 4);
}

#[tokio::test]
async fn records_that_never_rest_are_a_fault() {
    let mut model = Model::new(Mood::Contended(u32::MAX));
    let error = publish(&mut model).await.unwrap_err();
    assert!(matches!(
        error,
        DnsError::Changing {
            attempts: ROUNDS,
            ..
        }
    ));
}

#[tokio::test]
async fn what_a_wildcard_answers_is_not_taken_for_records_that_are_there() {
    let mut model = Model::new(Mood::Wildcard);
    assert!(publish(&mut model).await.unwrap().published);
    assert!(!model.zone.values().any(|set| set.data.contains(&spf())));
}

#[tokio::test]
async fn an_update_without_effect_is_a_fault() {
    let error = publish(&mut Model::new(Mood::Deaf)).await.unwrap_err();
    assert!(matches!(error, DnsError::NotAnswered { .. }));
}
