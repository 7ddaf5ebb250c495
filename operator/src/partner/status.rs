//! Whether a status that should be differs from the one that is, and whether that can wait. Pure.
//!
//! Conditions, methods, keys and outcomes are news; counts, latencies, times and the texts around
//! them alone can wait. That a stream or a fact is no more is no news either: it comes back.

use xmpp_edge_crds::kinds::{PartnerStatus, conditions::ConditionType, partner::PartnerPoolStatus};

use crate::cluster::written::Difference;

/// How `new` differs from `old`.
#[must_use]
pub fn difference(old: &PartnerStatus, new: &PartnerStatus) -> Difference {
    if old == new {
        return Difference::None;
    }
    let conditions_same = Difference::conditions_same(
        &old.conditions,
        &new.conditions,
        &[ConditionType::Reachable],
    );
    let same = old.observed_generation == new.observed_generation
        && old.authentication_methods == new.authentication_methods
        && conditions_same
        && new.pools.iter().all(|pool| {
            let before = old.pools.iter().find(|it| it.name == pool.name);
            says_nothing_new(before, pool)
        });
    if same {
        Difference::CanWait
    } else {
        Difference::News
    }
}

fn says_nothing_new(old: Option<&PartnerPoolStatus>, new: &PartnerPoolStatus) -> bool {
    let none = PartnerPoolStatus::default();
    let old = old.unwrap_or(&none);
    let outcomes = |pool: &PartnerPoolStatus| -> Vec<(String, String, Option<String>)> {
        let steps = pool.last_attempt.iter();
        steps
            .map(|it| (it.step.clone(), it.outcome.clone(), it.direction.clone()))
            .collect()
    };
    let success = |pool: &PartnerPoolStatus| pool.probe.as_ref().map(|probe| probe.success);
    is_same_or_gone(&old.method, &new.method)
        && is_same_or_gone(&old.peer_key_sha256, &new.peer_key_sha256)
        && is_same_or_gone(&success(old), &success(new))
        && (new.last_attempt.is_empty() || outcomes(old) == outcomes(new))
}

fn is_same_or_gone<T: PartialEq>(old: &Option<T>, new: &Option<T>) -> bool {
    new.is_none() || old == new
}
