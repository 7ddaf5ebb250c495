//! `render`: what a cluster would get, as far as it follows from the manifests alone.
//!
//! The objects are those of the very plan that the controllers apply. Secrets are named with their
//! keys; their data is elided. Nothing is kept.

use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use xmpp_edge_crds::{
    edge_config::{EdgeConfig, shards},
    kinds::EdgePool,
};

use super::inspection::{Inspection, NamespaceInspection};
use crate::{
    controllers::pool::{
        plan::{
            self, Facts, metadata, pod,
            secrets::{self, PlannedElsewhere},
        },
        read,
        sidecar_secrets::{HeldElsewhere, POOLS_IN},
        sidecars::{self, SidecarInputs},
    },
    dns::records,
    secrets::{CertificateError, store::SecretData},
};

/// What stands in place of secret data.
const ELIDED: &str = "(elided)";
/// The operator's, as the guides have it: manifests do not say.
const OPERATOR_NAMESPACE: &str = "edge-system";

/// One pool: its document, the objects it leads to, the records it wants.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rendered {
    pub pool: String,
    pub namespace: String,
    pub edge_config: EdgeConfig,
    pub objects: Vec<Value>,
    /// Lines of a zone file.
    pub records: Vec<String>,
}

/// Why nothing can be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// A document does not fit into eight ConfigMaps.
    #[error(transparent)]
    TooLarge(#[from] shards::EncodeError),
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    #[error("an object has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
}

/// Renders every pool in force.
///
/// # Errors
/// [`RenderError`].
pub(crate) fn render(
    inspection: &Inspection,
    now: Timestamp,
) -> Result<Vec<Rendered>, RenderError> {
    let mut rendered = Vec::new();
    for namespace in &inspection.namespaces {
        for config in namespace.compiled.configs.values() {
            rendered.extend(render_pool(namespace, config, now)?);
        }
    }
    Ok(rendered)
}

fn render_pool(
    namespace: &NamespaceInspection,
    config: &EdgeConfig,
    now: Timestamp,
) -> Result<Option<Rendered>, RenderError> {
    let pools = &namespace.world.pools;
    // Nothing was in force before, so that a pool in force can be read.
    let Some(pool) = pools.iter().find(|pool| pool.name_any() == config.pool) else {
        return Ok(None);
    };
    let mut pool = pool.clone();
    pool.metadata.namespace = Some(config.namespace.clone());
    Ok(Some(Rendered {
        pool: config.pool.clone(),
        namespace: namespace.name.clone(),
        edge_config: config.clone(),
        objects: objects(namespace, &pool, config, now)?,
        records: records::of_pool(&pool.spec),
    }))
}

fn objects(
    namespace: &NamespaceInspection,
    pool: &EdgePool,
    config: &EdgeConfig,
    now: Timestamp,
) -> Result<Vec<Value>, RenderError> {
    let mut objects = Vec::new();
    let held = |name: &str| namespace.world.secrets.get(name).cloned();
    let configs = &namespace.compiled.configs;
    let pools = &namespace.world.pools;
    let sidecars = SidecarInputs {
        documents: sidecars::documents(pools, configs, sidecars::DEFAULT_CLUSTER_DOMAIN),
        outside: sidecars::outside(pools, configs, &config.pool),
        configs,
        elsewhere: &|_, _| HeldElsewhere::Data(None),
    };
    let certificate = Some(&pool.spec.certificate);
    let secrets = secrets::plan(Some(pool), certificate, config, &held, &sidecars, now)?;
    let elided = |material: &SecretData| -> serde_json::Map<String, Value> {
        let keys = material.keys();
        keys.map(|key| (key.clone(), Value::from(ELIDED))).collect()
    };
    for (entry, material) in &secrets.entries {
        let data = elided(material);
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": secrets::secret_type(material),
            "metadata": {
                "name": entry.to_string(),
                "namespace": config.namespace,
                "labels": secrets::labels(entry, &config.pool),
            },
            "stringData": data,
        }));
    }
    for PlannedElsewhere { identity, material } in &secrets.elsewhere {
        let Some(material) = material else { continue };
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": secrets::secret_type(material),
            "metadata": {
                "name": identity.place.name,
                "namespace": identity.place.namespace,
                "labels": metadata::shared_labels(),
                "annotations": { POOLS_IN: config.namespace },
            },
            "stringData": elided(material),
        }));
    }
    for map in &secrets.outside {
        let mut map = map.manifest()?;
        map["data"]["ca.crt"] = Value::from(ELIDED);
        objects.push(map);
    }
    let mut internal_ca = secrets.internal_ca.manifest()?;
    internal_ca["data"]["ca.crt"] = Value::from(ELIDED);
    objects.push(internal_ca);
    let facts = Facts {
        proxy_image: pod::ProxyImage {
            reference: read::DEFAULT_PROXY_IMAGE,
            pull_secrets: &[],
        },
        resolvers: Vec::new(),
        operator: Some(read::operator_peer(OPERATOR_NAMESPACE)),
        database: read::database_of(&namespace.world, pool),
        volume: None,
        written: None,
        after: None,
    };
    let plan = plan::plan(pool, config, &facts);
    if let Some(error) = plan.too_large {
        return Err(error.into());
    }
    for child in &plan.children {
        objects.push(child.manifest()?);
    }
    Ok(objects)
}

/// As YAML: a document each, comments between them for a reader.
///
/// # Errors
/// [`serde_saphyr::ser::Error`] should a value have no YAML form.
pub(crate) fn yaml(rendered: &[Rendered]) -> Result<String, serde_saphyr::ser::Error> {
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
