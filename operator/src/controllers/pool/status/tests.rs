#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    compile::{Kind, ObjectRef, Severity},
    proxy_status::{GatewayFacts, PodReport, SidecarFacts, model},
};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn diagnostic(condition: ConditionType, status: bool, reason: Reason) -> Diagnostic {
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, "hq"),
        condition,
        status,
        reason,
        message: "said".into(),
        severity: Severity::Info,
    }
}

fn deployment(ready: i32) -> Deployment {
    serde_json::from_value(json!({"status": {"replicas": 2, "readyReplicas": ready}})).unwrap()
}

/// Pods that have loaded these generations; `None` did not answer yet.
fn report(pods: &[Option<u64>], rejected: bool) -> PoolReport {
    let mut report = PoolReport::default();
    for (number, generation) in pods.iter().enumerate() {
        let status = generation.map(|generation| {
            let rejected = rejected.then(|| json!({"time": "2026-01-01T00:00:00Z", "error": "bad"}));
            serde_json::from_value::<model::ProxyStatus>(json!({"pool": "hq", "version": "1",
                "config": {"generation": generation, "loadedTime": "2026-01-01T00:00:00Z", "rejected": rejected}}))
            .unwrap()
        });
        let pod = PodReport {
            status,
            unreachable: None,
        };
        report.pods.insert(format!("hq-{number}"), pod);
    }
    report
}

fn issued() -> CertificateState {
    let pair = crate::secrets::issue::root("x", now()).unwrap();
    CertificateState {
        facts: Some(crate::secrets::chain::CertificateFacts::of_chain(&pair.chain).unwrap()),
        pair: Some(pair),
        fault: None,
        missing: Vec::new(),
        request: None,
        sip: Vec::new(),
    }
}

fn said(status: &PoolStatus, condition: ConditionType) -> String {
    let found = crate::status::condition::find(&status.conditions, condition).unwrap();
    format!("{}, {}", found.status, found.reason)
}

/// For as long as the tests run.
fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn identity() -> SidecarIdentity {
    SidecarIdentity {
        gateway: "org".to_owned(),
        place: crate::runtime::caches::SecretPlace {
            namespace: "n".to_owned(),
            name: "xmpp-edge-sidecar-org".to_owned(),
        },
        state: crate::controllers::pool::sidecar_secrets::IdentityState::Issued {
            not_after: now(),
        },
    }
}

/// A pool that is well, but for this.
fn check<'a>(change: impl FnOnce(&mut Findings<'a>), expected: &[(ConditionType, &str)]) {
    let (provision, deployment) = (kept(issued()), kept(deployment(2)));
    let report = kept(report(&[Some(5), Some(6)], false));
    let accepted = kept(diagnostic(Accepted, true, Reason::Accepted));
    let mut found = Findings {
        name: "hq",
        generation: Some(3),
        pool: None,
        compiled: Some(5),
        written: Some(5),
        failure: None,
        blocked: None,
        unwritten: None,
        diagnostics: vec![accepted],
        certificate: Certificate::Provided(provision),
        deployment: Some(deployment),
        addresses: vec!["192.0.2.1".into()],
        report: Some(report),
        facts: None,
        dns: DesiredCondition::new(ConditionType::DnsPublished, true, Reason::NotManaged, ""),
        refused: Vec::new(),
        identities: Some(kept(vec![identity()])),
        sidecar_pods: None,
        held_by: None,
        now: now(),
    };
    change(&mut found);
    let status = status(&PoolStatus::default(), &found);
    assert_eq!(status.observed_generation, Some(3));
    let types: Vec<&str> = status.conditions.iter().map(|it| &*it.type_).collect();
    let documented = xmpp_edge_crds::kinds::pool::CONDITIONS.iter();
    assert_eq!(types, documented.map(|it| it.as_str()).collect::<Vec<_>>());
    for (condition, wanted) in expected {
        assert_eq!(said(&status, *condition), *wanted, "{condition}");
    }
}

use ConditionType::{Accepted, CertificateReady, ConfigReplicated, GatewayReachable, Ready};

