//! The document's ConfigMaps `<pool>-config-0…7`.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::ResourceExt;
use xmpp_edge_crds::{
    edge_config::{
        EdgeConfig,
        shards::{self, EncodeError, MAX_SHARDS},
    },
    kinds::EdgePool,
};

use super::{Child, metadata, names};

/// As many as the document takes.
///
/// # Errors
/// [`EncodeError`] where it takes more than eight.
pub fn plan(pool: &EdgePool, config: &EdgeConfig) -> Result<Vec<Child>, EncodeError> {
    let name = pool.name_any();
    let packed = shards::encode(config)?;
    Ok(packed
        .into_iter()
        .enumerate()
        .map(|(number, shard)| {
            Child::ConfigMap(Box::new(ConfigMap {
                metadata: metadata::owned(pool, names::shard(&name, number)),
                binary_data: Some(BTreeMap::from([(
                    names::SHARD_KEY.to_owned(),
                    ByteString(shard),
                )])),
                ..ConfigMap::default()
            }))
        })
        .collect())
}

/// Names of the ConfigMaps that a document of `count` shards leaves over.
pub fn surplus(pool: &str, count: usize) -> impl Iterator<Item = String> {
    (count..MAX_SHARDS).map(move |number| names::shard(pool, number))
}
