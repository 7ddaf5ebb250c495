//! The table of manifests: what the server refuses and in which words, and which defaults it fills in.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use xmpp_edge_crds::kinds::{validate_manifest, with_defaults};
use xmpp_edge_tests::cluster::{Refusal, Submission};

use crate::{
    SERVER,
    table::{self, Case},
};

const DRY_RUN: Submission<'static> = Submission {
    dry_run: true,
    ..Submission::CREATE
};

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
        let mut unbroken = rules.clone();
        let mut differences = Vec::new();
        for Case { name, manifest, .. } in table::rejected() {
            if !["kind", "apiVersion"].contains(&validate_manifest(&manifest)[0].path.as_str()) {
                match namespace.submit(DRY_RUN, &manifest).await? {
                    Ok(_) => differences.push(format!("{name}: the server accepts it")),
                    Err(refusal) => {
                        for cause in &refusal.causes {
                            println!("{name}: {}: {}", cause.field, cause.message);
                        }
                        if refusal.causes.is_empty() {
                            println!("{name}: {} {}", refusal.code, refusal.message);
                        }
                        for f in validate_manifest(&manifest) {
                            println!("    OFFLINE {f}");
                        }
                    }
                }
            }
        }
        Ok(())
    });
}
