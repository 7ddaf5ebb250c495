//! Conditions of any kind: from what is wanted to what a status holds, and which of it is news.
//!
//! Pure. `lastTransitionTime` changes with the status alone.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use xmpp_edge_crds::kinds::conditions::{ConditionType, Reason};

use crate::compile::Diagnostic;

/// Longest message in characters; the API server takes 32768 bytes.
const MAX_MESSAGE: usize = 4096;

/// `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    True,
    False,
    /// Nothing is known yet.
    Unknown,
}

impl ConditionStatus {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredCondition {
    pub condition: ConditionType,
    pub state: ConditionStatus,
    pub reason: Reason,
    pub message: String,
}

impl DesiredCondition {
    #[must_use]
    pub fn new(
        condition: ConditionType,
        state: impl Into<ConditionStatus>,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            condition,
            state: state.into(),
            reason,
            message: message.into(),
        }
    }
}

impl From<&Diagnostic> for DesiredCondition {
    fn from(said: &Diagnostic) -> Self {
        Self::new(said.condition, said.status, said.reason, &said.message)
    }
}

/// The summary: `Ready` is true where all of `counted` are, else it has the first fault's reason.
#[must_use]
pub fn ready(wanted: &[DesiredCondition], counted: &[ConditionType]) -> DesiredCondition {
    let of = |condition: &ConditionType| wanted.iter().find(|it| it.condition == *condition);
    let faults = counted
        .iter()
        .filter_map(of)
        .filter(|it| it.state != ConditionStatus::True);
    // What is wrong says more than what is not known.
    match faults.min_by_key(|it| it.state == ConditionStatus::Unknown) {
        None => DesiredCondition::new(ConditionType::Ready, true, Reason::Ready, ""),
        Some(fault) => DesiredCondition::new(
            ConditionType::Ready,
            fault.state,
            fault.reason,
            fault.message.clone(),
        ),
    }
}

