//! `ExternalAccessPolicy` in a cluster: what its status should say (its conditions, how many it
//! grants, and where it is in force), and whether a difference is due. Pure.
//!
//! What carries a policy is its pools' document; no object of its own is made. It is read and
//! written as every kind of that sort is ([`status_only`](super::status_only)).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{AccessPolicy, AccessScope, EdgeConfig},
    jid::BareJid,
    kinds::{ExternalAccessPolicy, PolicyStatus, conditions::ConditionType},
};

use super::{
    namespace::{
        programmed,
        snapshot::{NamespaceSnapshot, PoolOutcome},
    },
    status_only::{Observed, StatusOnlyKind},
};
use crate::{
    compile::Kind,
    status::{
        apply::StatusWriter,
        condition::{self, ConditionStatus},
        throttle::Significance,
    },
};

impl StatusOnlyKind for ExternalAccessPolicy {
    const KIND: Kind = Kind::ExternalAccessPolicy;
    const STATUS_WRITER: StatusWriter<Self> = StatusWriter {
        kind: Kind::ExternalAccessPolicy.as_str(),
        manager: "xmpp-edge-operator/policy",
        table: |caches| &caches.policies,
    };

    fn desired_status(
        scene: &NamespaceSnapshot,
        outcomes: &BTreeMap<String, PoolOutcome>,
        policy: &Observed<'_, Self>,
    ) -> PolicyStatus {
        desired_status(scene, outcomes, policy)
    }

    // Nothing of a policy's status moves by itself, so that every difference is news.
    fn significance(old: &PolicyStatus, new: &PolicyStatus) -> Significance {
        if old == new {
            Significance::None
        } else {
            Significance::Immediate
        }
    }
}

/// The status that the policy should have now.
fn desired_status(
    scene: &NamespaceSnapshot,
    outcomes: &BTreeMap<String, PoolOutcome>,
    policy: &Observed<'_, ExternalAccessPolicy>,
) -> PolicyStatus {
    let accepted = policy.accepted();
    let holds = accepted.state == ConditionStatus::True;
    let told = programmed::programmed(scene, outcomes, &policy.reference, holds);
    let old = &policy.status.conditions;
    let kept = condition::previous(old, ConditionType::Programmed);
    let mut wanted = vec![accepted, programmed::or_kept(told, kept)];
    let counted = [ConditionType::Accepted, ConditionType::Programmed];
    wanted.insert(0, condition::ready(&wanted, &counted));
    let generation = policy.metadata().generation;
    let name = &policy.reference.name;
    let mut users = None;
    let mut effective_pools = Vec::new();
    for (pool, config) in &scene.compiled.configs {
        // Compiled in the order of their names.
        let policies = &config.access.policies;
        if let Ok(place) = policies.binary_search_by(|it| it.name.cmp(name)) {
            let in_force = &policies[place];
            users = granted(in_force);
            if applies(in_force, config) {
                effective_pools.push(pool.clone());
            }
        }
    }
    PolicyStatus {
        observed_generation: generation,
        users,
        effective_pools,
        conditions: condition::merge(old, &wanted, generation, scene.now),
    }
}

/// How many users and domains are granted; of a policy for all of something there is no count.
fn granted(policy: &AccessPolicy) -> Option<u32> {
    match &policy.scope {
        AccessScope::User(granted) => {
            u32::try_from(granted.users.len() + granted.domains.len()).ok()
        }
        AccessScope::Global | AccessScope::Site(_) => None,
    }
}

/// Whether any user of the pool can fall under the policy.
fn applies(policy: &AccessPolicy, config: &EdgeConfig) -> bool {
    match &policy.scope {
        AccessScope::Global => true,
        AccessScope::Site(site) => config.access.home_sites.values().any(|home| home == site),
        AccessScope::User(granted) => {
            let own = |domain: &DomainName| config.domains.binary_search(domain).is_ok();
            granted.domains.iter().any(own) || granted.users.iter().map(BareJid::domain).any(own)
        }
    }
}
