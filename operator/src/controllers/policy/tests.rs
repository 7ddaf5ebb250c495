//! What a policy's status says.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use xmpp_edge_crds::kinds::{ExternalAccessPolicy, PolicyStatus, policy::CONDITIONS};

use super::desired_status;
use crate::{
    compile::NamespaceInputs,
    controllers::{namespace::snapshot, status_only},
    runtime::decoded::Decoded,
};

fn pool(name: &str, site: &str, domain: &str) -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": name},
        "spec": {"site": site, "domains": [domain], "accessEdge": {"fqdn": format!("edge.{domain}")},
            "gateways": [{"domains": [domain], "address": "inside.example:5269"}],
            "certificate": {"selfSigned": {}}}})
}

fn status(specs: &[(&str, Value)], name: &str) -> PolicyStatus {
    let pools = [
        pool("east", "e", "east.example"),
        pool("west", "w", "west.example"),
    ];
    let policy = |(name, spec): &(&str, Value)| -> ExternalAccessPolicy {
        serde_json::from_value(
            json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "ExternalAccessPolicy",
            "metadata": {"name": name, "namespace": "n", "generation": 2}, "spec": spec}),
        )
        .unwrap()
    };
    let scene = snapshot::tests::of(NamespaceInputs {
        namespace: "n".into(),
        pools: pools
            .map(|pool| serde_json::from_value(pool).unwrap())
            .into(),
        policies: specs.iter().map(policy).collect(),
        ..NamespaceInputs::default()
    });
    let object = scene
        .world
        .policies
        .iter()
        .find(|it| it.metadata.name.as_deref() == Some(name))
        .cloned();
    let object = Arc::new(Decoded::Valid(object.unwrap()));
    desired_status(
        &scene,
        &BTreeMap::new(),
        &status_only::read(&scene, &object),
    )
}

#[test]
fn a_policy_says_whom_it_grants_and_where_it_is_in_force() {
    let table = [
        (json!({"scope": "Global"}), None, vec!["east", "west"]),
        (json!({"scope": "Site", "site": "w"}), None, vec!["west"]),
        (json!({"scope": "Site", "site": "nowhere"}), None, vec![]),
        (
            json!({"scope": "User", "users": ["a@east.example", "*@sub.example", "b@east.example"]}),
            Some(3),
            vec!["east"],
        ),
    ];
    for (spec, users, pools) in table {
        let status = status(&[("p", spec.clone())], "p");
        assert_eq!(
            (status.users, status.effective_pools),
            (users, pools.into_iter().map(str::to_owned).collect()),
            "{spec}"
        );
        assert_eq!(status.observed_generation, Some(2));
    }
}

#[test]
fn a_policy_that_lost_is_nowhere_in_force_and_says_who_won() {
    let both = [
        ("a", json!({"scope": "Global"})),
        ("b", json!({"scope": "Global"})),
    ];
    let lost = status(&both, "b");
    assert!(lost.effective_pools.is_empty());
    let accepted = lost
        .conditions
        .iter()
        .find(|it| it.type_ == "Accepted")
        .unwrap();
    assert_eq!(
        (accepted.status.as_str(), accepted.reason.as_str()),
        ("False", "Conflict")
    );
    assert!(accepted.message.contains("\"a\""), "{}", accepted.message);
    let ready = lost
        .conditions
        .iter()
        .find(|it| it.type_ == "Ready")
        .unwrap();
    assert_eq!(ready.reason, "Conflict");
}

#[test]
fn every_condition_that_is_documented_is_said() {
    let status = status(&[("a", json!({"scope": "Global"}))], "a");
    let types: Vec<&str> = status.conditions.iter().map(|it| &*it.type_).collect();
    let documented: Vec<&str> = CONDITIONS.iter().map(|it| it.as_str()).collect();
    assert_eq!(types, documented);
}
