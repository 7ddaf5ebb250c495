//! Pools on an API server: written, edited, and waited for.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::EdgePool;

use super::{Namespace, Submission};
use crate::wait;

/// What a look may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(40);

/// Creates an object of our kinds.
///
/// # Errors
/// When the server refuses.
pub async fn create(namespace: &Namespace<'_>, object: &Value) -> Result<()> {
    namespace.write(Submission::CREATE, object).await?;
    Ok(())
}

/// Merges into a pool's spec.
///
/// # Errors
/// When the server refuses.
pub async fn edit(namespace: &Namespace<'_>, name: &str, spec: Value) -> Result<()> {
    let api: Api<EdgePool> = namespace.api();
    let patch = Patch::Merge(json!({ "spec": spec }));
    api.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Message of a condition in an object; empty where there is none.
pub fn message(object: &Value, name: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let mut found = conditions.into_iter().flatten();
    let found = found.find(|it| it["type"] == name);
    found.map_or_else(String::new, |it| {
        it["message"].as_str().unwrap_or_default().to_owned()
    })
}

/// `STATUS, REASON` of a condition in an object; empty where there is none.
pub fn condition(object: &Value, name: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|it| it["type"] == name);
    found.map_or_else(String::new, |it| {
        let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
        format!("{}, {}", text("status"), text("reason"))
    })
}

/// Waits until a condition of the newest form of the pool says so; the pool then.
///
/// # Errors
/// What it says instead.
pub async fn until_says(
    namespace: &Namespace<'_>,
    name: &str,
    kind: &str,
    said: &str,
) -> Result<Value> {
    let api: Api<EdgePool> = namespace.api();
    let mut last = Value::Null;
    let found = wait::until("the status says so", SOON, async || {
        let now = serde_json::to_value(api.get(name).await.ok()?).ok()?;
        last = now.clone();
        let newest = now["status"]["observedGeneration"] == now["metadata"]["generation"];
        (newest && condition(&now, kind) == said).then_some(now)
    })
    .await;
    found.with_context(|| format!("{kind}: {said}, of {last:#}"))
}

/// Waits until an object is there and as `wanted`.
///
/// # Errors
/// What is there instead.
pub async fn until<K, T>(
    namespace: &Namespace<'_>,
    name: &str,
    wanted: impl Fn(&K) -> Option<T>,
) -> Result<T>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = namespace.api();
    let mut last = None;
    let found = wait::until(
        &format!("{} {name} is so", K::kind(&())),
        SOON,
        async || {
            last = api.get_opt(name).await.ok()?;
            wanted(last.as_ref()?)
        },
    )
    .await;
    found.with_context(|| format!("{last:?}"))
}

/// The data of a Secret as text.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok()
}

/// Writes a Secret with these texts.
///
/// # Errors
/// When the server refuses.
pub async fn secret(namespace: &Namespace<'_>, name: &str, data: Value) -> Result<()> {
    let api: Api<Secret> = namespace.api();
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    let parameters = PatchParams::apply("somebody").force();
    api.patch(name, &parameters, &Patch::Apply(object)).await?;
    Ok(())
}
