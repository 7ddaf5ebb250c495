//! `xmpp-edge-operator check`: whether an operator works in a cluster, asked from inside it.
//!
//! What `helm test` runs. It only reads, and needs no right but to read the lease, and to list the kinds
//! for what nobody watches: what the kinds' definitions serve is told to anyone by the API server's OpenAPI
//! document.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use xmpp_edge_crds::kinds;

use crate::{
    runtime::{http::HttpQuestion, leader::election::Timing},
    status::unwatched,
};

/// Where the API server tells what it serves of our group.
const SERVED: &str = "/openapi/v3/apis/xmpp-edge.dev/v1alpha1";
/// A metric that every operator has.
const METRIC: &str = "xmpp_edge_operator_build_info";
/// Longest answer of an operator's admin port.
const MAX_ANSWER: usize = 16 << 20;
/// A call that takes longer failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A lease that is longer is not waited for.
const MAX_LEASE: Duration = Duration::from_secs(120);
/// A leader has given each object a status by then.
const STATUS_LIMIT: Duration = Duration::from_secs(10);
/// Between looks at the lease.
const LEASE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What `check` was told.
#[derive(Clone, Debug)]
pub(super) struct PreflightOptions {
    pub lease_name: String,
    /// `HOST:PORT` of an operator's admin port; without it that is not checked.
    pub admin: Option<String>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub what: &'static str,
    pub fine: bool,
    /// What was found, or what to do.
    pub text: String,
}

/// Looks at everything, whatever comes of each.
pub(super) async fn check(options: &PreflightOptions) -> Vec<Finding> {
    let config = match Config::infer().await {
        Ok(config) => config,
        Err(error) => return vec![finding("access", Err(error.to_string()))],
    };
    let namespace = config.default_namespace.clone();
    let client = match Client::try_from(config) {
        Ok(client) => client,
        Err(error) => return vec![finding("access", Err(error.to_string()))],
    };
    let mut found = vec![
        finding("API server", limited(version(&client)).await),
        finding("definitions", limited(definitions(&client)).await),
    ];
    let leases = Api::namespaced(client.clone(), &namespace);
    let leader = leader(&leases, &options.lease_name).await;
    let leads = leader.is_ok();
    found.push(finding("leader", leader));
    // Without a leader nobody gives any object a status.
    if leads {
        found.push(finding("other namespaces", others(&client).await));
    }
    if let Some(address) = &options.admin {
        found.push(finding("metrics", limited(metrics(address)).await));
    }
    found
}

fn finding(what: &'static str, outcome: Result<String, String>) -> Finding {
    let fine = outcome.is_ok();
    let text = outcome.unwrap_or_else(|fault| fault);
    Finding { what, fine, text }
}

async fn limited(call: impl Future<Output = Result<String, String>>) -> Result<String, String> {
    let late = || format!("no answer within {} s", CALL_TIMEOUT.as_secs());
    timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(late()))
}

async fn version(client: &Client) -> Result<String, String> {
    let version = client.apiserver_version().await;
    version
        .map(|it| it.git_version)
        .map_err(|error| error.to_string())
}

/// Whether all fields that this version writes or reads are served.
async fn definitions(client: &Client) -> Result<String, String> {
    let request = hyper::http::Request::get(SERVED).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    let served: Value = client.request(request).await.map_err(|error| {
        format!("{error}: install the CustomResourceDefinitions (chart value crds.enabled)")
    })?;
    let missing = missing_fields(&served);
    if missing.is_empty() {
        return Ok("all fields are served".to_owned());
    }
    let some: Vec<&str> = missing.iter().take(5).map(String::as_str).collect();
    Err(format!(
        "{} fields of this version are not served, such as {}: upgrade the CustomResourceDefinitions",
        missing.len(),
        some.join(", ")
    ))
}

/// Paths of fields of our definitions that an OpenAPI document lacks.
fn missing_fields(served: &Value) -> Vec<String> {
    let schemas = served["components"]["schemas"].as_object();
    let mut missing = Vec::new();
    for definition in kinds::crds() {
        let kind = definition.spec.names.kind;
        let of_kind = |schema: &&Value| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|it| it["kind"] == kind.as_str()))
        };
        let found = schemas.and_then(|schemas| schemas.values().find(of_kind));
        for version in &definition.spec.versions {
            let schema = version.schema.as_ref();
            let schema = schema.and_then(|it| serde_json::to_value(&it.open_api_v3_schema).ok());
            let (Some(wanted), Some(found)) = (schema, found) else {
                missing.push(kind.clone());
                continue;
            };
            compare(&wanted, found, &kind, &mut missing);
        }
    }
    missing
}

fn compare(wanted: &Value, served: &Value, path: &str, missing: &mut Vec<String>) {
    for (name, wanted) in wanted["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match served["properties"].get(name) {
            Some(served) => compare(wanted, served, &path, missing),
            None => missing.push(path),
        }
    }
    for inner in ["items", "additionalProperties"] {
        if wanted[inner].is_object() {
            compare(&wanted[inner], &served[inner], path, missing);
        }
    }
}

