#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::{
    compile::Fault,
    proxy_status::{model::AttemptStep, sidecars::ConnectedSidecar},
    runtime::caches::SecretPlace,
};

fn gateway(facts: SidecarFacts) -> GatewayFacts {
    GatewayFacts {
        name: "org".to_owned(),
        mode: Some(GatewayMode::Sidecar),
        domains: vec!["org.example".to_owned()],
        sidecars: Some(facts),
        ..GatewayFacts::default()
    }
}

fn connected(pods: usize, is_active: bool, fault: Option<&str>) -> ConnectedSidecar {
    ConnectedSidecar {
        pods,
        is_active,
        server_fault: fault.map(str::to_owned),
        ..ConnectedSidecar::default()
    }
}

/// All of them are active.
fn facts(missing: &[&str], sidecars: &[(&str, Option<&str>)]) -> SidecarFacts {
    let sidecars = sidecars.iter();
    let is_away = !sidecars.as_slice().is_empty() && sidecars.clone().all(|own| own.1.is_some());
    SidecarFacts {
        inactive_at: Vec::new(),
        active_at: usize::from(!sidecars.as_slice().is_empty()),
        away_at: is_away.then(|| "hq-0".to_owned()).into_iter().collect(),
        missing_at: missing.iter().map(|it| (*it).to_owned()).collect(),
        connected: sidecars
            .map(|(name, fault)| ((*name).to_owned(), connected(1, true, *fault)))
            .collect(),
        refused: None,
    }
}

fn refused() -> SidecarFacts {
    let step: AttemptStep = serde_json::from_value(json!({"step": "certificate",
        "outcome": "CertificateUnknownIssuer", "direction": "outbound", "address": "10.0.0.9:40000",
        "text": "it is of \"Nobody\"", "time": "2026-01-01T00:00:00Z"}))
    .unwrap();
    SidecarFacts {
        refused: Some(("hq-0".to_owned(), step)),
        ..facts(&["hq-0"], &[])
    }
}

