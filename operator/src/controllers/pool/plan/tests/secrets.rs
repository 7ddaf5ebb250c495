//! Secrets: planned on what the cluster holds.

use std::cell::RefCell;

use jiff::Timestamp;

use super::*;
use crate::{
    controllers::pool::{
        plan::secrets::{self, Ownership, SecretsPlan},
        sidecar_secrets::HeldElsewhere,
        sidecars::{self, SidecarInputs},
    },
    secrets::store::{ManagedSecret, SecretData, set, text},
};

/// A cluster's Secrets, by name.
#[derive(Default)]
struct Cluster(RefCell<BTreeMap<String, SecretData>>);

impl Cluster {
    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn plan(&self, pool: &EdgePool) -> SecretsPlan {
        self.plan_at(pool, Self::now())
    }

    fn plan_at(&self, pool: &EdgePool, now: Timestamp) -> SecretsPlan {
        self.plan_beside(pool, std::slice::from_ref(pool), now)
    }

    /// Of one of the pools of a namespace.
    fn plan_beside(&self, pool: &EdgePool, pools: &[EdgePool], now: Timestamp) -> SecretsPlan {
        let held = |name: &str| self.0.borrow().get(name).cloned();
        let own = config(pool);
        let configs = pools.iter().map(config);
        let configs = configs
            .map(|config| (config.pool.clone(), config))
            .collect();
        let sidecars = SidecarInputs {
            documents: sidecars::documents(pools, &configs, "cluster.local"),
            outside: sidecars::outside(pools, &configs, &own.pool),
            configs: &configs,
            elsewhere: &|_, _| HeldElsewhere::NotYet,
        };
        let certificate = Some(&pool.spec.certificate);
        secrets::plan(Some(pool), certificate, &own, &held, &sidecars, now).unwrap()
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

/// Secrets that gateways of several pools share are one for all of them, whatever each says of its own.
#[test]
fn pools_whose_gateways_differ_are_content_with_what_the_other_wrote() {
    let of = |name: &str, domains: &str, gateways: &str| {
        let text = format!(
            "apiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {{name: {name}, namespace: chat}}\nspec: {{site: {name}, domains: [{domains}], accessEdge: {{fqdn: {name}.edge.example}}, gateways: [{gateways}], certificate: {{selfSigned: {{}}}}}}\n"
        );
        serde_saphyr::from_str::<EdgePool>(&text).unwrap()
    };
    let direct = "address: 'inside.example:5269'";
    for (hq, dr) in [
        // One gateway, of which one pool has more domains.
        (
            (
                "a.example, b.example",
                "{name: org, domains: [a.example, b.example], mode: Sidecar}".to_owned(),
            ),
            (
                "a.example",
                "{name: org, domains: [a.example], mode: Sidecar}".to_owned(),
            ),
        ),
        // Two that are called alike.
        (
            (
                "a.example",
                "{name: chat, domains: [a.example], mode: Sidecar}".to_owned(),
            ),
            (
                "b.example",
                "{name: chat, domains: [b.example], mode: Sidecar}".to_owned(),
            ),
        ),
        // Without sidecars the first domain is the name.
        (
            (
                "a.example, b.example",
                format!("{{domains: [a.example, b.example], {direct}}}"),
            ),
            ("a.example", format!("{{domains: [a.example], {direct}}}")),
        ),
    ] {
        let pools = [of("hq", hq.0, &hq.1), of("dr", dr.0, &dr.1)];
        let cluster = Cluster::default();
        let shared = |plan: &SecretsPlan| {
            let entries = plan.entries.iter();
            let entries = entries.filter(|(entry, _)| {
                matches!(entry, ManagedSecret::Gateway(_) | ManagedSecret::Sidecar(_))
            });
            let entries = entries.map(|(entry, material)| (entry.clone(), material.clone()));
            entries.collect::<BTreeMap<_, _>>()
        };
        let plans = || {
            pools.each_ref().map(|pool| {
                let plan = cluster.plan_beside(pool, &pools, Cluster::now());
                cluster.write(&plan);
                shared(&plan)
            })
        };
        let [first_hq, first_dr] = plans();
        for (entry, material) in &first_dr {
            if let Some(before) = first_hq.get(entry) {
                assert!(
                    before == material,
                    "{entry}: written by one, and anew by the other"
                );
            }
        }
        assert!(plans() == [first_hq, first_dr], "something was made anew");
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
fn what_a_sip_server_of_another_pki_is_shown_is_kept_mounted_and_told() {
    let mut pool = pool(SELF_SIGNED);
    pool.spec.replicas = Some(1);
    let gateway = &mut pool.spec.gateways[0];
    gateway.mode = xmpp_edge_crds::edge_config::GatewayMode::Sip;
    gateway.sip = serde_json::from_value(serde_json::json!({
        "edgeName": "edge.corp.example", "certificateSecretRef": {"name": "theirs"}}))
    .unwrap();
    let cluster = Cluster::default();
    let entry = ManagedSecret::SipPairs("hq".into());
    let has = |plan: &SecretsPlan| plan.entries.iter().any(|(it, _)| *it == entry);
    let said = |plan: &SecretsPlan| {
        let (status, reason, message) = plan.certificate.condition(Cluster::now());
        (status, reason.as_str().to_owned(), message)
    };
    let without = cluster.plan(&pool);
    assert!(!has(&without));
    let (status, reason, message) = said(&without);
    assert!(!status && reason == "ReferenceMissing", "{message}");
    assert!(message.contains("gateway org.example"), "{message}");
    let ca = crate::secrets::issue::root("their CA", Cluster::now()).unwrap();
    let names = ["edge.corp.example".parse().unwrap()];
    let pair = crate::secrets::issue::leaf(&ca, &names, Cluster::now()).unwrap();
    let mut secret = SecretData::new();
    set(&mut secret, "tls.crt", &pair.chain);
    set(&mut secret, "tls.key", &pair.key);
    cluster.0.borrow_mut().insert("theirs".into(), secret);
    let with = cluster.plan(&pool);
    cluster.write(&with);
    assert!(has(&with) && said(&with).0, "{:?}", said(&with));
    let kept = |it: &SecretData| it.contains_key(crate::secrets::source::sip::KEY);
    assert!(with.mounted.iter().any(kept));
    assert_eq!(
        secrets::ownership(&entry, Some(&pool.spec.certificate)),
        Ownership::Pool
    );
    cluster.0.borrow_mut().remove("theirs");
    let later = cluster.plan(&pool);
    assert!(has(&later), "the last good one stays");
    let (status, _, message) = said(&later);
    assert!(
        !status && message.contains("stays in use until"),
        "{message}"
    );
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
        let certificate = Some(&pool.spec.certificate);
        assert_eq!(secrets::ownership(&entry, certificate), expected, "{entry}");
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

#[test]
fn what_sidecars_mount_is_kept_and_a_deleted_secret_begins_a_new_epoch() {
    let mut pool = pool(SELF_SIGNED);
    pool.spec.gateways[0].mode = xmpp_edge_crds::edge_config::GatewayMode::Sidecar;
    let cluster = Cluster::default();
    let entry = ManagedSecret::Sidecar("org.example".into());
    let secret = |plan: &SecretsPlan| {
        let mut entries = plan.entries.iter();
        entries.find(|(it, _)| *it == entry).unwrap().1.clone()
    };
    let first = cluster.plan(&pool);
    cluster.write(&first);
    let first = secret(&first);
    assert_eq!(
        secrets::ownership(&entry, Some(&pool.spec.certificate)),
        Ownership::Shared
    );
    assert_eq!(secrets::secret_type(&first), "kubernetes.io/tls");
    let json = text(&first, "sidecar.json").unwrap();
    let config =
        xmpp_edge_crds::sidecar_config::SidecarConfig::parse(json.as_bytes(), "x").unwrap();
    let edges: Vec<_> = config.edges.iter().map(ToString::to_string).collect();
    assert_eq!(edges, ["hq-trunk.org.svc.cluster.local:23456"]);
    assert!(
        text(&first, "ca.crt")
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    assert!(
        secret(&cluster.plan(&pool)) == first,
        "something was made anew"
    );
    // Renewed, and changed in what it says: the epoch stays.
    let day = jiff::SignedDuration::from_hours(24);
    let later = cluster.plan_at(&pool, Cluster::now() + day * 21);
    cluster.write(&later);
    let later = secret(&later);
    assert_ne!(text(&later, "tls.crt"), text(&first, "tls.crt"));
    assert_eq!(text(&later, "epoch"), text(&first, "epoch"));
    // Taken away by whoever, and made anew an hour later.
    cluster.0.borrow_mut().remove(&entry.to_string());
    let anew = secret(&cluster.plan_at(&pool, Cluster::now() + day * 22));
    let epoch = |of: &SecretData| crate::secrets::internal_ca::epoch(of).unwrap();
    assert!(epoch(&anew) > epoch(&later));
    let begins = crate::secrets::chain::CertificateFacts::of_chain(text(&anew, "tls.crt").unwrap());
    assert_eq!(epoch(&anew), begins.unwrap().not_before);
}

#[test]
fn while_a_pool_cannot_be_read_its_sidecars_keep_their_document_and_get_certificates() {
    let mut pool = pool(SELF_SIGNED);
    let gateway = &mut pool.spec.gateways[0];
    gateway.mode = xmpp_edge_crds::edge_config::GatewayMode::Sidecar;
    gateway.sidecar = serde_json::from_value(serde_json::json!({
        "serverAddress": "[::1]:5299", "edges": ["far.example:1"]}))
    .unwrap();
    let cluster = Cluster::default();
    let entry = ManagedSecret::Sidecar("org.example".into());
    let secret = |plan: &SecretsPlan| {
        let mut entries = plan.entries.iter();
        entries.find(|(it, _)| *it == entry).unwrap().1.clone()
    };
    let first = cluster.plan(&pool);
    cluster.write(&first);
    let first = secret(&first);
    let own = config(&pool);
    let configs = BTreeMap::from([(own.pool.clone(), own.clone())]);
    let sidecars = SidecarInputs {
        documents: sidecars::documents(&[], &configs, "cluster.local"),
        outside: sidecars::outside(&[], &configs, &own.pool),
        configs: &configs,
        elsewhere: &|_, _| HeldElsewhere::NotYet,
    };
    let held = |name: &str| cluster.0.borrow().get(name).cloned();
    let later = Cluster::now() + jiff::SignedDuration::from_hours(24 * 21);
    let later = secrets::plan(None, None, &own, &held, &sidecars, later).unwrap();
    assert!(later.outside.is_empty(), "what people copied stays");
    let later = secret(&later);
    let document = text(&first, "sidecar.json").unwrap();
    assert!(document.contains("5299") && document.contains("far.example:1"));
    assert_eq!(text(&later, "sidecar.json"), Some(document));
    assert_ne!(text(&later, "tls.crt"), text(&first, "tls.crt"));
}
