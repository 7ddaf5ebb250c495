//! `Programmed` of a partner or a policy: whether every ready pod has loaded a generation that
//! holds the object as it is. Other objects' changes never reset it. Pure.

use std::collections::BTreeMap;

use xmpp_edge_crds::kinds::conditions::{ConditionType, Reason};

use super::snapshot::{NamespaceSnapshot, PoolOutcome};
use crate::{
    compile::ObjectRef,
    proxy_status::Loaded,
    status::condition::{ConditionStatus, DesiredCondition},
};

/// What one pool says.
enum Verdict {
    Holds,
    /// Cannot be told now; what was said before may stand.
    Unsure,
    /// No pod is ready, and the last ones did not have it.
    NoPod(String),
    Not(Reason, String),
}

/// The condition; `None` where it cannot be told now and what was said before may stand.
/// `accepted` is what condition `Accepted` says, `outcomes` what came of provisioning the pools.
#[must_use]
pub fn programmed(
    scene: &NamespaceSnapshot,
    outcomes: &BTreeMap<String, PoolOutcome>,
    object: &ObjectRef,
    accepted: bool,
) -> Option<DesiredCondition> {
    let not = |reason, message: String| {
        let wanted = DesiredCondition::new(ConditionType::Programmed, false, reason, message);
        Some(wanted)
    };
    if !accepted {
        return not(
            Reason::NotAccepted,
            "not accepted: see condition Accepted".to_owned(),
        );
    }
    if scene.compiled.configs.is_empty() {
        return not(
            Reason::NoPool,
            "there is no EdgePool in force in this namespace: nothing carries it".to_owned(),
        );
    }
    let said = scene.diagnostics(object);
    if let Some(said) = said
        .iter()
        .find(|it| it.condition == ConditionType::Programmed && !it.status)
    {
        return not(said.reason, said.message.clone());
    }
    let (mut unsure, mut held, mut without_pods) = (false, false, None);
    for pool in scene.compiled.configs.keys() {
        match of_pool(scene, outcomes.get(pool), pool, object) {
            Verdict::Holds => held = true,
            Verdict::Unsure => unsure = true,
            Verdict::NoPod(message) => without_pods = Some(message),
            Verdict::Not(reason, message) => return not(reason, message),
        }
    }
    if unsure {
        return None;
    }
    // It is in force on every ready pod. A pool without one, a site that is down or scaled to nothing,
    // says so itself; where no pool has one, it is in force nowhere.
    if let (false, Some(message)) = (held, without_pods) {
        return not(Reason::Pending, message);
    }
    Some(DesiredCondition::new(
        ConditionType::Programmed,
        true,
        Reason::Programmed,
        "",
    ))
}

fn of_pool(
    scene: &NamespaceSnapshot,
    outcome: Option<&PoolOutcome>,
    pool: &str,
    object: &ObjectRef,
) -> Verdict {
    let (needed, or_before) = scene.since.get(pool).map_or((0, true), |it| it.of(object));
    let report = scene.reports.get(pool);
    let loaded = report.map_or(Loaded::NoPod, crate::proxy_status::PoolReport::loaded);
    // With no pod ready, what the last ones had loaded is what the next begin with.
    let known = match &loaded {
        Loaded::All(generation) => Some(*generation),
        _ => scene.reached.get(pool).copied(),
    };
    if known.is_some_and(|known| known >= needed) {
        return Verdict::Holds;
    }
    if or_before {
        return Verdict::Unsure;
    }
    if let Some(fault) = outcome.and_then(|outcome| outcome.unwritten.as_ref()) {
        return Verdict::Not(fault.reason, fault.message.clone());
    }
    let mut rejected = report
        .into_iter()
        .flat_map(crate::proxy_status::PoolReport::rejected);
    if let Some((pod, rejected)) = rejected.next() {
        return Verdict::Not(
            Reason::ConfigRejected,
            format!(
                "pod {pod} of EdgePool {pool:?} refuses the configuration: {}",
                rejected.error
            ),
        );
    }
    let pending = |message| Verdict::Not(Reason::Pending, message);
    match loaded {
        Loaded::NoPod => Verdict::NoPod(format!("no pod of EdgePool {pool:?} is ready")),
        Loaded::Unknown => pending(format!(
            "pods of EdgePool {pool:?} have not said yet what they have loaded"
        )),
        Loaded::Unreachable { pod, error } => pending(format!(
            "pod {pod} of EdgePool {pool:?} does not say what it has loaded ({error}): check that the operator reaches its admin port"
        )),
        Loaded::All(_) => pending(format!("pods of EdgePool {pool:?} are loading it")),
    }
}

