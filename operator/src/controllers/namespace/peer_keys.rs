//! ConfigMap `<pool>-peer-keys`: keys of partners that pods saw live, compiled in from there.
//!
//! What is in it is decided by [`crate::compile::peer_keys`], as in standalone.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};

use super::snapshot::{Context, NamespaceSnapshot};
use crate::compile::{
    Kind, ObjectRef,
    peer_keys::{self, PeerKeysData},
};

/// Field manager of these ConfigMaps.
const MANAGER: &str = "xmpp-edge-operator/peer-keys";

/// Writes what was learned, where there is anything new; forgets partners that are gone.
///
/// # Errors
/// [`kube::Error`]; it is learned again from the pods' next answer.
pub async fn learn(context: &Context, scene: &NamespaceSnapshot) -> Result<(), kube::Error> {
    for (pool, config) in &scene.compiled.configs {
        let name = peer_keys::name_of(pool);
        let known = scene.world.config_maps.get(&name);
        let mut data = known.cloned().unwrap_or_default();
        for (partner, facts) in scene
            .facts
            .get(pool)
            .into_iter()
            .flat_map(|it| &it.partners)
        {
            if let Some(key) = &facts.peer_key_sha256 {
                peer_keys::learn(&mut data, config, partner, key);
            }
        }
        forget(&mut data, scene);
        if known.map_or(!data.is_empty(), |known| *known != data) {
            write(context, scene, pool, name, data).await?;
        }
    }
    Ok(())
}

/// One that is made anew under the name is another.
fn forget(data: &mut PeerKeysData, scene: &NamespaceSnapshot) {
    let mut exists: BTreeMap<&str, ()> = BTreeMap::new();
    if !data.is_empty() {
        let read = scene.world.partners.iter();
        exists.extend(read.filter_map(|it| Some((it.metadata.name.as_deref()?, ()))));
    }
    data.retain(|partner, _| {
        let object = ObjectRef::new(Kind::XmppFederatedPartner, partner);
        exists.contains_key(partner.as_str()) || scene.world.broken.contains_key(&object)
    });
}

/// On the form that was read: keys that someone else entered meanwhile are not lost.
async fn write(
    context: &Context,
    scene: &NamespaceSnapshot,
    pool: &str,
    name: String,
    data: PeerKeysData,
) -> Result<(), kube::Error> {
    let namespace = &scene.namespace;
    let before = context.caches.config_maps.get(namespace, &name);
    let owner = context.caches.pools.get(namespace, pool);
    let owner = owner.and_then(|pool| pool.controller_owner_ref(&()));
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            resource_version: before.and_then(|map| map.metadata.resource_version.clone()),
            owner_references: owner.map(|owner| vec![owner]),
            labels: Some(BTreeMap::from([
                (
                    "app.kubernetes.io/managed-by".to_owned(),
                    "xmpp-edge-operator".to_owned(),
                ),
                (
                    "app.kubernetes.io/part-of".to_owned(),
                    "xmpp-edge".to_owned(),
                ),
                (crate::proxy_status::POOL_LABEL.to_owned(), pool.to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    };
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let parameters = PatchParams::apply(MANAGER).force();
    let answer = api.patch(&name, &parameters, &Patch::Apply(&map)).await?;
    context.caches.config_maps.put(answer);
    // It is compiled in by the next look.
    context.caches.triggers.enqueue(namespace);
    Ok(())
}
