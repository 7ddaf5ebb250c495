//! What a kubelet would find for a pod's projected volumes: where there is no node, tests fill a
//! process's folders with it.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, PodSpec, Secret, VolumeProjection},
};
use kube::{Api, Client};

/// Contents by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What the projected volume of this name holds now; every source of ours is optional.
///
/// # Errors
/// When the server does not answer.
pub async fn projected(
    client: &Client,
    namespace: &str,
    spec: &PodSpec,
    volume: &str,
) -> Result<Files> {
    let mut files = Files::new();
    for source in sources(spec, volume) {
        let (data, items) = if let Some(secret) = &source.secret {
            let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let held = api.get_opt(&secret.name).await?;
            (held.and_then(|it| it.data), &secret.items)
        } else if let Some(map) = &source.config_map {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let held = api.get_opt(&map.name).await?.unwrap_or_default();
            let mut data = held.binary_data.unwrap_or_default();
            let texts = held.data.unwrap_or_default().into_iter();
            data.extend(texts.map(|(key, text)| (key, ByteString(text.into_bytes()))));
            (Some(data), &map.items)
        } else {
            continue;
        };
        let data = data.unwrap_or_default();
        for item in items.iter().flatten() {
            if let Some(content) = data.get(&item.key) {
                files.insert(item.path.clone(), content.0.clone());
            }
        }
    }
    Ok(files)
}

fn sources(spec: &PodSpec, volume: &str) -> Vec<VolumeProjection> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter(|it| it.name == volume)
        .filter_map(|it| it.projected.as_ref()?.sources.clone())
        .flatten()
        .collect()
}