#[test]
fn b_45_each_fault_is_told_with_pod_step_cause_and_remedy() {
    let words =
        "step sasl (SaslRejected): not trusted; let the server trust the sidecar's authority";
    type Told<'a> = Option<(Reason, &'a [&'a str])>;
    let table: [(SidecarFacts, Told<'_>); 8] = [
        (
            facts(&["hq-0", "hq-1"], &[]),
            Some((
                Reason::NoSidecar,
                &["org.example", "start one beside the server", "/readyz"],
            )),
        ),
        (
            refused(),
            Some((
                Reason::SidecarRefused,
                &[
                    "pod hq-0",
                    "from 10.0.0.9:40000",
                    "step certificate (CertificateUnknownIssuer)",
                    "of \"Nobody\"",
                    "spec.gateways[].sidecar.keys",
                ],
            )),
        ),
        (
            facts(&["hq-1"], &[("prosody-0", None)]),
            Some((
                Reason::TrunkMissing,
                &["to pod hq-1", "sidecar prosody-0", "the step that fails"],
            )),
        ),
        (
            facts(&[], &[("prosody-0", Some(words))]),
            Some((
                Reason::ServerUnreachable,
                &["beside sidecar prosody-0", words],
            )),
        ),
        (
            facts(&[], &[("prosody-0", Some(""))]),
            Some((Reason::ServerUnreachable, &["does not answer"])),
        ),
        (facts(&[], &[("a", Some("away")), ("b", None)]), None),
        (facts(&[], &[("a", None)]), None),
        // A fault of a sidecar that stands by a pod with another is none.
        (
            SidecarFacts {
                refused: refused().refused,
                ..facts(&[], &[("a", None)])
            },
            None,
        ),
    ];
    for (facts, expected) in table {
        let found = fault(&facts, &gateway(facts.clone()), None);
        match (&found, expected) {
            (None, None) => {}
            (Some((reason, message)), Some((wanted, parts))) => {
                assert_eq!(*reason, wanted, "{message}");
                for part in parts {
                    assert!(message.contains(part), "{part}: {message}");
                }
            }
            _ => panic!("{facts:?}: {found:?}"),
        }
        let direct = GatewayFacts {
            mode: Some(GatewayMode::Direct),
            ..gateway(facts.clone())
        };
        assert_eq!(fault(&facts, &direct, None), None, "they carry nothing yet");
    }
}

/// `Single`: the server of the one that gets what comes in is away, or a pod knows only the other one.
#[test]
fn a_sidecar_that_stands_by_serves_nobody() {
    let standing_by = || ("b".to_owned(), connected(2, false, None));
    let away = SidecarFacts {
        away_at: vec!["hq-0".to_owned()],
        connected: [
            ("a".to_owned(), connected(1, true, Some("it hangs"))),
            standing_by(),
        ]
        .into(),
        ..SidecarFacts::default()
    };
    let (reason, message) = fault(&away, &gateway(away.clone()), None).unwrap();
    assert_eq!(reason, Reason::ServerUnreachable, "{message}");
    for part in ["beside sidecar a: it hangs", "sidecar b stands by"] {
        assert!(message.contains(part), "{message}");
    }
    let apart = SidecarFacts {
        inactive_at: vec!["hq-1".to_owned()],
        connected: [("a".to_owned(), connected(1, true, None)), standing_by()].into(),
        ..SidecarFacts::default()
    };
    let (reason, message) = fault(&apart, &gateway(apart.clone()), None).unwrap();
    assert_eq!(reason, Reason::TrunkMissing, "{message}");
    for part in ["sidecar a,", "to pod hq-1", "Single"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn b_45_what_the_sidecars_themselves_say_is_told_where_they_are_missing() {
    let none = facts(&["hq-0"], &[]);
    let some = facts(&["hq-0"], &[("prosody-0", None)]);
    let waits = "pod prosody-0: waiting for a trunk to hq-trunk:23456: step dns (DnsNotFound): no such name; correct the name";
    let said = |words: &[&str]| {
        let words = words.iter().map(|it| (*it).to_owned());
        BTreeMap::from([("org".to_owned(), words.collect::<Vec<_>>())])
    };
    for (facts, said, part) in [
        (&none, said(&[waits]), waits),
        (&some, said(&[waits]), waits),
        (
            &none,
            said(&[]),
            "no pod has label xmpp-edge.dev/sidecar: org",
        ),
        (&some, said(&[]), "the step that fails"),
    ] {
        let (_, message) = fault(facts, &gateway(facts.clone()), Some(&said)).unwrap();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn who_is_connected_stands_in_the_status_and_who_stands_by_in_words() {
    let own = SidecarFacts {
        connected: [
            ("prosody-0".to_owned(), connected(3, true, None)),
            ("prosody-1".to_owned(), connected(2, false, Some("away"))),
        ]
        .into(),
        ..SidecarFacts::default()
    };
    let gateways = [gateway(own), GatewayFacts::default()];
    let states = states(&gateways);
    assert_eq!(states.len(), 1);
    let row = |at: usize| {
        let own = &states[0].sidecars[at];
        (own.instance.as_str(), own.trunks, own.active, own.server_up)
    };
    assert_eq!(row(0), ("prosody-0", 3, true, true));
    assert_eq!(row(1), ("prosody-1", 2, false, false));
    assert_eq!(
        shown(&gateways, 3).as_deref(),
        Some("prosody-0 3/3, prosody-1 2/3")
    );
    let told = several(&gateways[0]).unwrap();
    assert!(
        told.contains("sidecar prosody-0 gets what comes in, prosody-1 stands by"),
        "{told}"
    );
    let clustered = GatewayFacts {
        servers: SidecarServers::Clustered,
        ..gateways[0].clone()
    };
    assert_eq!(several(&clustered), None);
}

#[test]
fn what_sidecars_prove_themselves_by_is_a_condition_where_there_are_any() {
    let identity_of = |state| SidecarIdentity {
        gateway: "org".to_owned(),
        place: SecretPlace {
            namespace: "chat".to_owned(),
            name: "xmpp-edge-sidecar-org".to_owned(),
        },
        state,
    };
    let issued = || IdentityState::Issued {
        not_after: "2026-02-01T00:00:00Z".parse().unwrap(),
    };
    let refused = || IdentityState::Refused(Fault::new(Reason::NamespaceNotAllowed, "add it"));
    for (states, expected) in [
        (vec![], None),
        (
            vec![issued()],
            Some((
                "True",
                Reason::Issued,
                "in namespace \"chat\" until 2026-02-01",
            )),
        ),
        (
            vec![issued(), IdentityState::NotYet],
            Some(("Unknown", Reason::Pending, "gateway org")),
        ),
        (
            vec![IdentityState::NotYet, refused()],
            Some(("False", Reason::NamespaceNotAllowed, "gateway org: add it")),
        ),
    ] {
        let identities: Vec<_> = states.into_iter().map(identity_of).collect();
        let found = identity(&[], Some(&identities));
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some((state, reason, part))) => {
                assert_eq!((found.state.as_str(), found.reason), (state, reason));
                assert!(found.message.contains(part), "{}", found.message);
            }
            _ => panic!("{found:?}"),
        }
    }
    assert_eq!(identity(&[], None), None);
}