/// `Programmed` as it is to be written: what was said before where nothing can be told.
#[must_use]
pub fn or_kept(told: Option<DesiredCondition>, kept: Option<DesiredCondition>) -> DesiredCondition {
    told.or(kept).unwrap_or_else(|| {
        DesiredCondition::new(
            ConditionType::Programmed,
            ConditionStatus::Unknown,
            Reason::Pending,
            "pods have not said yet what they have loaded",
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        compile::Kind,
        controllers::namespace::snapshot::ChangeTracker,
        proxy_status::{PodReport, PoolReport},
    };

    fn pods(generations: &[Option<u64>]) -> PoolReport {
        let pods = generations.iter().enumerate().map(|(index, generation)| {
            let status = generation.map(|generation| {
                serde_json::from_value(serde_json::json!({"pool": "hq", "version": "0",
                    "config": {"generation": generation, "loadedTime": "2026-01-01T00:00:00Z"}}))
                .unwrap()
            });
            (
                format!("pod-{index}"),
                PodReport {
                    status,
                    unreachable: None,
                },
            )
        });
        PoolReport {
            pods: pods.collect(),
            ..PoolReport::default()
        }
    }

    fn scene(report: PoolReport, reached: Option<u64>, since: ChangeTracker) -> NamespaceSnapshot {
        let mut scene = NamespaceSnapshot::of("n", "2026-01-01T00:00:00Z".parse().unwrap());
        let config = serde_json::from_value(
            crate::controllers::namespace::snapshot::tests::document("hq"),
        )
        .unwrap();
        std::sync::Arc::make_mut(&mut scene.compiled)
            .configs
            .insert("hq".into(), config);
        scene.reports.insert("hq".into(), report);
        scene
            .reached
            .extend(reached.map(|generation| ("hq".to_owned(), generation)));
        scene.since.insert("hq".into(), since);
        scene
    }

    #[test]
    fn it_holds_once_every_ready_pod_has_a_generation_with_the_object() {
        let object = ObjectRef::new(Kind::XmppFederatedPartner, "p");
        let changed = |at| ChangeTracker {
            objects: [(object.clone(), at)].into(),
            before: 1,
            inherited: false,
        };
        let inherited = ChangeTracker {
            objects: BTreeMap::new(),
            before: 5,
            inherited: true,
        };
        let new_pool = ChangeTracker {
            objects: BTreeMap::new(),
            before: 5,
            inherited: false,
        };
        let table = [
            (
                "all have it",
                pods(&[Some(4), Some(5)]),
                None,
                changed(4),
                Some(ConditionStatus::True),
            ),
            (
                "one has not",
                pods(&[Some(3), Some(5)]),
                None,
                changed(4),
                Some(ConditionStatus::False),
            ),
            (
                "other objects changed since",
                pods(&[Some(4)]),
                None,
                changed(3),
                Some(ConditionStatus::True),
            ),
            (
                "one has not said",
                pods(&[Some(4), None]),
                None,
                changed(4),
                Some(ConditionStatus::False),
            ),
            (
                "none is ready, the last had it",
                pods(&[]),
                Some(4),
                changed(4),
                Some(ConditionStatus::True),
            ),
            (
                "none is ready, none had it",
                pods(&[]),
                Some(3),
                changed(4),
                Some(ConditionStatus::False),
            ),
            (
                "it may be older than the leader knows",
                pods(&[Some(4)]),
                None,
                inherited.clone(),
                None,
            ),
            (
                "the leader found it so, and all have that",
                pods(&[Some(5)]),
                None,
                inherited,
                Some(ConditionStatus::True),
            ),
            (
                "a new pool",
                pods(&[Some(4)]),
                None,
                new_pool,
                Some(ConditionStatus::False),
            ),
        ];
        for (case, report, reached, since, expected) in table {
            let told = programmed(
                &scene(report, reached, since),
                &BTreeMap::new(),
                &object,
                true,
            );
            assert_eq!(told.map(|told| told.state), expected, "{case}");
        }
    }

    #[test]
    fn a_pool_without_a_ready_pod_holds_up_nobody_while_another_has_it() {
        let object = ObjectRef::new(Kind::XmppFederatedPartner, "p");
        let since = ChangeTracker {
            objects: [(object.clone(), 4)].into(),
            before: 1,
            inherited: false,
        };
        let two = |first: PoolReport, second: PoolReport| {
            let mut scene = scene(first, None, since.clone());
            let config = scene.compiled.configs["hq"].clone();
            let compiled = std::sync::Arc::make_mut(&mut scene.compiled);
            compiled.configs.insert("dr".into(), config);
            scene.reports.insert("dr".into(), second);
            scene.since.insert("dr".into(), since.clone());
            let told = programmed(&scene, &BTreeMap::new(), &object, true);
            told.map(|told| told.state)
        };
        let table = [
            (
                "one at zero",
                pods(&[Some(4)]),
                pods(&[]),
                Some(ConditionStatus::True),
            ),
            (
                "the other at zero",
                pods(&[]),
                pods(&[Some(4)]),
                Some(ConditionStatus::True),
            ),
            (
                "both at zero",
                pods(&[]),
                pods(&[]),
                Some(ConditionStatus::False),
            ),
            (
                "one at zero, the other loading",
                pods(&[]),
                pods(&[Some(3)]),
                Some(ConditionStatus::False),
            ),
            (
                "a ready pod has not said",
                pods(&[Some(4)]),
                pods(&[None]),
                Some(ConditionStatus::False),
            ),
        ];
        for (case, first, second, expected) in table {
            assert_eq!(two(first, second), expected, "{case}");
        }
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let object = ObjectRef::new(Kind::XmppFederatedPartner, "p");
        let since = ChangeTracker {
            objects: [(object.clone(), 4)].into(),
            before: 1,
            inherited: false,
        };
        let with = |report: PoolReport| scene(report, None, since.clone());
        let reason = |scene: &NamespaceSnapshot, accepted| {
            programmed(scene, &BTreeMap::new(), &object, accepted)
                .unwrap()
                .reason
        };
        assert_eq!(reason(&with(pods(&[])), true), Reason::Pending);
        assert_eq!(reason(&with(pods(&[])), false), Reason::NotAccepted);
        assert_eq!(
            reason(&NamespaceSnapshot::of("n", jiff::Timestamp::MIN), true),
            Reason::NoPool
        );
        let mut refused = pods(&[Some(3)]);
        let status = refused
            .pods
            .values_mut()
            .next()
            .unwrap()
            .status
            .as_mut()
            .unwrap();
        status.config.rejected = Some(crate::proxy_status::model::Rejected {
            time: jiff::Timestamp::MIN,
            error: "e".into(),
        });
        assert_eq!(reason(&with(refused), true), Reason::ConfigRejected);
    }
}
