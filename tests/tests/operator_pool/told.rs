//! What `CertificateReady` of a pool says, with its message.

use anyhow::{Context, Result};
use kube::Api;
use serde_json::Value;
use xmpp_edge_crds::kinds::EdgePool;
use xmpp_edge_tests::{
    cluster::{Namespace, pools::condition},
    wait,
};

use crate::stage::*;

/// The message of `CertificateReady`; empty where there is none.
pub fn told(pool: &Value) -> &str {
    let conditions = pool["status"]["conditions"].as_array();
    let mut of = conditions
        .into_iter()
        .flatten()
        .filter(|it| it["type"] == "CertificateReady");
    of.next()
        .and_then(|it| it["message"].as_str())
        .unwrap_or_default()
}

/// The pool `hq` once `CertificateReady` says so, with all these words.
pub async fn until_told(namespace: &Namespace<'_>, said: &str, words: &[&str]) -> Result<Value> {
    until_told_of(namespace, "hq", said, words).await
}

/// As [`until_told`], of another pool.
pub async fn until_told_of(
    namespace: &Namespace<'_>,
    pool: &str,
    said: &str,
    words: &[&str],
) -> Result<Value> {
    let api: Api<EdgePool> = namespace.api();
    let mut last = Value::Null;
    let found = wait::until("CertificateReady says so", SOON, async || {
        last = serde_json::to_value(api.get(pool).await.ok()?).ok()?;
        let has = words.iter().all(|word| told(&last).contains(word));
        (has && condition(&last, "CertificateReady") == said).then(|| last.clone())
    })
    .await;
    found.with_context(|| format!("{said} {words:?}, of {last:#}"))
}
