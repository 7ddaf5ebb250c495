//! What is wrong with one object alone: the table of rejected manifests, which a real API server is
//! held to as well (`cluster_crds`).

use std::collections::BTreeSet;

use serde_json::json;
use xmpp_edge_crds::kinds::{validate_change, validate_manifest};
use xmpp_edge_tests::mistakes;

use crate::table;

const HEADING: &str = "One object";

#[test]
fn every_fault_of_an_object_alone_is_listed() {
    let partner = |domain: &str| {
        json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
            "metadata": {"name": "p"}, "spec": {"domain": domain}})
    };
    let changed = validate_change(&partner("new.example"), &partner("old.example"));
    let rejected = table::rejected();
    let faults = rejected
        .iter()
        .flat_map(|it| validate_manifest(&it.manifest));
    let faults: Vec<String> = faults.chain(changed).map(|it| it.to_string()).collect();
    mistakes::compare(HEADING, &faults);
}

#[test]
fn every_rule_of_the_definitions_is_listed_word_by_word() {
    let mut rules = BTreeSet::new();
    for crd in xmpp_edge_crds::kinds::crds() {
        table::rules(&serde_json::to_value(crd).unwrap(), &mut rules);
    }
    let rows = mistakes::rows(HEADING);
    rules.retain(|rule| !rows.iter().any(|row| row.message == *rule));
    assert_eq!(rules, BTreeSet::new(), "not in docs/mistakes.md");
}
