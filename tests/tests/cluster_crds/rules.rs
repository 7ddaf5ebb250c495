//! The table of manifests: what the server refuses and in which words, and which defaults it fills in.

use std::collections::BTreeSet;

use anyhow::Context;
use xmpp_edge_crds::kinds::{validate_manifest, with_defaults};
use xmpp_edge_tests::cluster::{Cause, Refusal, Submission};

use crate::{
    SERVER,
    table::{self, Case},
};

const DRY_RUN: Submission<'static> = Submission {
    dry_run: true,
    ..Submission::CREATE
};

/// Where offline says more than the server, which takes a field without value for one left out: who
/// writes files by hand probably forgot something.
const WITHOUT_VALUE: &str = "partner-without-value";

/// The messages of all rules that a manifest can break by itself.
fn rules() -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for crd in xmpp_edge_crds::kinds::crds() {
        table::rules(&serde_json::to_value(crd).unwrap(), &mut rules);
    }
    rules
}

#[test]
fn what_is_accepted_offline_the_server_accepts_and_fills_with_the_same_defaults() {
    SERVER.test(async |namespace| {
        for Case { name, manifest, .. } in table::accepted() {
            match namespace.submit(DRY_RUN, &manifest).await? {
                Ok(stored) => {
                    assert_eq!(stored["spec"], with_defaults(&manifest)["spec"], "{name}");
                }
                Err(refusal) => panic!("{name}: {}", refusal.message),
            }
        }
        Ok(())
    });
}

#[test]
fn what_is_rejected_offline_the_server_refuses_and_each_rule_in_its_own_words() {
    SERVER.test(async |namespace| {
        let rules = rules();
        let mut printed = BTreeSet::new();
        let mut differences = Vec::new();
        for Case { name, manifest, .. } in table::rejected().into_iter().filter(is_served) {
            let Err(refusal) = namespace.submit(DRY_RUN, &manifest).await? else {
                if name != WITHOUT_VALUE {
                    differences.push(format!("{name}: the server accepts it"));
                }
                continue;
            };
            printed.extend(
                refusal
                    .causes
                    .iter()
                    .filter_map(|cause| rule_in(&rules, cause)),
            );
            for fault in validate_manifest(&manifest) {
                let rule = rules.get(&fault.message).map(String::as_str);
                if !says(&refusal, &fault.path, rule) {
                    differences.push(format!("{name}: {fault}\nbut the server: {refusal:#?}"));
                }
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        let unseen: Vec<_> = rules
            .iter()
            .filter(|rule| !printed.contains(rule.as_str()))
            // Breaks only what is there already: `change` has it.
            .filter(|rule| !rule.starts_with("the primary domain cannot change"))
            .collect();
        assert!(
            unseen.is_empty(),
            "rules that the server never printed: {unseen:#?}"
        );
        Ok(())
    });
}

#[test]
fn a_field_without_value_is_left_out_by_the_server_and_said_offline() {
    SERVER.test(async |namespace| {
        let case = table::rejected()
            .into_iter()
            .find(|case| case.name == WITHOUT_VALUE)
            .context("it is in the table")?;
        let stored = namespace.write(DRY_RUN, &case.manifest).await?;
        let mut without = case.manifest.clone();
        let spec = without["spec"].as_object_mut().context("it has a spec")?;
        spec.retain(|_, value| !value.is_null());
        assert_eq!(stored["spec"], with_defaults(&without)["spec"]);
        Ok(())
    });
}

/// Whether the server has the kind and version at all.
fn is_served(case: &Case) -> bool {
    case.manifest["apiVersion"] == "xmpp-edge.dev/v1alpha1"
        && xmpp_edge_crds::kinds::crds()
            .iter()
            .any(|crd| case.manifest["kind"] == *crd.spec.names.kind)
}

fn rule_in<'r>(rules: &'r BTreeSet<String>, cause: &Cause) -> Option<&'r str> {
    let rule = rules.iter().find(|rule| cause.message.ends_with(*rule));
    rule.map(String::as_str)
}

/// Whether the server finds fault with `path`, in the words of `rule` where a rule is broken.
fn says(refusal: &Refusal, path: &str, rule: Option<&str>) -> bool {
    let Some(rule) = rule else {
        // Unknown fields are told before anything else is looked at.
        return refusal.causes.iter().any(|cause| cause.field == path)
            || refusal.message.contains(&format!("unknown field {path:?}"));
    };
    // A rule of the whole object cannot name a field of the metadata.
    let field = if path.starts_with("metadata.") {
        "<nil>"
    } else {
        path
    };
    refusal.causes.iter().any(|cause| {
        cause.field == field
            && cause.message.starts_with("Invalid value: ")
            && cause.message.ends_with(rule)
    })
}

#[test]
fn a_kind_or_version_that_is_none_of_ours_is_refused() {
    SERVER.test(async |namespace| {
        let strange: Vec<_> = table::rejected()
            .into_iter()
            .filter(|case| !is_served(case))
            .collect();
        assert!(strange.len() >= 2);
        for Case { name, manifest, .. } in strange {
            let output = namespace.server.kubectl().output(
                &["apply", "-n", &namespace.name, "-f", "-"],
                &manifest.to_string(),
            )?;
            assert!(!output.status.success(), "{name}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("no matches for kind"), "{name}: {said}");
        }
        Ok(())
    });
}

#[test]
fn kubectl_names_object_field_and_remedy_on_one_line() {
    SERVER.test(async |namespace| {
        let case = table::rejected()
            .into_iter()
            .find(|case| case.name == "partner-sasl-optional-without-tls")
            .context("it is in the table")?;
        let output = namespace.server.kubectl().output(
            &["apply", "-n", &namespace.name, "-f", "-"],
            &case.manifest.to_string(),
        )?;
        assert_eq!(
            String::from_utf8_lossy(&output.stderr).trim_end(),
            "The XmppFederatedPartner \"partner\" is invalid: spec.saslNegotiation: Invalid value: \
             saslNegotiation needs TLS, but tlsNegotiation is NotSupported: set saslNegotiation to \
             NotSupported, or allow TLS"
        );
        Ok(())
    });
}
