//! Pools to write, and waiting for what comes of them.

use serde_json::{Value, json};
use xmpp_edge_tests::cluster::Namespace;
pub use xmpp_edge_tests::cluster::pools::{
    SOON, create, edit, message, secret, text, until, until_says,
};

/// An own domain that no other test has: domains are claimed once in all watched namespaces.
pub fn domain(namespace: &Namespace<'_>) -> String {
    format!("{}.example", namespace.name)
}

/// A pool with these fields of its spec beside the least that it needs.
pub fn pool(namespace: &Namespace<'_>, name: &str, more: Value) -> Value {
    let domain = domain(namespace);
    let mut pool = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": name},
        "spec": {"site": name, "replicas": 2, "domains": [domain], "accessEdge": {"fqdn": format!("{name}.{domain}"), "addresses": ["192.0.2.1"]},
            "gateways": [{"domains": [domain], "address": "prosody.chat.svc:5269"}],
            "certificate": {"selfSigned": {}}}});
    let spec = pool["spec"].as_object_mut().unwrap();
    spec.extend(more.as_object().unwrap().clone());
    pool
}
