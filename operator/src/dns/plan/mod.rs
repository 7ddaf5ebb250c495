//! One place compared with what DNS holds there: which single records to add and to delete. Pure.
//!
//! Only records that carry a marker of the claim are ever deleted. Each update names the RRsets as
//! last seen, so that it applies to what was compared or not at all.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    marker::{self, Marker, OwnerId, RecordOwner},
    rrset::{Name, ObservedRrset, RecordData, RecordKind, RrSet},
    wanted::{Availability, Records},
};

/// What is to be done at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsPlan {
    /// DNS holds what it should.
    PlanResult(PlanResult),
    Update(Update),
}

/// What DNS holds of a claim at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanResult {
    /// Whether any record of the claim is published.
    pub published: bool,
    /// Whether that is only so because it is the last one of the place.
    pub kept_as_last: bool,
    /// Wanted records that someone else had put there: they will stay.
    pub foreign: BTreeSet<(Name, RecordData)>,
    /// Other owners whose markers speak of a pool of the same namespace and name.
    pub namesakes: BTreeSet<OwnerId>,
}

/// One update (RFC 2136).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The RRsets as last seen; `None`: there was none (sections 2.4.2 and 2.4.3).
    pub prerequisites: BTreeMap<(Name, RecordKind), Option<BTreeSet<RecordData>>>,
    /// Single records (section 2.5.4).
    pub delete: BTreeSet<(Name, RecordData)>,
    /// Single records with their TTL in seconds (section 2.5.1).
    pub add: BTreeMap<(Name, RecordData), u32>,
}

/// The types that matter at a place whose records are of these types.
#[must_use]
pub fn kinds(host: bool) -> &'static [RecordKind] {
    if host {
        &[RecordKind::A, RecordKind::Aaaa, RecordKind::Txt]
    } else {
        &[RecordKind::Srv, RecordKind::Txt]
    }
}

/// One place as it is looked at.
#[derive(Debug)]
pub struct PlanInput<'a> {
    pub claim: &'a RecordOwner,
    pub standing: Availability,
    /// What it should hold while the pool serves; every name of the place has an entry.
    pub records: &'a Records,
    /// [`kinds`] of the place.
    pub kinds: &'a [RecordKind],
    /// Seconds, for RRsets that are the claim's alone. Others keep the TTL they have.
    pub ttl: u32,
    pub seen: &'a ObservedRrset,
}

/// One name of the place.
struct AtName<'a> {
    name: &'a Name,
    /// What is there, without TXT.
    present: BTreeSet<&'a RecordData>,
    markers: Vec<(&'a RecordData, Marker)>,
    /// What is there and marked by the claim.
    mine: BTreeSet<RecordData>,
}