/// Waits until somebody renews the lease: its time alone says little where clocks differ. A leader
/// renews within its deadline; who comes after one that died, or after a lease that somebody else
/// left, waits until that has run out.
async fn leader(api: &Api<Lease>, name: &str) -> Result<String, String> {
    let begun = Instant::now();
    let mut limit = Timing::default().lease * 2 + CALL_TIMEOUT;
    let mut last = String::new();
    let mut first: Option<(String, String)> = None;
    let mut told: Option<Instant> = None;
    loop {
        if begun.elapsed() > limit {
            let whose = if last.is_empty() {
                "nobody holds it".to_owned()
            } else {
                format!("{last:?} holds it and does not renew it")
            };
            return Err(format!(
                "nobody renewed the lease {name:?} within {} s; {whose}: look at the operator's pods",
                limit.as_secs()
            ));
        }
        match timeout(CALL_TIMEOUT, api.get_opt(name)).await {
            Ok(Ok(Some(lease))) => {
                let held = lease
                    .spec
                    .as_ref()
                    .and_then(|it| it.lease_duration_seconds)
                    .and_then(|seconds| u64::try_from(seconds).ok())
                    .map(Duration::from_secs);
                // Whoever is next waits for so long.
                let held = held.unwrap_or_default().min(MAX_LEASE);
                limit = limit.max(held + Timing::default().lease + CALL_TIMEOUT);
                let holder = lease
                    .spec
                    .and_then(|it| it.holder_identity)
                    .unwrap_or_default();
                let seen = (
                    holder.clone(),
                    lease.metadata.resource_version.unwrap_or_default(),
                );
                last.clone_from(&holder);
                let known = first.get_or_insert_with(|| seen.clone());
                if !holder.is_empty() && *known != seen && known.0 == holder {
                    return Ok(holder);
                }
                first = Some(seen);
            }
            Ok(Ok(None)) => first = None,
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                return Err(status.message.clone());
            }
            Ok(Err(error)) if told.is_none() => {
                told = Some(Instant::now());
                tracing::warn!(%error, "the lease cannot be read; it is tried again");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(LEASE_POLL_INTERVAL).await;
    }
}

/// Whether all objects have an operator. One that took over just now needs a moment for each.
async fn others(client: &Client) -> Result<String, String> {
    let begun = Instant::now();
    loop {
        // It is waited for here: what is new counts too.
        let now = jiff::Timestamp::now() + unwatched::SAID_AFTER;
        match timeout(CALL_TIMEOUT, unwatched::look(client, None, now)).await {
            Ok(Ok(found)) if found.is_empty() => {
                return Ok("all objects are watched by an operator".to_owned());
            }
            Ok(Ok(found)) if begun.elapsed() > STATUS_LIMIT => {
                return Err(unwatched::lines(&found).join("; "));
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                return Ok(format!("not looked at: {}", status.message));
            }
            Ok(Err(error)) if begun.elapsed() > STATUS_LIMIT => return Err(error.to_string()),
            Err(_) if begun.elapsed() > STATUS_LIMIT => {
                return Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs()));
            }
            Ok(_) | Err(_) => {}
        }
        sleep(LEASE_POLL_INTERVAL).await;
    }
}

async fn metrics(address: &str) -> Result<String, String> {
    let body = get(address, "/metrics")
        .await
        .map_err(|error| format!("http://{address}/metrics: {error}"))?;
    let families = body.matches("# TYPE ").count();
    if body.contains(METRIC) {
        Ok(format!("{families} families at http://{address}/metrics"))
    } else {
        Err(format!(
            "http://{address}/metrics answers, but is no operator: it has no {METRIC}"
        ))
    }
}

async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let get = HttpQuestion {
        method: &hyper::Method::GET,
        host: address,
        path,
        token: None,
    };
    get.send(address, async |answer| {
        anyhow::ensure!(answer.status().is_success(), "{}", answer.status());
        let body = Limited::new(answer.into_body(), MAX_ANSWER);
        let bytes = body.collect().await.map_err(anyhow::Error::from_boxed)?;
        Ok(String::from_utf8_lossy(&bytes.to_bytes()).into_owned())
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// What an API server tells of our own definitions.
    fn document() -> Value {
        let mut schemas = serde_json::Map::new();
        for definition in kinds::crds() {
            let version = &definition.spec.versions[0];
            let schema = version.schema.as_ref().unwrap();
            let mut schema = serde_json::to_value(&schema.open_api_v3_schema).unwrap();
            let kind = definition.spec.names.kind;
            schema["x-kubernetes-group-version-kind"] = json!([{ "kind": kind }]);
            schemas.insert(kind, schema);
        }
        json!({ "components": { "schemas": schemas } })
    }

    #[test]
    fn our_own_definitions_lack_nothing() {
        assert_eq!(missing_fields(&document()), Vec::<String>::new());
    }

    #[test]
    fn a_field_that_older_definitions_lack_is_named() {
        let mut older = document();
        let spec = &mut older["components"]["schemas"]["EdgePool"]["properties"]["spec"];
        let gateways = &mut spec["properties"]["gateways"]["items"]["properties"];
        gateways.as_object_mut().unwrap().remove("trust").unwrap();
        assert_eq!(missing_fields(&older), ["EdgePool.spec.gateways.trust"]);
        older["components"]["schemas"]
            .as_object_mut()
            .unwrap()
            .remove("XmppFederatedPartner");
        assert!(missing_fields(&older).contains(&"XmppFederatedPartner".to_owned()));
    }
}
