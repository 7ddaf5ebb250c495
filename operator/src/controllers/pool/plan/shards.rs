//! The document's ConfigMaps `<pool>-config-0…7`.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::{Resource, ResourceExt};
use xmpp_edge_crds::edge_config::{
    EdgeConfig,
    shards::{self, EncodeError, MAX_SHARDS, SHARD_KEY},
};

use super::{Child, metadata};

/// A document as it is to be written.
#[derive(Debug)]
pub struct PlannedDocument {
    /// As its shards name it.
    pub sha256: String,
    pub shards: Vec<Child>,
}

/// As many ConfigMaps as the document takes.
///
/// # Errors
/// [`EncodeError`] where it takes more than eight.
pub fn plan(
    pool: &impl Resource<DynamicType = ()>,
    config: &EdgeConfig,
) -> Result<PlannedDocument, EncodeError> {
    let name = pool.name_any();
    let packed = shards::encode(config)?;
    let shards = packed.shards.into_iter();
    let shards = shards
        .enumerate()
        .map(|(number, shard)| {
            Child::ConfigMap(Box::new(ConfigMap {
                metadata: metadata::owned(pool, shards::shard_name(&name, number)),
                binary_data: Some(BTreeMap::from([(SHARD_KEY.to_owned(), ByteString(shard))])),
                ..ConfigMap::default()
            }))
        })
        .collect();
    Ok(PlannedDocument {
        sha256: packed.sha256,
        shards,
    })
}

/// Names of the ConfigMaps that a document of `count` shards leaves over.
pub fn surplus(pool: &str, count: usize) -> impl Iterator<Item = String> {
    (count..MAX_SHARDS).map(move |number| shards::shard_name(pool, number))
}
