#![allow(clippy::unwrap_used)]

mod golden;
mod network;
mod promises;
mod secrets;

use std::collections::BTreeMap;

use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::{EdgePool, XmppFederatedPartner},
};

use super::{Child, ChildKind, Facts, PoolPlan, plan};
use crate::compile::{NamespaceInputs, compile};

/// A pool of namespace `org`, as an API server would hold it, with these lines beside the least
/// that it needs.
fn pool(more: &str) -> EdgePool {
    let replicas = if more.contains("replicas:") {
        ""
    } else {
        "  replicas: 2\n"
    };
    let text = format!(
        "apiVersion: xmpp-edge.dev/v1alpha1
kind: EdgePool
metadata: {{name: hq, namespace: org, uid: 0a-uid, generation: 1}}
spec:
  site: hq
  domains: [org.example]
  accessEdge: {{fqdn: edge.org.example}}
  gateways: [{{domains: [org.example], address: 'prosody.chat.svc:5269'}}]
{replicas}{more}"
    );
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

const SELF_SIGNED: &str = "  certificate: {selfSigned: {}}\n";

fn config(pool: &EdgePool) -> EdgeConfig {
    config_with(pool, Vec::new())
}

fn config_with(pool: &EdgePool, partners: Vec<XmppFederatedPartner>) -> EdgeConfig {
    let name = pool.metadata.name.clone().unwrap();
    let world = NamespaceInputs {
        namespace: "org".into(),
        pools: vec![pool.clone()],
        partners,
        ..NamespaceInputs::default()
    };
    let mut compiled = compile(&world, &BTreeMap::new());
    let said = compiled.diagnostics;
    compiled
        .configs
        .remove(&name)
        .unwrap_or_else(|| panic!("{said:?}"))
}

fn facts() -> Facts<'static> {
    Facts {
        proxy_image: super::pod::ProxyImage {
            reference: "registry.example/xmpp-edge-proxy:1",
            pull_secrets: &[],
        },
        operator: Some(
            serde_saphyr::from_str(
                "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: xmpp-system}},
                  podSelector: {matchLabels: {app.kubernetes.io/name: xmpp-edge-operator}}}",
            )
            .unwrap(),
        ),
        resolvers: Vec::new(),
        database: Vec::new(),
        volume: None,
        written: None,
        after: None,
    }
}

fn planned(more: &str) -> PoolPlan {
    let pool = pool(&format!("{SELF_SIGNED}{more}"));
    plan(&pool, &config(&pool), &facts())
}

/// The child as JSON.
fn manifest(plan: &PoolPlan, kind: ChildKind, name: &str) -> serde_json::Value {
    let child = plan.child(kind, name);
    child.map(Child::manifest).unwrap().unwrap()
}