#[test]
fn a_pool_is_ready_when_all_that_counts_is_true_and_says_the_first_fault_else() {
    check(
        |_| {},
        &[
            (Ready, "True, Ready"),
            (Accepted, "True, Accepted"),
            (CertificateReady, "True, Issued"),
        ],
    );
    let none = deployment(0);
    check(
        |it| it.deployment = Some(&none),
        &[(Ready, "False, NoReadyReplica")],
    );
    let bad = diagnostic(Accepted, false, Reason::ReferenceMissing);
    check(
        |it| it.diagnostics = vec![&bad],
        &[
            (Ready, "False, ReferenceMissing"),
            (Accepted, "False, ReferenceMissing"),
        ],
    );
    let secrets = diagnostic(Ready, false, Reason::DialbackSecretsDiffer);
    check(
        |it| it.diagnostics.push(&secrets),
        &[
            (Ready, "False, DialbackSecretsDiffer"),
            (Accepted, "True, Accepted"),
        ],
    );
    check(
        |it| it.refused = vec!["x".into()],
        &[(Ready, "False, ObjectRefused")],
    );
    check(
        |it| it.certificate = Certificate::Failed(Reason::KindMissing, "cert-manager"),
        &[
            (Ready, "False, KindMissing"),
            (CertificateReady, "False, KindMissing"),
        ],
    );
    check(
        |it| {
            it.dns = DesiredCondition::new(
                ConditionType::DnsPublished,
                ConditionStatus::Unknown,
                Reason::Pending,
                "",
            )
        },
        &[(Ready, "Unknown, Pending")],
    );
}

#[test]
fn the_configuration_is_replicated_once_every_ready_pod_has_it() {
    let table: [(&[Option<u64>], bool, &str); 6] = [
        (&[], false, "Unknown, NoReadyReplica"),
        (&[Some(5), Some(5)], false, "True, InSync"),
        (&[Some(5), Some(4)], false, "False, Pending"),
        (&[Some(5), None], false, "Unknown, Pending"),
        (&[Some(4), Some(4)], true, "False, ConfigRejected"),
        // What a pod refused before says nothing once it has the newest.
        (&[Some(5)], true, "True, InSync"),
    ];
    for (pods, rejected, expected) in table {
        let report = report(pods, rejected);
        check(
            |it| it.report = Some(&report),
            &[(ConfigReplicated, expected)],
        );
    }
    let large = Fault::new(Reason::ConfigTooLarge, "too large");
    check(
        |it| it.unwritten = Some(&large),
        &[
            (ConfigReplicated, "False, ConfigTooLarge"),
            (Ready, "False, ConfigTooLarge"),
        ],
    );
    check(
        |it| it.written = None,
        &[(ConfigReplicated, "Unknown, Pending")],
    );
}

#[test]
fn a_gateway_that_is_lost_is_named_and_only_informs() {
    for (reachable, expected) in [
        (vec![Some(true)], "True, Reachable"),
        (vec![Some(true), None], "Unknown, NotAttempted"),
        (vec![None, Some(false)], "False, Unreachable"),
        (vec![], "Unknown, NotAttempted"),
    ] {
        let facts = PoolFacts {
            partners: BTreeMap::new(),
            gateways: reachable
                .into_iter()
                .map(|reachable| GatewayFacts {
                    reachable,
                    ..GatewayFacts::default()
                })
                .collect(),
            ..PoolFacts::default()
        };
        check(
            |it| it.facts = Some(&facts),
            &[(GatewayReachable, expected), (Ready, "True, Ready")],
        );
    }
}

#[test]
fn a_sip_server_that_is_reached_and_refuses_is_told_with_what_to_do() {
    for (outcome, expected) in [
        ("AuthenticationDemanded", "True, AuthenticationDemanded"),
        ("EventRefused", "True, EventRefused"),
        ("NotifyMissing", "True, NotifyMissing"),
        ("UnknownServer", "True, UnknownServer"),
        ("OfANewerVersion", "True, Reachable"),
    ] {
        let step = model::AttemptStep {
            step: "sip".to_owned(),
            outcome: outcome.to_owned(),
            direction: model::Direction::Inbound,
            domain: None,
            address: None,
            text: Some("489 Bad Event".to_owned()),
            time: now(),
            unproven: false,
        };
        let gateway = |reachable| GatewayFacts {
            address: "sip.example:5061".to_owned(),
            reachable: Some(reachable),
            refused: Some(("hq-0".to_owned(), step.clone())),
            ..GatewayFacts::default()
        };
        let facts = |reachable| PoolFacts {
            gateways: vec![gateway(reachable)],
            ..PoolFacts::default()
        };
        let (reached, away) = (facts(true), facts(false));
        check(
            |it| it.facts = Some(&reached),
            &[(GatewayReachable, expected), (Ready, "True, Ready")],
        );
        check(
            |it| it.facts = Some(&away),
            &[(GatewayReachable, "False, Unreachable")],
        );
        if let Some(told) = super::sip::refusal(&reached.gateways) {
            let words = ["sip.example:5061", "489 Bad Event", "hq-0"];
            let remedy = xmpp_edge_crds::remedy::of_gateway(outcome).unwrap();
            let has = |word: &&str| told.message.contains(*word);
            assert!(words.iter().chain([&remedy]).all(has), "{}", told.message);
        }
    }
}

