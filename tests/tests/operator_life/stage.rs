//! Objects to write, and waiting for what their status says.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject},
};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::{EdgePool, ExternalAccessPolicy, XmppFederatedPartner};
pub use xmpp_edge_tests::cluster::pools::condition;
use xmpp_edge_tests::{
    cluster::{Namespace, Submission},
    wait,
};

/// Names of pools' domains are claimed once in all watched namespaces.
pub fn pool(namespace: &Namespace<'_>) -> Value {
    let domain = format!("{}.example", namespace.name);
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": "hq"},
        "spec": {"site": "hq", "domains": [domain], "accessEdge": {"fqdn": format!("edge.{domain}")}, "replicas": 1,
            "gateways": [{"domains": [domain], "address": "192.0.2.1:5269"}],
            "certificate": {"selfSigned": {}}}})
}

pub fn partner(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
        "metadata": {"name": name}, "spec": spec})
}

pub fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "ExternalAccessPolicy",
        "metadata": {"name": name}, "spec": spec})
}

/// Creates objects.
pub async fn create(namespace: &Namespace<'_>, objects: &[Value]) -> Result<()> {
    for object in objects {
        namespace.write(Submission::CREATE, object).await?;
    }
    Ok(())
}

/// Merges into an object's spec.
pub async fn edit(namespace: &Namespace<'_>, object: &Value, spec: Value) -> Result<()> {
    let mut change = object.clone();
    change["spec"] = spec;
    namespace.write(Submission::MERGE, &change).await?;
    Ok(())
}

/// Deletes an object, whether it is one of its kind or not.
pub async fn delete(namespace: &Namespace<'_>, object: &Value) -> Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap();
    dynamic(namespace, object)
        .delete(name, &DeleteParams::default())
        .await?;
    Ok(())
}

fn dynamic(namespace: &Namespace<'_>, object: &Value) -> Api<DynamicObject> {
    let resource = match object["kind"].as_str().unwrap() {
        "EdgePool" => ApiResource::erase::<EdgePool>(&()),
        "ExternalAccessPolicy" => ApiResource::erase::<ExternalAccessPolicy>(&()),
        _ => ApiResource::erase::<XmppFederatedPartner>(&()),
    };
    Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource)
}

/// The object as it is now, whether it is one of its kind or not.
pub async fn get(namespace: &Namespace<'_>, object: &Value) -> Result<Value> {
    let name = object["metadata"]["name"].as_str().unwrap();
    let api = dynamic(namespace, object);
    Ok(serde_json::to_value(api.get(name).await?)?)
}

/// What a status may take on a loaded machine; the promise is 10 s.
pub const SOON: Duration = Duration::from_secs(40);

/// Waits until the conditions say so about the newest form of the object; the object then.
pub async fn until_says(
    namespace: &Namespace<'_>,
    object: &Value,
    expected: &[(&str, &str)],
) -> Result<Value> {
    let mut last = Value::Null;
    let found = wait::until("the status says so", SOON, async || {
        let now = get(namespace, object).await.ok()?;
        let newest = now["status"]["observedGeneration"] == now["metadata"]["generation"];
        let says = expected
            .iter()
            .all(|(name, said)| condition(&now, name) == *said);
        last = now.clone();
        (newest && says).then_some(now)
    })
    .await;
    found.with_context(|| format!("{expected:?} of {last:#}"))
}