impl PlanInput<'_> {
    /// Compares.
    #[must_use]
    pub fn plan(&self) -> DnsPlan {
        let names: Vec<AtName<'_>> = self.records.keys().map(|name| self.at(name)).collect();
        let have = names.iter().any(|at| !at.mine.is_empty());
        let last = have && !names.iter().any(|at| self.others(at));
        let mut update = Update::default();
        let mut settled = PlanResult::default();
        for at in &names {
            let wanted = &self.records[at.name];
            let desired: BTreeSet<RecordData> = match self.standing {
                Availability::Serving => wanted.clone(),
                // Nothing is known to put in its place: it stays as it is.
                Availability::Unready if last && self.records.values().all(BTreeSet::is_empty) => {
                    at.mine.clone()
                }
                Availability::Unready if last => wanted.clone(),
                Availability::Unready | Availability::OutOfService | Availability::Removed => {
                    BTreeSet::new()
                }
            };
            for (_, marker) in &at.markers {
                if marker.claim.is_namesake_of(self.claim) {
                    settled.namesakes.insert(marker.claim.owner.clone());
                }
            }
            self.take_back(at, &desired, &mut update);
            self.put(at, &desired, &mut update, &mut settled);
        }
        if update.add.is_empty() && update.delete.is_empty() {
            settled.kept_as_last = settled.published && self.standing == Availability::Unready;
            return DnsPlan::PlanResult(settled);
        }
        for name in self.records.keys() {
            for kind in self.kinds {
                let key = (name.clone(), *kind);
                let seen = self.seen.get(&key).map(|set| set.data.clone());
                update.prerequisites.insert(key, seen);
            }
        }
        DnsPlan::Update(update)
    }

    fn at<'a>(&'a self, name: &'a Name) -> AtName<'a> {
        let data = |kind: RecordKind| {
            let set = self.seen.get(&(name.clone(), kind));
            set.into_iter().flat_map(|set: &RrSet| &set.data)
        };
        let markers = marker::among(data(RecordKind::Txt));
        let kinds = self.kinds.iter().filter(|kind| **kind != RecordKind::Txt);
        let present: BTreeSet<&RecordData> = kinds.flat_map(|kind| data(*kind)).collect();
        let mine = present
            .iter()
            .filter(|data| marker::claimants(&markers, data).contains(self.claim))
            .map(|data| (*data).clone())
            .collect();
        AtName {
            name,
            present,
            markers,
            mine,
        }
    }

    /// Whether something else leads partners there: foreign, or wanted by another pool as well.
    fn others(&self, at: &AtName<'_>) -> bool {
        at.present.iter().any(|data| {
            let claimants = marker::claimants(&at.markers, data);
            let alone = claimants.len() == 1 && claimants.contains(self.claim);
            !alone && !data.denies_service()
        })
    }

    /// Deletes markers of the claim whose record is not desired, and records nobody else marked.
    fn take_back(&self, at: &AtName<'_>, desired: &BTreeSet<RecordData>, update: &mut Update) {
        for (data, marker) in &at.markers {
            let stays = desired.iter().any(|data| marker.marks(data));
            if marker.claim == *self.claim && !stays {
                update.delete.insert((at.name.clone(), (*data).clone()));
            }
        }
        for data in at.mine.difference(desired) {
            if marker::claimants(&at.markers, data).len() == 1 {
                update.delete.insert((at.name.clone(), data.clone()));
            }
        }
    }

    /// Adds what is desired and missing, each with its marker.
    fn put(
        &self,
        at: &AtName<'_>,
        desired: &BTreeSet<RecordData>,
        update: &mut Update,
        settled: &mut PlanResult,
    ) {
        for data in desired {
            let claimants = marker::claimants(&at.markers, data);
            let present = at.present.contains(data);
            if present && claimants.is_empty() {
                settled.foreign.insert((at.name.clone(), data.clone()));
                continue;
            }
            settled.published = true;
            let marker = Marker::new(self.claim, data).data();
            for (data, there) in [
                (data.clone(), present),
                (marker, claimants.contains(self.claim)),
            ] {
                let (ttl, stale) = self.ttl_at(at, data.kind());
                if there && stale {
                    // Knot keeps the TTL of a record that is added while it is there.
                    update.delete.insert((at.name.clone(), data.clone()));
                }
                if !there || stale {
                    update.add.insert((at.name.clone(), data), ttl);
                }
            }
        }
    }

    /// The TTL of an addition, and whether what is there has another. An RRset has one TTL (RFC 2181
    /// section 5.2); where others have records in it, that is not ours to change.
    fn ttl_at(&self, at: &AtName<'_>, kind: RecordKind) -> (u32, bool) {
        let Some(set) = self.seen.get(&(at.name.clone(), kind)) else {
            return (self.ttl, false);
        };
        let alone = set.data.iter().all(|data| match kind {
            RecordKind::Txt => Marker::read(data).is_some_and(|marker| marker.claim == *self.claim),
            RecordKind::Srv | RecordKind::A | RecordKind::Aaaa => {
                at.mine.contains(data) && marker::claimants(&at.markers, data).len() == 1
            }
        });
        if alone {
            (self.ttl, set.ttl != self.ttl)
        } else {
            (set.ttl, false)
        }
    }
}

#[cfg(test)]
mod tests;
