//! `render`: what a cluster would get, as far as it follows from the manifests alone.
//!
//! Secrets are named with their keys; their data is elided. Nothing is made and nothing is kept.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::{Value, json};
use xmpp_edge_crds::edge_config::{EdgeConfig, shards};

use super::{Inspection, Namespace};
use crate::{certificates::store::Entry, dns::records};

/// What stands in place of secret data.
const ELIDED: &str = "(elided)";

/// One pool: its document, the objects it leads to, the records it wants.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rendered {
    pub pool: String,
    pub namespace: String,
    pub edge_config: EdgeConfig,
    pub objects: Vec<Value>,
    /// Lines of a zone file.
    pub records: Vec<String>,
}

/// Renders every pool in force.
///
/// # Errors
/// [`shards::EncodeError`] where a document does not fit into eight ConfigMaps.
pub fn render(inspection: &Inspection) -> Result<Vec<Rendered>, shards::EncodeError> {
    inspection
        .namespaces
        .iter()
        .flat_map(|namespace| {
            namespace
                .compiled
                .configs
                .values()
                .map(|config| render_pool(namespace, config))
        })
        .collect()
}

fn render_pool(
    namespace: &Namespace,
    config: &EdgeConfig,
) -> Result<Rendered, shards::EncodeError> {
    let pool = namespace
        .world
        .pools
        .iter()
        .find(|pool| pool.metadata.name.as_ref() == Some(&config.pool));
    Ok(Rendered {
        pool: config.pool.clone(),
        namespace: namespace.name.clone(),
        edge_config: config.clone(),
        objects: objects(config)?,
        records: pool.map_or_else(Vec::new, |pool| records::of_pool(&pool.spec)),
    })
}

fn objects(config: &EdgeConfig) -> Result<Vec<Value>, shards::EncodeError> {
    let mut objects = config_maps(config)?;
    let metadata = |name: &str| json!({ "name": name, "namespace": config.namespace });
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata("xmpp-edge-internal-ca"),
        "data": { "ca.crt": ELIDED },
    }));
    let mut secret = |entry: &Entry, kind: &str, keys: &[&str]| {
        let data: serde_json::Map<String, Value> = keys
            .iter()
            .map(|key| ((*key).to_owned(), Value::from(ELIDED)))
            .collect();
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": metadata(&entry.to_string()),
            "stringData": data,
        }));
    };
    let pair = ["tls.crt", "tls.key"];
    let trusted = ["tls.crt", "tls.key", "ca.crt"];
    secret(&Entry::InternalCa, "kubernetes.io/tls", &pair);
    secret(&Entry::Dialback, "Opaque", &["secret"]);
    secret(
        &Entry::InternalIssuer(config.pool.clone()),
        "kubernetes.io/tls",
        &trusted,
    );
    secret(
        &Entry::PoolPair(config.pool.clone()),
        "kubernetes.io/tls",
        &pair,
    );
    for gateway in &config.gateways {
        if let Some(first) = gateway.domains.first() {
            secret(
                &Entry::Gateway(first.to_string()),
                "kubernetes.io/tls",
                &trusted,
            );
        }
    }
    Ok(objects)
}

/// The ConfigMaps `<pool>-config-0…7` that the pods mount.
fn config_maps(config: &EdgeConfig) -> Result<Vec<Value>, shards::EncodeError> {
    let shards = shards::encode(config)?;
    Ok(shards
        .iter()
        .enumerate()
        .map(|(number, shard)| {
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": format!("{}-config-{number}", config.pool),
                    "namespace": config.namespace,
                },
                "binaryData": { "shard": BASE64_STANDARD.encode(shard) },
            })
        })
        .collect())
}

/// As YAML: a document each, comments between them for a reader.
///
/// # Errors
/// [`serde_saphyr::ser::Error`] should a value have no YAML form.
pub fn yaml(rendered: &[Rendered]) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for pool in rendered {
        text.push_str(&format!(
            "# EdgeConfig of pool {}/{}\n---\n",
            pool.namespace, pool.pool
        ));
        text.push_str(&serde_saphyr::to_string(&pool.edge_config)?);
        for object in &pool.objects {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(object)?);
        }
        text.push_str("# Records\n");
        for record in &pool.records {
            text.push_str(&format!("# {record}\n"));
        }
    }
    Ok(text)
}
