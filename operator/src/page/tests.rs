#![allow(clippy::unwrap_used)]

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use xmpp_edge_page::{board::Board, model::NOTES};

use super::*;
use crate::runtime::store::WatchApplier;

fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Value, status: Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "chat", "uid": name, "resourceVersion": "1"},
        "spec": spec, "status": status,
    }))
    .unwrap()
}

fn pool(name: &str) -> Decoded<EdgePool> {
    let spec = json!({"site": name, "domains": ["org.example"],
        "accessEdge": {"fqdn": "edge.org.example"},
        "gateways": [{"domains": ["org.example"], "address": "xmpp.chat.svc:5269"}],
        "certificate": {"selfSigned": {}}});
    object("EdgePool", name, spec, json!({"readyReplicas": 1}))
}

fn partner(name: &str, status: Value) -> Decoded<XmppFederatedPartner> {
    let spec = json!({"domain": format!("{name}.example")});
    object("XmppFederatedPartner", name, spec, status)
}

fn page(caches: Arc<Caches>) -> NamespacesPage {
    NamespacesPage::new(
        caches,
        Arc::new(PodRates::new(Arc::default())),
        Arc::default(),
        &Arc::default(),
        Arc::default(),
    )
}

async fn shown(page: NamespacesPage) -> Vec<(String, String, Value)> {
    let board = Board::new(Arc::new(page));
    let mut listener = board.listen().unwrap();
    board.refresh().await;
    let mut records = Vec::new();
    while let Some(text) = board.next(&mut listener) {
        let update: Value = serde_json::from_str(&text).unwrap();
        for record in update["records"].as_array().unwrap() {
            let text = |at: usize| record[at].as_str().unwrap().to_owned();
            records.push((text(0), text(1), record[2].clone()));
        }
    }
    records
}

#[tokio::test]
async fn every_partner_has_a_cell_for_each_pool_of_its_namespace_and_failures_say_what_to_do() {
    let (caches, _) = Caches::new();
    let mut pools = WatchApplier::of(None);
    for name in ["berlin", "frankfurt"] {
        pools.take(&caches.pools, Event::Apply(pool(name)));
    }
    let mut partners = WatchApplier::of(None);
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "Unreachable", "message": "see",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let failing = json!({"conditions": [condition("Ready", "True")], "pools": [{"name": "berlin",
        "lastAttempt": [{"step": "certificate", "outcome": "PeerCertificateName",
            "text": "<script>alert(1)</script>\u{202e}"}]}]});
    partners.take(&caches.partners, Event::Apply(partner("contoso", failing)));
    let unready = json!({"conditions": [condition("Ready", "False")]});
    partners.take(&caches.partners, Event::Apply(partner("late", unready)));
    let found = shown(page(caches)).await;
    let record = |section: &str, key: &str| {
        let mut of = found
            .iter()
            .filter(|(own, name, _)| own == section && name == key);
        of.next().unwrap().2.clone()
    };
    let contoso = record("partner", "chat/contoso");
    assert_eq!(contoso["cells"].as_array().unwrap().len(), 2);
    let (berlin, frankfurt) = (&contoso["cells"][0], &contoso["cells"][1]);
    assert_eq!(
        (&berlin["pool"], &berlin["state"]),
        (&json!("berlin"), &json!("Failing"))
    );
    assert_eq!(frankfurt["state"], "Idle");
    let step = &berlin["attempt"][0];
    assert!(
        step["remedy"].as_str().unwrap().contains("dNSName"),
        "{step}"
    );
    assert_eq!(
        step["text"], "<script>alert(1)</script>\u{202e}",
        "the browser shows it as text"
    );
    assert_eq!(record("pool", "chat/berlin")["replicas"], json!([1, 1]));
    assert_eq!(
        record("gateway", "chat/berlin org.example")["reachable"],
        Value::Null
    );
    let notes = record("head", "")["notes"].to_string();
    assert!(
        notes.contains("XmppFederatedPartner chat/late is not ready: Unreachable: see"),
        "{notes}"
    );
    assert!(
        notes.contains("EdgePool chat/berlin has no status"),
        "{notes}"
    );
}

#[test]
fn what_wants_somebody_is_named_up_to_a_bound_and_counted_beyond() {
    let mut notes = Notes(Vec::new());
    for number in 0..500 {
        let object = partner(&format!("p{number}"), json!({}));
        notes.of(
            &object,
            "XmppFederatedPartner",
            |it: &XmppFederatedPartner| it.status.as_ref().map(|status| &*status.conditions),
        );
    }
    let notes = bounded_notes(notes.0, "elsewhere");
    assert_eq!(notes.len(), NOTES + 1);
    assert!(notes[NOTES].starts_with("and 450 more"), "{}", notes[NOTES]);
}
