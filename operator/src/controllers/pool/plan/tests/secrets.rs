//! Secrets: planned on what the cluster holds.

use std::cell::RefCell;

use jiff::Timestamp;

use super::*;
use crate::{
    controllers::pool::plan::secrets::{self, Ownership, SecretsPlan},
    secrets::store::{ManagedSecret, SecretData, set, text},
};

/// A cluster's Secrets, by name.
#[derive(Default)]
struct Cluster(RefCell<BTreeMap<String, SecretData>>);

impl Cluster {
    fn plan(&self, pool: &EdgePool) -> SecretsPlan {
        let held = |name: &str| self.0.borrow().get(name).cloned();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        secrets::plan(Some(pool), &config(pool), &held, now).unwrap()
    }

    fn write(&self, plan: &SecretsPlan) {
        for (entry, material) in &plan.entries {
            let mut secrets = self.0.borrow_mut();
            secrets.insert(entry.to_string(), material.clone());
        }
    }
}

#[test]
fn what_is_in_order_stays_as_it_is() {
    let (cluster, pool) = (Cluster::default(), pool(SELF_SIGNED));
    let first = cluster.plan(&pool);
    let names: Vec<String> = first.entries.iter().map(|(it, _)| it.to_string()).collect();
    assert_eq!(
        names,
        [
            "xmpp-edge-internal-ca",
            "hq-internal-issuer",
            "xmpp-edge-gateway-org.example",
            "hq-ca",
            "hq-tls",
            "hq-admin",
            "xmpp-edge-dialback",
        ]
    );
    cluster.write(&first);
    let again = cluster.plan(&pool);
    assert!(again.entries == first.entries, "something was made anew");
    assert!(again.mounted == first.mounted);
}

#[test]
fn a_second_pool_takes_up_what_the_namespace_has() {
    let (cluster, hq) = (Cluster::default(), pool(SELF_SIGNED));
    let first = cluster.plan(&hq);
    cluster.write(&first);
    let mut branch = hq.clone();
    branch.metadata.name = Some("branch".into());
    let second = cluster.plan(&branch);
    let of = |plan: &SecretsPlan, wanted: &ManagedSecret| {
        plan.entries.iter().find(|(it, _)| it == wanted).cloned()
    };
    for shared in [
        ManagedSecret::InternalCa,
        ManagedSecret::Dialback,
        ManagedSecret::Gateway("org.example".into()),
    ] {
        assert!(of(&first, &shared) == of(&second, &shared), "{shared}");
    }
}

#[test]
fn a_pair_that_somebody_else_keeps_is_mounted_and_never_written() {
    for certificate in [
        "  certificate: {certManager: {issuerRef: {name: i}}}\n",
        "  certificate: {secretRef: {name: hq-tls}}\n",
    ] {
        let (cluster, pool) = (Cluster::default(), pool(certificate));
        let empty = cluster.plan(&pool);
        assert!(empty.certificate.fault.is_some());
        let mut pair = SecretData::new();
        set(&mut pair, "tls.crt", "theirs");
        set(&mut pair, "tls.key", "theirs");
        cluster.0.borrow_mut().insert("hq-tls".into(), pair);
        let plan = cluster.plan(&pool);
        assert!(
            plan.entries
                .iter()
                .all(|(entry, _)| entry.to_string() != "hq-tls")
        );
        assert!(
            plan.mounted
                .iter()
                .any(|it| text(it, "tls.crt") == Some("theirs"))
        );
    }
}

#[test]
fn what_outlives_the_pool_is_not_its_own() {
    let given = |certificate: &str| pool(&format!("  certificate: {certificate}\n"));
    let (plain, csr) = (
        given("{selfSigned: {}}"),
        given("{csr: {chainSecretRef: {name: s}}}"),
    );
    for (entry, pool, expected) in [
        (ManagedSecret::InternalCa, &plain, Ownership::Nobody),
        (ManagedSecret::Dialback, &plain, Ownership::Nobody),
        (
            ManagedSecret::PoolPair("hq".into()),
            &plain,
            Ownership::Pool,
        ),
        (
            ManagedSecret::PoolPair("hq".into()),
            &csr,
            Ownership::Nobody,
        ),
        (
            ManagedSecret::Gateway("org.example".into()),
            &plain,
            Ownership::Shared,
        ),
        (
            ManagedSecret::InternalIssuer("hq".into()),
            &plain,
            Ownership::Pool,
        ),
        (
            ManagedSecret::AdminToken("hq".into()),
            &plain,
            Ownership::Pool,
        ),
    ] {
        assert_eq!(secrets::ownership(&entry, pool), expected, "{entry}");
    }
}

#[test]
fn secrets_that_are_missing_or_too_short_are_named() {
    let cluster = Cluster::default();
    let pool = pool(&format!(
        "{SELF_SIGNED}  settings: {{dialbackSecretRef: {{name: shared}}}}\n  contacts: {{postgres: {{secretRef: {{name: database}}}}}}\n"
    ));
    let said: Vec<String> = cluster
        .plan(&pool)
        .diagnostics
        .iter()
        .map(|it| it.message.clone())
        .collect();
    assert!(said[0].contains("\"shared\""), "{said:?}");
    assert!(said[1].contains("\"database\""), "{said:?}");
    let plan = cluster.plan(&pool);
    assert!(
        plan.entries
            .iter()
            .all(|(entry, _)| *entry != ManagedSecret::Dialback)
    );
}