#[test]
fn a_gateway_without_its_sidecar_says_so_and_only_informs() {
    for (sidecars, expected) in [
        (SidecarFacts::default(), "False, NoSidecar"),
        (
            SidecarFacts {
                connected: BTreeMap::from([("prosody-0".to_owned(), Default::default())]),
                ..SidecarFacts::default()
            },
            "True, Reachable",
        ),
    ] {
        let facts = PoolFacts {
            gateways: vec![GatewayFacts {
                mode: Some(xmpp_edge_crds::edge_config::GatewayMode::Sidecar),
                sidecars: Some(sidecars),
                ..GatewayFacts::default()
            }],
            ..PoolFacts::default()
        };
        check(
            |it| it.facts = Some(&facts),
            &[(GatewayReachable, expected), (Ready, "True, Ready")],
        );
    }
}

#[test]
fn counts_alone_are_written_every_five_minutes() {
    let of = |inbound, replicas| PoolStatus {
        replicas,
        streams: Some(StreamCounts {
            inbound,
            outbound: 0,
        }),
        ..PoolStatus::default()
    };
    let long_ago = Some(now() - SignedDuration::from_secs(300));
    let lately = Some(now() - SignedDuration::from_secs(299));
    for (old, new, counted, due) in [
        (of(1, 1), of(1, 1), None, false),
        (of(1, 1), of(2, 1), lately, false),
        (of(1, 1), of(2, 1), long_ago, true),
        (of(1, 1), of(2, 1), None, true),
        (of(1, 1), of(2, 2), lately, true),
    ] {
        assert_eq!(is_due(&old, &new, counted, now()), due);
    }
}

fn message(found: &Findings<'_>, condition: ConditionType) -> String {
    let status = status(&PoolStatus::default(), found);
    let found = crate::status::condition::find(&status.conditions, condition).unwrap();
    found.message.clone()
}

#[test]
fn a_write_that_fails_is_a_fault_of_ready_with_its_words() {
    let words = "Deployment hq: failed calling webhook \"nowhere.example.com\"; it is tried again";
    check(
        |it| {
            it.failure = Some(words);
            assert_eq!(message(it, Ready), words);
        },
        &[
            (Ready, "False, WriteFailed"),
            (ConfigReplicated, "True, InSync"),
        ],
    );
}

#[test]
fn what_is_compiled_and_not_written_is_not_replicated() {
    check(
        |it| {
            it.compiled = Some(6);
            it.failure = Some("ConfigMap hq-config-0: no answer");
            let said = message(it, ConfigReplicated);
            assert!(
                said.contains("generation 6 is not written yet: ConfigMap hq-config-0"),
                "{said}"
            );
        },
        &[
            (ConfigReplicated, "False, Pending"),
            (Ready, "False, Pending"),
        ],
    );
}

#[test]
fn without_a_ready_pod_ready_says_what_keeps_pods_from_running() {
    let none = deployment(0);
    let quota = "its pods cannot be created: exceeded quota: q";
    check(
        |it| {
            it.deployment = Some(&none);
            it.blocked = Some(quota);
            assert_eq!(message(it, Ready), format!("no pod is ready: {quota}"));
        },
        &[(Ready, "False, NoReadyReplica")],
    );
    // Others serve: it is told, and nothing is wrong yet.
    check(
        |it| {
            it.blocked = Some(quota);
            assert_eq!(message(it, Ready), quota);
        },
        &[(Ready, "True, Ready")],
    );
}
