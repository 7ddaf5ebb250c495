//! Which ConfigMaps and Secrets of a namespace are read: what its objects refer to, and what the operator
//! keeps there itself. All others are known by name alone.

use std::collections::BTreeMap;

use kube::ResourceExt;
use xmpp_edge_crds::edge_config::{EdgeConfig, shards};

use crate::{
    compile::{References, peer_keys, sidecar_secrets},
    controllers::pool::{plan::names, publish},
    runtime::{caches::Caches, store::UnreadError},
    secrets::store::ManagedSecret,
};

/// Everything that a pass over the namespace may read. `last`: the pools' last documents, of which a pool
/// that cannot be read keeps its gateways.
#[must_use]
pub fn of(caches: &Caches, namespace: &str, last: &BTreeMap<String, EdgeConfig>) -> References {
    let mut found = References::default();
    for partner in caches.partners.in_namespace(namespace) {
        if let Some(partner) = partner.read() {
            found.add_partner(partner);
        }
    }
    for policy in caches.policies.in_namespace(namespace) {
        if let Some(policy) = policy.read() {
            found.add_policy(policy);
        }
    }
    let pools = caches.pools.in_namespace(namespace);
    for pool in &pools {
        if let Some(pool) = pool.read() {
            found.add_pool(pool);
        }
        let name = pool.name_any();
        found.config_maps.extend(own_documents(&name));
        let of_records = publish::key_of_records(pool.as_ref());
        found.secrets.extend(of_records);
        found.secrets.extend(own_secrets(&name));
        let gateways = pool.read().into_iter().flat_map(|it| &it.spec.gateways);
        let domains = gateways.flat_map(|it| it.domains.iter().cloned());
        let before = last.get(&name).into_iter().flat_map(|it| &it.gateways);
        let sidecars = pool.read().map(sidecar_secrets).unwrap_or_default();
        found.secrets.extend(sidecars);
        let of_sidecars = before.clone().filter(|it| it.sidecar.is_some());
        let of_sidecars = of_sidecars.map(|it| it.effective_name().to_owned());
        let of_sidecars = of_sidecars.map(ManagedSecret::Sidecar);
        found.secrets.extend(of_sidecars.map(|it| it.to_string()));
        let before = before.flat_map(|it| it.domains.iter().map(ToString::to_string));
        // Called after one of them.
        let gateways = domains.chain(before).map(ManagedSecret::Gateway);
        found.secrets.extend(gateways.map(|it| it.to_string()));
    }
    if !pools.is_empty() {
        found.config_maps.insert(names::INTERNAL_CA.to_owned());
        let shared = [ManagedSecret::InternalCa, ManagedSecret::Dialback];
        found.secrets.extend(shared.map(|it| it.to_string()));
    }
    found
}

fn own_secrets(pool: &str) -> [String; 4] {
    [
        ManagedSecret::InternalIssuer,
        ManagedSecret::PoolPair,
        ManagedSecret::PoolCa,
        ManagedSecret::AdminToken,
    ]
    .map(|kind| kind(pool.to_owned()).to_string())
}

/// ConfigMaps in which a pool's last document and the keys of its partners are.
fn own_documents(pool: &str) -> impl Iterator<Item = String> {
    shards::shard_names(pool).chain([peer_keys::name_of(pool)])
}

/// Why the namespace cannot be compiled now: without a pool's last document or the keys of its partners,
/// what works would be taken down.
///
/// # Errors
/// [`UnreadError`].
pub fn documents_are_read(caches: &Caches, namespace: &str) -> Result<(), UnreadError> {
    for pool in caches.pools.in_namespace(namespace) {
        for name in own_documents(&pool.name_any()) {
            caches.config_maps.get(namespace, &name)?;
        }
    }
    Ok(())
}
