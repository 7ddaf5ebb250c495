//! What a partner's status says, and when it is written.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::{
    PartnerStatus, XmppFederatedPartner, conditions::ConditionType, partner::CONDITIONS,
};

use super::{desired_status, significance};
use crate::{
    compile,
    controllers::{
        namespace::snapshot::{self, ChangeTracker, NamespaceSnapshot},
        status_only,
    },
    proxy_status::{PodReport, PoolReport, merge},
    runtime::decoded::Decoded,
    status::throttle::Significance,
};

fn pool() -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": "hq"},
        "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"}, "replicas": 1,
            "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
            "certificate": {"selfSigned": {}}}})
}

fn partner(spec: Value) -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
        "metadata": {"name": "p", "namespace": "n", "generation": 4, "uid": "u"}, "spec": spec})
}

/// One pod's answer.
fn answer(partners: Value, streams: Value) -> Value {
    json!({"pool": "hq", "version": "0", "config": {"generation": 1, "loadedTime": "2026-01-01T00:00:00Z"},
        "streams": streams, "partners": partners})
}

/// A look at a namespace with one pool and one partner, and what its pods say.
struct Stage {
    scene: NamespaceSnapshot,
    object: Arc<Decoded<XmppFederatedPartner>>,
}

impl Stage {
    fn new(spec: Value, answers: Vec<Option<Value>>) -> Self {
        let object: Decoded<XmppFederatedPartner> = serde_json::from_value(partner(spec)).unwrap();
        let mut scene = snapshot::tests::of(compile::NamespaceInputs {
            namespace: "n".into(),
            pools: vec![serde_json::from_value(pool()).unwrap()],
            partners: object.read().cloned().into_iter().collect(),
            ..compile::NamespaceInputs::default()
        });
        let pods = answers.into_iter().enumerate().map(|(index, answer)| {
            let status = answer.map(|answer| serde_json::from_value(answer).unwrap());
            (
                format!("pod-{index}"),
                PodReport {
                    status,
                    unreachable: None,
                },
            )
        });
        let report = PoolReport {
            pods: pods.collect(),
            ..PoolReport::default()
        };
        let facts = merge::merge(&report, scene.config("hq").unwrap());
        scene.reports.insert("hq".into(), report);
        scene.facts.insert("hq".into(), facts);
        let since = ChangeTracker {
            before: 1,
            ..ChangeTracker::default()
        };
        scene.since.insert("hq".into(), since);
        Self {
            scene,
            object: Arc::new(object),
        }
    }

    fn status(&self) -> PartnerStatus {
        let observed = status_only::read(&self.scene, &self.object);
        desired_status(&self.scene, &BTreeMap::new(), &observed)
    }

    /// The same look at an object that has this status.
    fn having(mut self, status: PartnerStatus) -> Self {
        let Decoded::Valid(mut object) = self.object.as_ref().clone() else {
            panic!("it is read");
        };
        object.status = Some(status);
        self.object = Arc::new(Decoded::Valid(object));
        self
    }
}

fn condition(status: &PartnerStatus, condition: ConditionType) -> (String, String) {
    let found: &Condition = status
        .conditions
        .iter()
        .find(|it| it.type_ == condition.as_str())
        .unwrap();
    (found.status.clone(), found.reason.clone())
}

fn said(status: &PartnerStatus, asked: ConditionType, expected: (&str, &str)) {
    let found = condition(status, asked);
    assert_eq!((found.0.as_str(), found.1.as_str()), expected, "{asked}");
}

#[test]
fn every_condition_is_said_at_the_first_look() {
    use ConditionType::{Accepted, Programmed, Reachable, Ready, Secure};
    let status = Stage::new(json!({"domain": "p.example"}), vec![]).status();
    assert_eq!(status.observed_generation, Some(4));
    said(&status, Ready, ("False", "Pending"));
    said(&status, Accepted, ("True", "Accepted"));
    said(&status, Programmed, ("False", "Pending"));
    said(&status, Secure, ("True", "Encrypted"));
    said(&status, Reachable, ("Unknown", "NotAttempted"));
    let types: Vec<&str> = status.conditions.iter().map(|it| &*it.type_).collect();
    let documented: Vec<&str> = CONDITIONS.iter().map(|it| it.as_str()).collect();
    assert_eq!(types, documented);
    assert_eq!(
        serde_json::to_value(&status.authentication_methods).unwrap(),
        json!(["SaslOverTls"])
    );
    assert_eq!(status.method_summary.as_deref(), Some("SaslOverTls"));
}