/// The conditions of a status, in the order of `wanted`. `old` are those that it has.
#[must_use]
pub fn merge(
    old: &[Condition],
    wanted: &[DesiredCondition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .iter()
        .map(|wanted| {
            let before = find(old, wanted.condition);
            let since = before
                .filter(|before| before.status == wanted.state.as_str())
                .map_or_else(
                    || whole_seconds(now),
                    |before| before.last_transition_time.clone(),
                );
            Condition {
                type_: wanted.condition.as_str().to_owned(),
                status: wanted.state.as_str().to_owned(),
                reason: wanted.reason.as_str().to_owned(),
                message: wanted.message.chars().take(MAX_MESSAGE).collect(),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// The condition of a type.
#[must_use]
pub fn find(conditions: &[Condition], condition: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|it| it.type_ == condition.as_str())
}

/// A condition that a status has, as it would be wanted again.
#[must_use]
pub fn previous(old: &[Condition], condition: ConditionType) -> Option<DesiredCondition> {
    let old = find(old, condition)?;
    let state = [
        ConditionStatus::True,
        ConditionStatus::False,
        ConditionStatus::Unknown,
    ]
    .into_iter()
    .find(|state| state.as_str() == old.status)?;
    let reason = Reason::ALL
        .iter()
        .find(|reason| reason.as_str() == old.reason)?;
    Some(DesiredCondition::new(
        condition,
        state,
        *reason,
        old.message.clone(),
    ))
}

/// Reasons of something that is on its way by itself. They are no news where it has not been there yet: a
/// healthy start has none but good news.
const ON_ITS_WAY: [Reason; 4] = [
    Reason::NoPool,
    Reason::NoReadyReplica,
    Reason::Issuing,
    Reason::AddressPending,
];
/// Reasons that are never news: another condition says what is.
const SILENT: [Reason; 2] = [Reason::Pending, Reason::NotAccepted];

fn is_one_of(reason: &str, reasons: &[Reason]) -> bool {
    reasons.iter().any(|it| it.as_str() == reason)
}

/// What is worth an Event: a condition that became false or true again, or is false for another
/// reason. That something new is well is no news, nor that it is on its way.
pub fn transitions<'a>(
    old: &[Condition],
    new: &'a [Condition],
) -> impl Iterator<Item = &'a Condition> {
    new.iter().filter(move |new| {
        let old = old.iter().find(|old| old.type_ == new.type_);
        // The summary only repeats.
        new.type_ != ConditionType::Ready.as_str()
            && match (old.map(|old| old.status.as_str()), new.status.as_str()) {
                (_, "False") if is_one_of(&new.reason, &SILENT) => false,
                (Some("True"), "False") => true,
                (_, "False") if is_one_of(&new.reason, &ON_ITS_WAY) => false,
                (Some("False"), "False") => old.is_some_and(|old| old.reason != new.reason),
                (_, "False") => true,
                (Some("False"), "True") => old.is_some_and(|old| {
                    !is_one_of(&old.reason, &SILENT) && !is_one_of(&old.reason, &ON_ITS_WAY)
                }),
                _ => false,
            }
    })
}

/// A time as a status holds it.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn accepted(state: ConditionStatus, reason: Reason) -> DesiredCondition {
        DesiredCondition::new(ConditionType::Accepted, state, reason, "m")
    }

    #[test]
    fn the_transition_time_changes_with_the_status_alone() {
        let first = merge(
            &[],
            &[accepted(ConditionStatus::True, Reason::Accepted)],
            Some(1),
            at(10),
        );
        let same = merge(
            &first,
            &[accepted(ConditionStatus::True, Reason::Invalid)],
            Some(2),
            at(20),
        );
        assert_eq!(same[0].last_transition_time, first[0].last_transition_time);
        assert_eq!(same[0].observed_generation, Some(2));
        let other = merge(
            &same,
            &[accepted(ConditionStatus::False, Reason::Invalid)],
            Some(2),
            at(30),
        );
        assert_eq!(other[0].last_transition_time.0, at(30));
    }

    #[test]
    fn ready_names_what_is_wrong_before_what_is_unknown() {
        use ConditionType::{Accepted, Programmed, Ready};
        let counted = [Accepted, Programmed];
        let programmed = |state, reason| DesiredCondition::new(Programmed, state, reason, "p");
        let table = [
            (
                ConditionStatus::True,
                ConditionStatus::True,
                ConditionStatus::True,
                Reason::Ready,
            ),
            (
                ConditionStatus::True,
                ConditionStatus::Unknown,
                ConditionStatus::Unknown,
                Reason::Pending,
            ),
            (
                ConditionStatus::Unknown,
                ConditionStatus::False,
                ConditionStatus::False,
                Reason::Pending,
            ),
        ];
        for (first, second, state, reason) in table {
            let wanted = [
                accepted(first, Reason::Invalid),
                programmed(second, Reason::Pending),
            ];
            let ready = ready(&wanted, &counted);
            assert_eq!(
                (ready.condition, ready.state, ready.reason),
                (Ready, state, reason)
            );
        }
    }

    #[test]
    fn only_trouble_and_its_end_are_news() {
        let conditions = |state, reason| merge(&[], &[accepted(state, reason)], None, at(1));
        let good = conditions(ConditionStatus::True, Reason::Accepted);
        let bad = conditions(ConditionStatus::False, Reason::Conflict);
        let worse = conditions(ConditionStatus::False, Reason::Invalid);
        let waiting = conditions(ConditionStatus::False, Reason::Pending);
        let no_pool = conditions(ConditionStatus::False, Reason::NoPool);
        let no_pod = conditions(ConditionStatus::False, Reason::NoReadyReplica);
        let count = |old: &[Condition], new: &[Condition]| transitions(old, new).count();
        assert_eq!(count(&[], &good), 0);
        assert_eq!(count(&[], &bad), 1);
        assert_eq!(count(&good, &bad), 1);
        assert_eq!(count(&bad, &bad), 0);
        assert_eq!(count(&bad, &worse), 1);
        assert_eq!(count(&bad, &good), 1);
        assert_eq!(count(&waiting, &good), 0);
        assert_eq!(count(&good, &waiting), 0);
        // A healthy start: nothing, no pool, a pool without pods, pods that load it, good.
        let start: [&[Condition]; 5] = [&[], &no_pool, &no_pod, &waiting, &good];
        assert_eq!(
            start
                .windows(2)
                .map(|it| count(it[0], it[1]))
                .sum::<usize>(),
            0
        );
        assert_eq!(count(&good, &no_pod), 1, "the pods are gone");
        assert_eq!(count(&good, &no_pool), 1, "the pool is gone");
    }
}
