//! Which ConfigMaps and Secrets of a namespace are read: what its objects refer to, and what the operator
//! keeps there itself. All others are known by name alone.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use xmpp_edge_crds::{
    edge_config::{EdgeConfig, shards},
    kinds::EdgePool,
};

use crate::{
    compile::{References, peer_keys, sidecar_secrets, sidecar_secrets_elsewhere},
    controllers::pool::{plan::names, publish, read},
    runtime::{
        caches::{Caches, SecretPlace},
        decoded::Decoded,
        store::UnreadError,
    },
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
        found.secrets.extend(certificate_secret(pool));
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
        let of_sidecars = before.clone().filter(|it| {
            let sidecar = it.sidecar.as_ref();
            sidecar.is_some_and(|own| own.namespace.as_deref().is_none_or(|it| it == namespace))
        });
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

/// The Secrets in other namespaces that the pools of this one refer to; `last` as of [`of`].
#[must_use]
pub fn elsewhere(
    caches: &Caches,
    namespace: &str,
    last: &BTreeMap<String, EdgeConfig>,
) -> BTreeSet<SecretPlace> {
    let mut found = BTreeSet::new();
    for pool in caches.pools.in_namespace(namespace) {
        let places = match pool.read() {
            Some(pool) => sidecar_secrets_elsewhere(pool),
            None => {
                let before = last.get(&pool.name_any()).into_iter();
                let gateways = before.flat_map(|config| &config.gateways);
                let places = gateways.filter_map(|it| {
                    let given = it.sidecar.as_ref()?.namespace.clone()?;
                    let entry = ManagedSecret::Sidecar(it.effective_name().to_owned());
                    (given != namespace).then(|| (given, entry.to_string()))
                });
                places.collect()
            }
        };
        let places = places.into_iter();
        found.extend(places.map(|(namespace, name)| SecretPlace { namespace, name }));
    }
    found
}

/// The Secret in which somebody gives a pool's certificate: one that cannot be decoded has it renewed too.
fn certificate_secret(pool: &Decoded<EdgePool>) -> Option<String> {
    let certificate = read::certificate(pool)?;
    let given = certificate.secret_ref.as_ref();
    let chain = certificate.csr.as_ref().map(|csr| &csr.chain_secret_ref);
    given.or(chain).map(|secret| secret.name.clone())
}

fn own_secrets(pool: &str) -> [String; 5] {
    [
        ManagedSecret::InternalIssuer,
        ManagedSecret::PoolPair,
        ManagedSecret::PoolCa,
        ManagedSecret::AdminToken,
        ManagedSecret::SipPairs,
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