#[test]
fn a_partner_is_ready_once_all_pods_have_it() {
    let empty = || Some(answer(json!([]), json!([])));
    let spec = json!({"domain": "p.example"});
    let status = Stage::new(spec.clone(), vec![empty(), empty()]).status();
    said(&status, ConditionType::Ready, ("True", "Ready"));
    let status = Stage::new(spec, vec![empty(), None]).status();
    said(&status, ConditionType::Programmed, ("False", "Pending"));
}

#[test]
fn a_partner_that_does_not_compile_says_why_and_is_not_ready() {
    let stage = Stage::new(json!({"domain": "org.example"}), vec![]);
    let status = stage.status();
    said(&status, ConditionType::Accepted, ("False", "OwnDomain"));
    said(&status, ConditionType::Programmed, ("False", "NotAccepted"));
    said(&status, ConditionType::Ready, ("False", "OwnDomain"));
    said(&status, ConditionType::Secure, ("Unknown", "NotAccepted"));
}

#[test]
fn a_failure_is_named_with_pool_replica_step_and_text() {
    let step = |outcome: &str| {
        json!({"step": "certificate", "outcome": outcome, "direction": "outbound",
        "domain": "p.example", "address": "192.0.2.1:5269", "text": "expired", "time": "2026-01-02T00:00:00Z"})
    };
    let partners = |outcome: &str| json!([{"name": "p", "lastAttempt": [step(outcome)]}]);
    let spec = json!({"domain": "p.example"});
    let status = Stage::new(
        spec.clone(),
        vec![Some(answer(partners("Invalid"), json!([])))],
    )
    .status();
    said(&status, ConditionType::Reachable, ("False", "Unreachable"));
    let steps = &status.pools[0].last_attempt;
    assert_eq!(steps[0].replica.as_deref(), Some("pod-0"));
    assert_eq!(steps[0].direction.as_deref(), Some("Outbound"));
    let message = &status
        .conditions
        .iter()
        .find(|it| it.type_ == "Reachable")
        .unwrap()
        .message;
    for part in ["hq", "certificate", "192.0.2.1:5269", "Invalid", "expired"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let status = Stage::new(spec, vec![Some(answer(partners("Ok"), json!([])))]).status();
    said(&status, ConditionType::Reachable, ("True", "Reachable"));
    let suspended = json!({"domain": "p.example", "suspended": true});
    let status = Stage::new(
        suspended,
        vec![Some(answer(partners("Invalid"), json!([])))],
    )
    .status();
    said(&status, ConditionType::Reachable, ("Unknown", "Suspended"));
}

/// `docs/guide/read-the-status.md` explains this very status, of steps that a real proxy told.
#[test]
fn the_guide_shows_a_partners_status_as_it_is() {
    let step = |step: &str, outcome: &str, address: Option<&str>, text: &str| {
        json!({"step": step, "outcome": outcome, "direction": "outbound", "domain": "partner.example",
            "address": address, "text": text, "milliseconds": 1, "time": "2026-01-02T00:00:00Z"})
    };
    let address = Some("198.51.100.7:5269");
    let steps = json!([
        step(
            "dns",
            "Ok",
            None,
            "xmpp 0 0 5269 xmpp.partner.example; not secure (no DNSSEC signatures)"
        ),
        step(
            "tcp",
            "Ok",
            address,
            "connected to 198.51.100.7:5269 of xmpp.partner.example, for STARTTLS"
        ),
        step(
            "certificate",
            "PeerCertificateName",
            address,
            "a certificate for partner.example was expected, found xmpp.partner.example",
        ),
    ]);
    let partners =
        json!([{"name": "p", "lastConnectedTime": "2026-01-01T17:20:00Z", "lastAttempt": steps}]);
    let spec = json!({"domain": "partner.example"});
    let status = Stage::new(spec, vec![Some(answer(partners, json!([])))]).status();
    let shown = serde_saphyr::to_string(&json!({"status": {"pools": status.pools}})).unwrap();
    let guide = include_str!("../../../../docs/guide/read-the-status.md");
    assert!(guide.contains(&shown), "put this into the guide:\n{shown}");
    let message = &status.conditions.last().unwrap().message;
    assert!(
        guide.contains(message),
        "put this into the guide: {message}"
    );
}

#[test]
fn an_undecodable_partner_is_told_what_is_wrong_and_keeps_its_name() {
    let mut stage = Stage::new(json!({"domain": "p.example"}), vec![]);
    let loose: Decoded<XmppFederatedPartner> =
        serde_json::from_value(partner(json!({"domain": 7}))).unwrap();
    let object = compile::ObjectRef::new(compile::Kind::XmppFederatedPartner, "p");
    let fault = compile::Fault::new(xmpp_edge_crds::kinds::conditions::Reason::Invalid, "f");
    let broken = compile::Undecodable {
        suspended: None,
        fault,
    };
    let anew = snapshot::tests::of(compile::NamespaceInputs {
        partners: Vec::new(),
        broken: [(object, broken)].into(),
        ..compile::NamespaceInputs::clone(&stage.scene.world)
    });
    (stage.scene.world, stage.scene.compiled) = (anew.world, anew.compiled);
    stage.object = Arc::new(loose);
    let status = stage.status();
    said(&status, ConditionType::Accepted, ("False", "Invalid"));
    assert_eq!(status.observed_generation, Some(4));
}

#[test]
fn what_is_known_stays_until_all_pods_have_said_theirs() {
    let stream = json!([{"id": 1, "side": "Partner", "direction": "Inbound", "peerDomains": ["p.example"],
        "method": "SaslOverTls", "establishedTime": "2026-01-02T00:00:00Z"}]);
    let spec = json!({"domain": "p.example"});
    let before = Stage::new(spec.clone(), vec![Some(answer(json!([]), stream))]).status();
    assert_eq!(before.pools[0].inbound_streams, 1);
    let starting = Stage::new(spec.clone(), vec![Some(answer(json!([]), json!([]))), None]);
    let status = starting.having(before.clone()).status();
    assert_eq!(status.pools, before.pools);
    said(&status, ConditionType::Reachable, ("True", "Reachable"));
    let all = Stage::new(spec, vec![Some(answer(json!([]), json!([])))])
        .having(before)
        .status();
    assert!(all.pools.is_empty());
}

#[test]
fn only_conditions_methods_keys_and_outcomes_are_news() {
    let stream = |id: u64, method: &str, time: &str| {
        json!([{"id": id, "side": "Partner", "direction": "Both",
        "peerDomains": ["p.example"], "method": method, "establishedTime": time}])
    };
    let steps = |outcome: &str, text: &str| {
        json!([{"name": "p", "lastConnectedTime": "2026-01-03T00:00:00Z",
        "lastAttempt": [{"step": "tcp", "outcome": outcome, "direction": "outbound", "text": text, "time": "2026-01-02T00:00:00Z"}]}])
    };
    let status = |spec: Value, partners, streams| {
        Stage::new(spec, vec![Some(answer(partners, streams))]).status()
    };
    let plain = || json!({"domain": "p.example"});
    let first = status(
        plain(),
        steps("Refused", "a"),
        stream(1, "SaslOverTls", "2026-01-01T00:00:00Z"),
    );
    let table = [
        ("nothing", first.clone(), Significance::None),
        (
            "another stream",
            status(
                plain(),
                steps("Refused", "a"),
                stream(2, "SaslOverTls", "2026-01-01T09:00:00Z"),
            ),
            Significance::None,
        ),
        (
            "another text",
            status(
                plain(),
                steps("Refused", "b"),
                stream(1, "SaslOverTls", "2026-01-01T00:00:00Z"),
            ),
            Significance::Deferrable,
        ),
        (
            "no stream any more",
            status(plain(), steps("Refused", "a"), json!([])),
            Significance::Deferrable,
        ),
        (
            "another outcome",
            status(
                plain(),
                steps("Timeout", "a"),
                stream(1, "SaslOverTls", "2026-01-01T00:00:00Z"),
            ),
            Significance::Immediate,
        ),
        (
            "another method",
            status(
                plain(),
                steps("Refused", "a"),
                stream(1, "TlsDialback", "2026-01-01T00:00:00Z"),
            ),
            Significance::Immediate,
        ),
        (
            "a condition",
            status(
                json!({"domain": "org.example"}),
                steps("Refused", "a"),
                json!([]),
            ),
            Significance::Immediate,
        ),
    ];
    for (case, new, expected) in table {
        assert_eq!(significance(&first, &new), expected, "{case}");
    }
}

#[test]
fn how_somebody_fails_who_only_claims_to_be_the_partner_is_written_once_and_then_can_wait() {
    let status = |steps: Value| {
        let partners = json!([{"name": "p", "lastAttempt": steps}]);
        let answers = vec![Some(answer(partners, json!([])))];
        Stage::new(json!({"domain": "p.example"}), answers).status()
    };
    let claim = |outcome: &str| {
        json!({"step": "certificate", "outcome": outcome, "direction": "Inbound", "unproven": true,
            "time": "2026-01-02T00:00:00Z"})
    };
    let ours = |outcome: &str| json!({"step": "tcp", "outcome": outcome, "direction": "Outbound", "time": "2026-01-02T00:00:00Z"});
    let (nothing, one) = (
        status(json!([])),
        status(json!([claim("CertificateMissing")])),
    );
    said(&one, ConditionType::Reachable, ("False", "Unreachable"));
    assert_eq!(significance(&nothing, &one), Significance::Immediate);
    let other = status(json!([
        claim("CertificateWrongName"),
        claim("CertificateMissing")
    ]));
    assert_eq!(significance(&one, &other), Significance::Deferrable);
    assert_eq!(significance(&other, &one), Significance::Deferrable);
    // What the edge saw itself is news beside it.
    let both = |outcome: &str| status(json!([claim("CertificateMissing"), ours(outcome)]));
    assert_eq!(
        significance(&one, &both("TcpTimeout")),
        Significance::Immediate
    );
    let changed = significance(&both("TcpTimeout"), &both("TcpRefused"));
    assert_eq!(changed, Significance::Immediate);
}

#[test]
fn what_the_edge_saw_itself_is_told_before_how_somebody_fails_who_only_claims_to_be_the_partner() {
    let claim = |number: u32| {
        json!({"step": "certificate", "outcome": "CertificateMissing", "direction": "inbound", "unproven": true,
            "address": format!("203.0.113.9:{number}"), "time": "2026-01-03T00:00:00Z"})
    };
    let ours = |address: &str, outcome: &str| {
        json!({"step": "tcp", "outcome": outcome, "direction": "outbound", "address": address,
            "time": "2026-01-02T00:00:00Z"})
    };
    let claims = (0..32).map(claim);
    let own = [
        ours("192.0.2.1:5269", "TcpSilent"),
        ours("192.0.2.2:5269", "TcpTimeout"),
    ];
    let first: Vec<Value> = claims.clone().chain(own.clone()).collect();
    let last: Vec<Value> = own.into_iter().chain(claims).collect();
    for steps in [first, last] {
        let partners = json!([{"name": "p", "lastAttempt": steps}]);
        let answers = vec![Some(answer(partners, json!([])))];
        let status = Stage::new(json!({"domain": "p.example"}), answers).status();
        assert_eq!(status.why.as_deref(), Some("TcpTimeout"));
        let message = &status.conditions.last().unwrap().message;
        for part in ["TcpTimeout", "192.0.2.2:5269", "2026-01-02", "firewalls"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert!(!message.contains("203.0.113.9"), "{message}");
        // As pages find it.
        let steps = &status.pools[0].last_attempt;
        let told = steps.iter().rfind(|step| step.failed()).unwrap();
        assert_eq!(told.outcome, "TcpTimeout");
    }
}
