//! Tables of manifests: what is accepted, and what is rejected with which words.
//!
//! `manifests/accepted/*.yaml` must raise nothing and be readable as the kind's struct.
//! `manifests/rejected/*.yaml` begin with one `# expect: PATH: MESSAGE` for each fault; the message
//! may be cut short.
#![allow(clippy::unwrap_used)]

mod table;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use table::{Case, accepted, rejected};
use xmpp_edge_crds::kinds::{
    EdgePool, ExternalAccessPolicy, XmppFederatedPartner, validate_change, validate_manifest,
    with_defaults,
};

#[test]
fn accepted_manifests_raise_nothing_and_are_readable() {
    for Case { name, manifest, .. } in accepted() {
        assert_eq!(validate_manifest(&manifest), [], "{name}");
        let stored = with_defaults(&manifest);
        let again = match stored["kind"].as_str().unwrap() {
            "XmppFederatedPartner" => reread::<XmppFederatedPartner>(&stored),
            "ExternalAccessPolicy" => reread::<ExternalAccessPolicy>(&stored),
            _ => reread::<EdgePool>(&stored),
        };
        // What is written back is accepted too, and defaults are the same by schema and by type.
        assert_eq!(validate_manifest(&again), [], "{name}, written back");
        assert_eq!(with_defaults(&again), again, "{name}, defaults");
    }
}

fn reread<K: serde::Serialize + serde::de::DeserializeOwned>(stored: &Value) -> Value {
    let object: K = serde_json::from_value(stored.clone()).unwrap();
    serde_json::to_value(object).unwrap()
}

#[test]
fn rejected_manifests_say_where_and_what_to_do() {
    for case in rejected() {
        let Case {
            name,
            manifest,
            expected,
        } = case;
        let mut found: Vec<String> = validate_manifest(&manifest)
            .iter()
            .map(ToString::to_string)
            .collect();
        let all = found.clone();
        for expected in &expected {
            let at = found
                .iter()
                .position(|fault| fault.starts_with(expected.as_str()));
            let at = at.unwrap_or_else(|| panic!("{name}: no fault {expected:?} in {all:#?}"));
            found.remove(at);
        }
        assert_eq!(
            found,
            Vec::<String>::new(),
            "{name}: faults that nobody expected"
        );
    }
}

/// Every CEL rule of the definitions is met by a rejected manifest, or by a test named here.
#[test]
fn every_rule_has_a_manifest_that_breaks_it() {
    let mut rules = BTreeSet::new();
    for crd in xmpp_edge_crds::kinds::crds() {
        table::rules(&serde_json::to_value(crd).unwrap(), &mut rules);
    }
    for Case { manifest, .. } in rejected() {
        for fault in validate_manifest(&manifest) {
            rules.remove(&fault.message);
        }
    }
    rules.retain(|message| !message.starts_with("the primary domain cannot change"));
    assert_eq!(rules, BTreeSet::new(), "rules that no manifest breaks");
}

#[test]
fn a_partner_keeps_its_primary_domain() {
    let partner = |domain: &str| {
        json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1",
            "kind": "XmppFederatedPartner",
            "metadata": { "name": "partner" },
            "spec": { "domain": domain },
        })
    };
    let (old, new) = (partner("old.example"), partner("new.example"));
    assert_eq!(validate_change(&old, &old), []);
    let faults = validate_change(&new, &old);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].path, "spec.domain");
    assert!(
        faults[0]
            .message
            .starts_with("the primary domain cannot change")
    );
}
