//! ConfigMap `<pool>-peer-keys`: keys of partners that pods saw live, compiled in from there.
//!
//! What is in it is decided by [`crate::compile::peer_keys`], as in standalone.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};

use tokio::time::Instant;

use super::snapshot::{Context, NamespaceSnapshot};
use crate::{
    compile::{
        Kind, ObjectRef,
        peer_keys::{self, PeerKeysData},
    },
    proxy_status::{PoolReport, model::ProxyStatus},
};

/// Field manager of these ConfigMaps.
const MANAGER: &str = "xmpp-edge-operator/peer-keys";

/// A partner's next key by the word of one pod alone is taken no earlier than this after the one before: a
/// pod that lies takes [`peer_keys`]'s 32 keys of that many hours to flush, and one that does not loses
/// nothing, as its partner's keys change by the year.
const ROTATION: Duration = Duration::from_secs(3600);

/// When a partner's key was recorded by the word of one pod, by pool and partner.
#[derive(Debug, Default)]
pub struct Rotations(HashMap<(String, String), Instant>);

impl Rotations {
    /// Whether a key may follow those that are known. `pods` say that they saw it.
    fn may(&mut self, pool: &str, partner: &str, pods: usize, now: Instant) -> bool {
        if pods > 1 {
            return true;
        }
        self.0.retain(|_, at| now.duration_since(*at) < ROTATION);
        let key = (pool.to_owned(), partner.to_owned());
        if self.0.contains_key(&key) {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

/// Pods that saw this key of a partner.
fn witnesses(report: Option<&PoolReport>, partner: &str, key: &str) -> usize {
    let statuses = report.into_iter().flat_map(|report| report.pods.values());
    let statuses = statuses.filter_map(|pod| pod.status.as_ref());
    let saw = |status: &&ProxyStatus| {
        let mut partners = status.partners.iter();
        partners.any(|it| it.name == partner && it.peer_key_sha256.as_deref() == Some(key))
    };
    statuses.filter(saw).count()
}

/// Writes what was learned, where there is anything new; forgets partners that are gone.
///
/// # Errors
/// [`kube::Error`]; it is learned again from the pods' next answer.
pub async fn learn(
    context: &Context,
    scene: &NamespaceSnapshot,
    rotations: &mut Rotations,
) -> Result<(), kube::Error> {
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
            let Some(key) = &facts.peer_key_sha256 else {
                continue;
            };
            let held = data.get(partner);
            let new = !held.is_some_and(|keys| keys.lines().any(|it| it == key));
            let first = held.is_none_or(String::is_empty);
            let pods = || witnesses(scene.reports.get(pool), partner, key);
            if new && (first || rotations.may(pool, partner, pods(), Instant::now())) {
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
    let since = context.caches.config_maps.epoch();
    let answer = api.patch(&name, &parameters, &Patch::Apply(&map)).await?;
    context.caches.config_maps.created(answer, since);
    // It is compiled in by the next look.
    context.caches.triggers.enqueue(namespace);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pods_word_rotates_a_key_once_an_hour_and_two_pods_at_once() {
        let (mut rotations, now) = (Rotations::default(), Instant::now());
        assert!(rotations.may("hq", "p", 1, now));
        assert!(!rotations.may("hq", "p", 1, now), "again at once");
        assert!(rotations.may("hq", "other", 1, now), "another partner's");
        assert!(rotations.may("hq", "p", 2, now), "two pods say so");
        assert!(rotations.may("hq", "p", 1, now + ROTATION), "an hour later");
    }
}
