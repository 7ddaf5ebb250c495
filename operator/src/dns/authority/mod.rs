//! A primary name server as the publisher sees it, and the loop that makes it hold one place:
//! read, plan, update, and again until nothing is left to do. So what is reported was asked for
//! after the last update.

use std::collections::BTreeSet;

use super::{
    error::DnsError,
    marker::RecordOwner,
    plan::{self, DnsPlan, PlanInput, PlanResult, Update},
    rrset::{Name, ObservedRrset, RecordKind, RrSet},
    wanted::{Availability, RecordGroup, Records},
};

/// Rounds until others' changes to the same records count as a fault.
const ROUNDS: u32 = 12;
/// Updates that were taken but are not answered, until that counts as a fault.
const UNANSWERED: u32 = 3;

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpdateOutcome {
    Done,
    /// A prerequisite did not hold: nothing was changed.
    Changed,
}

/// A primary: it can be asked and updated.
pub(super) trait Primary {
    /// The zone that a name is in.
    async fn zone_of(&mut self, name: &Name) -> Result<Name, DnsError>;
    /// The records of one name and type, asked now; `None` where there are none.
    async fn read(&mut self, name: &Name, kind: RecordKind) -> Result<Option<RrSet>, DnsError>;
    /// Whether any record is at `name` itself, not by a wildcard (RFC 2136 section 2.4.4).
    async fn name_exists(&mut self, zone: &Name, name: &Name) -> Result<bool, DnsError>;
    async fn update(&mut self, zone: &Name, update: &Update) -> Result<UpdateOutcome, DnsError>;
    /// The fault of an update that was taken and has no effect.
    fn not_answered(&self, name: &Name) -> DnsError;
}

/// What a place should hold.
pub(super) struct Goal<'a> {
    pub claim: &'a RecordOwner,
    pub standing: Availability,
    pub place: &'a RecordGroup,
    pub records: &'a Records,
    /// Seconds.
    pub ttl: u32,
}

/// Makes the primary hold a place. Names in different zones are dealt with one zone after the
/// other, since an update concerns one; the rule about the last record then counts within each.
pub(super) async fn converge(
    authority: &mut impl Primary,
    goal: &Goal<'_>,
) -> Result<PlanResult, DnsError> {
    let mut zones: Vec<(Name, Records)> = Vec::new();
    for (name, data) in goal.records {
        let zone = authority.zone_of(name).await?;
        let entry = (name.clone(), data.clone());
        match zones.iter_mut().find(|(known, _)| *known == zone) {
            Some((_, records)) => {
                records.extend([entry]);
            }
            None => zones.push((zone, Records::from([entry]))),
        }
    }
    let mut all = PlanResult::default();
    for (zone, records) in zones {
        let settled = settle(authority, goal, &zone, &records).await?;
        all.published |= settled.published;
        all.kept_as_last |= settled.kept_as_last;
        all.foreign.extend(settled.foreign);
        all.namesakes.extend(settled.namesakes);
    }
    Ok(all)
}

async fn settle(
    authority: &mut impl Primary,
    goal: &Goal<'_>,
    zone: &Name,
    records: &Records,
) -> Result<PlanResult, DnsError> {
    let kinds = plan::kinds(matches!(goal.place, RecordGroup::Host(_)));
    // Names at which a wildcard answers: nothing is there.
    let mut synthesised: BTreeSet<Name> = BTreeSet::new();
    let mut unanswered = 0;
    for _ in 0..ROUNDS {
        let mut seen = ObservedRrset::new();
        for name in records.keys() {
            for kind in kinds {
                if synthesised.contains(name) {
                    continue;
                }
                match authority.read(name, *kind).await {
                    Ok(Some(set)) => {
                        seen.insert((name.clone(), *kind), set);
                    }
                    Ok(None) => {}
                    // Beside an alias nothing can be: there is nothing to withdraw.
                    Err(DnsError::Alias { .. })
                        if matches!(
                            goal.standing,
                            Availability::OutOfService | Availability::Removed
                        ) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let look = PlanInput {
            claim: goal.claim,
            standing: goal.standing,
            records,
            kinds,
            ttl: goal.ttl,
            seen: &seen,
        };
        let update = match look.plan() {
            DnsPlan::PlanResult(settled) => return Ok(settled),
            DnsPlan::Update(update) => update,
        };
        match authority.update(zone, &update).await? {
            UpdateOutcome::Done => {
                synthesised.clear();
                unanswered += 1;
                if unanswered == UNANSWERED {
                    return Err(authority.not_answered(first(records)));
                }
            }
            UpdateOutcome::Changed => {
                synthesised.clear();
                for name in records.keys() {
                    if !authority.name_exists(zone, name).await? {
                        synthesised.insert(name.clone());
                    }
                }
            }
        }
    }
    Err(DnsError::Changing {
        name: first(records).clone().into(),
        attempts: ROUNDS,
    })
}

fn first(records: &Records) -> &Name {
    records
        .keys()
        .next()
        .expect("a zone is listed with a name that is in it")
}

#[cfg(test)]
mod tests;
