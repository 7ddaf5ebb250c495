#![allow(clippy::unwrap_used)]
use super::*;
use crate::{controllers::namespace::snapshot, proxy_status::PodReport};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_document_made_anew_is_newer_than_what_pods_have_of_one_that_is_gone() {
    let silent = tower::service_fn(|_: hyper::Request<kube::client::Body>| {
        std::future::pending::<Result<hyper::Response<kube::client::Body>, kube::Error>>()
    });
    let context = snapshot::tests::context(kube::Client::new(silent, "n"));
    let mut pool = json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
        "metadata": {"name": "hq", "namespace": "n", "uid": "u", "resourceVersion": "1"},
        "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
            "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
            "certificate": {"selfSigned": {}}},
    });
    pool["status"] = json!({"config": {"generation": 41, "podsInSync": 1}});
    let mut fresh = pool.clone();
    fresh["status"] = json!({});
    fresh["metadata"]["name"] = json!("fresh");
    fresh["spec"]["domains"] = json!(["fresh.example"]);
    fresh["spec"]["gateways"][0]["domains"] = json!(["fresh.example"]);
    fresh["spec"]["accessEdge"]["fqdn"] = json!("edge.fresh.example");
    let pools = &context.caches.pools;
    for pool in [pool, fresh] {
        pools.created(serde_json::from_value(pool).unwrap(), pools.epoch());
    }
    let pods = [7, 41, u64::MAX].map(|generation| {
        let status = json!({"pool": "hq", "version": "0",
            "config": {"generation": generation, "loadedTime": "2026-01-01T00:00:00Z"}});
        let report = PodReport {
            status: Some(serde_json::from_value(status).unwrap()),
            unreachable: None,
        };
        (format!("hq-{generation}"), report)
    });
    let report = PoolReport {
        pods: pods.into(),
        ..PoolReport::default()
    };
    context.reports.set("n", "hq", report.clone());
    context.reports.set("n", "fresh", report);
    let mut reconciler =
        NamespaceReconciler::new(Arc::new(context), Arc::default(), "n".to_owned());
    let (scene, _) = reconciler.scene();
    assert_eq!(scene.compiled.configs["hq"].generation, 42);
    assert_eq!(
        scene.compiled.configs["fresh"].generation, 1,
        "it never had one"
    );
    let (again, _) = reconciler.scene();
    assert_eq!(again.compiled.configs["hq"].generation, 42, "once");
}

fn document(generation: u64, partners: &[(&str, bool)]) -> EdgeConfig {
    let mut document = crate::controllers::namespace::snapshot::tests::document("hq");
    document["generation"] = json!(generation);
    let partners = partners.iter().map(|(name, suspended)| {
        json!({"name": name, "domains": [format!("{name}.example")], "partnerType": "Federated",
            "negotiation": {"tls": "Required", "sasl": "Required", "dialback": true},
            "methods": ["SaslOverTls"], "suspended": suspended, "enableKeepAlive": true, "connectionLimit": 20})
    });
    document["partners"] = partners.collect();
    serde_json::from_value(document).unwrap()
}

#[test]
fn only_what_changed_is_so_since_the_new_generation() {
    let (first, second, third) = (
        document(5, &[("a", false), ("b", false)]),
        document(6, &[("a", false), ("b", true), ("c", false)]),
        document(7, &[("a", false), ("c", false)]),
    );
    let object = |name| ObjectRef::new(Kind::XmppFederatedPartner, name);
    let mut since = ChangeTracker {
        before: 5,
        inherited: true,
        ..ChangeTracker::default()
    };
    note_changes(&mut since, Some(&first), &second);
    assert_eq!(since.of(&object("a")), (5, true));
    assert_eq!(since.of(&object("b")), (6, false));
    assert_eq!(since.of(&object("c")), (6, false));
    note_changes(&mut since, Some(&second), &third);
    assert_eq!(
        since.of(&object("c")),
        (6, false),
        "others' changes do not reset it"
    );
    assert!(
        !since.objects.contains_key(&object("b")),
        "what is gone is forgotten"
    );
    note_changes(&mut since, None, &third);
    assert_eq!(
        since.of(&object("c")),
        (7, false),
        "a pool made anew has nothing from before"
    );
}
