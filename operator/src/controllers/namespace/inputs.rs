//! Caches → [`NamespaceInputs`]: one namespace as it stands, for the compile step.
//!
//! It copies and judges nothing but one thing: an own domain belongs to one watched namespace.
//! Status is never read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Secret, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt};
use serde_json::Value;
use xmpp_edge_crds::{
    edge_config::shards::{self, SHARD_KEY, WholeDocument, shard_names},
    kinds::{EdgePool, ExternalAccessPolicy, XmppFederatedPartner, conditions::Reason},
};
use zeroize::Zeroizing;

use crate::{
    compile::{self, Fault, Kind, NamespaceInputs, ObjectRef, References, Undecodable},
    runtime::{
        caches::{Caches, SecretElsewhere, SecretPlace},
        decoded::{Decoded, UndecodableObject},
        store::ObjectStore,
    },
    secrets::store::SecretData,
};

/// Name of the Service that servers inside reach.
#[must_use]
pub fn internal_service_name(pool: &str) -> String {
    format!("{pool}-internal")
}

/// A namespace as it stands, with those ConfigMaps that are referred to.
#[must_use]
pub fn world(caches: &Caches, namespace: &str, references: &References) -> NamespaceInputs {
    let mut world = NamespaceInputs {
        namespace: namespace.to_owned(),
        ..NamespaceInputs::default()
    };
    let broken = &mut world.broken;
    let pools = readable(
        &caches.pools,
        namespace,
        Kind::EdgePool,
        broken,
        EdgePool::clone,
    );
    let kind = Kind::XmppFederatedPartner;
    let light = |partner: &XmppFederatedPartner| XmppFederatedPartner {
        metadata: identity(&partner.metadata),
        spec: partner.spec.clone(),
        status: None,
    };
    world.partners = readable(&caches.partners, namespace, kind, broken, light);
    let kind = Kind::ExternalAccessPolicy;
    let light = |policy: &ExternalAccessPolicy| ExternalAccessPolicy {
        metadata: identity(&policy.metadata),
        spec: policy.spec.clone(),
        status: None,
    };
    world.policies = readable(&caches.policies, namespace, kind, broken, light);
    let elsewhere = Elsewhere::of(caches, namespace);
    for pool in pools {
        match elsewhere.conflict(&pool) {
            None => world.pools.push(pool),
            Some(fault) => {
                let object = ObjectRef::new(Kind::EdgePool, &pool.name_any());
                let suspended = Some(pool.spec.suspended);
                world
                    .broken
                    .insert(object, Undecodable { suspended, fault });
            }
        }
    }
    for name in &references.config_maps {
        let map = match caches.config_maps.get(namespace, name) {
            Ok(None) => continue,
            Ok(Some(map)) => map,
            Err(error) => {
                let unread = &mut world.unread.config_maps;
                unread.insert(name.clone(), error.to_string());
                continue;
            }
        };
        let data = map.data.clone().unwrap_or_default();
        world.config_maps.insert(name.clone(), data);
        // Documents of pools are binary too, and nobody refers to them.
        let binary = map.binary_data.iter().flatten();
        let binary = binary.filter(|(key, _)| *key != SHARD_KEY);
        world.add_binary_data(name, binary.map(|(key, bytes)| (key.as_str(), &*bytes.0)));
    }
    for name in compile::secrets_read(&world.pools) {
        match caches.secrets.get(namespace, &name) {
            Ok(None) => {}
            Ok(Some(secret)) => {
                world.secrets.insert(name, material(&secret));
            }
            Err(error) => {
                world.unread.secrets.insert(name, error.to_string());
            }
        }
    }
    let places = world
        .pools
        .iter()
        .flat_map(compile::sidecar_secrets_elsewhere);
    for (namespace, name) in places.collect::<Vec<_>>() {
        let place = SecretPlace { namespace, name };
        if let SecretElsewhere::Held(secret) = caches.elsewhere.get(&place) {
            let place = (place.namespace, place.name);
            world.secrets_elsewhere.insert(place, material(&secret));
        }
    }
    for pool in &world.pools {
        let name = pool.name_any();
        let service = caches
            .services
            .get(namespace, &internal_service_name(&name));
        let addresses = service
            .as_deref()
            .map(service_addresses)
            .unwrap_or_default();
        world.inside.insert(name, addresses);
    }
    world
}

/// The data of a Secret.
#[must_use]
pub fn material(secret: &Secret) -> SecretData {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), Zeroizing::new(value.0.clone())))
        .collect()
}

/// What compiling asks of metadata: of thousands of objects the rest is a burden.
fn identity(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp.clone(),
        ..ObjectMeta::default()
    }
}

/// Those of a kind that can be read; the others become `broken`. What is being deleted is gone.
fn readable<K: Resource>(
    table: &ObjectStore<Decoded<K>>,
    namespace: &str,
    kind: Kind,
    broken: &mut BTreeMap<ObjectRef, Undecodable>,
    copy: impl Fn(&K) -> K,
) -> Vec<K> {
    let mut objects = Vec::new();
    for object in table.in_namespace(namespace) {
        if object.meta().deletion_timestamp.is_some() {
            continue;
        }
        match object.as_ref() {
            Decoded::Valid(object) => objects.push(copy(object)),
            Decoded::Undecodable(unreadable) => {
                broken.insert(
                    ObjectRef::new(kind, &object.name_any()),
                    Undecodable {
                        suspended: unreadable.suspended,
                        fault: undecodable(unreadable),
                    },
                );
            }
        }
    }
    objects
}

fn undecodable(object: &UndecodableObject) -> Fault {
    Fault::new(
        Reason::Invalid,
        format!(
            "this operator cannot read the object ({}): it was written for another version of its CustomResourceDefinition; correct the field, or run operator and CustomResourceDefinitions of one version",
            object.error
        ),
    )
}

/// The load balancer's addresses, else the cluster's own.
fn service_addresses(service: &Service) -> Vec<IpAddr> {
    let parsed = |texts: Vec<&str>| -> Vec<IpAddr> {
        texts
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect()
    };
    let balancer = service
        .status
        .as_ref()
        .and_then(|it| it.load_balancer.as_ref());
    let ingress = balancer
        .and_then(|it| it.ingress.as_ref())
        .into_iter()
        .flatten();
    let outer = parsed(ingress.filter_map(|it| it.ip.as_deref()).collect());
    if !outer.is_empty() {
        return outer;
    }
    let ips = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ips.as_ref());
    parsed(ips.into_iter().flatten().map(String::as_str).collect())
}

/// Pools of the other watched namespaces.
struct Elsewhere {
    pools: Vec<NamedClaim>,
}

struct NamedClaim {
    rank: Rank,
    names: BTreeSet<String>,
}

/// The older pool has a domain; of equal age, namespace and name decide.
type Rank = (Timestamp, String, String);

fn rank(metadata: &ObjectMeta) -> Rank {
    (
        metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::MAX, |time| time.0),
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn claimed(pool: &EdgePool) -> impl Iterator<Item = &String> {
    pool.spec
        .domains
        .iter()
        .chain([&pool.spec.access_edge.fqdn])
}

/// The names that a pool claims, as far as they can be read of one that cannot be decoded.
fn claimed_raw(spec: &Value) -> BTreeSet<String> {
    let domains = spec["domains"].as_array().into_iter().flatten();
    domains
        .chain([&spec["accessEdge"]["fqdn"]])
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

impl Elsewhere {
    fn of(caches: &Caches, namespace: &str) -> Self {
        let all = caches.pools.all();
        let others = all.iter();
        let others = others.filter(|pool| pool.namespace().as_deref() != Some(namespace));
        Self {
            pools: others
                .map(|pool| NamedClaim {
                    rank: rank(pool.meta()),
                    names: match pool.as_ref() {
                        Decoded::Valid(pool) => claimed(pool).cloned().collect(),
                        // Its last good form is in force still: nobody else gets its domains meanwhile.
                        Decoded::Undecodable(pool) => claimed_raw(&pool.spec),
                    },
                })
                .collect(),
        }
    }

    /// Why a pool of this namespace cannot have its domains.
    fn conflict(&self, pool: &EdgePool) -> Option<Fault> {
        let mine = rank(&pool.metadata);
        let older = self.pools.iter().filter(|other| other.rank < mine);
        let (name, other) = older
            .filter_map(|other| {
                Some((
                    claimed(pool).find(|name| other.names.contains(*name))?,
                    other,
                ))
            })
            .next()?;
        let (_, namespace, _) = &other.rank;
        Some(Fault::new(
            Reason::DomainConflict,
            format!(
                "{name} belongs to an older EdgePool in namespace {namespace:?}: a domain has one namespace, remove it from one of the two"
            ),
        ))
    }
}

/// The shards of a pool's document that are there. A pass begins with all of them read
/// ([`documents_are_read`](super::references::documents_are_read)).
fn written_shards(caches: &Caches, namespace: &str, pool: &str) -> Vec<Vec<u8>> {
    let maps =
        shard_names(pool).filter_map(|name| caches.config_maps.get(namespace, &name).ok()?);
    maps.filter_map(|map| Some(map.binary_data.as_ref()?.get(SHARD_KEY)?.0.clone()))
        .collect()
}

/// The document that a pool's ConfigMaps hold; `None` where there is no whole one.
#[must_use]
pub fn last_document(caches: &Caches, namespace: &str, pool: &str) -> Option<WholeDocument> {
    let slices = written_shards(caches, namespace, pool);
    match shards::decode(&slices) {
        Ok(document) => Some(document),
        Err(error) if error.is_incomplete() => None,
        Err(error) => {
            tracing::error!(namespace, pool, %error, "the configuration in force cannot be read; it is compiled anew");
            None
        }
    }
}

/// The highest generation that any shard of a pool names, whether its document is whole or not: a leader
/// that died between two shards leaves one that is not, and what comes next is to be newer.
#[must_use]
pub fn highest_generation(caches: &Caches, namespace: &str, pool: &str) -> Option<u64> {
    let shards = written_shards(caches, namespace, pool);
    let headers = shards.iter().filter_map(|shard| {
        let header = shard.split(|byte| *byte == b'\n').next()?;
        let header: shards::ShardHeader = serde_json::from_slice(header).ok()?;
        Some(header.generation)
    });
    headers.max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pool(namespace: &str, created: &str, site: Value) -> Decoded<EdgePool> {
        serde_json::from_value(json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
            "metadata": {"name": "hq", "namespace": namespace, "uid": namespace, "resourceVersion": "1",
                "creationTimestamp": created},
            "spec": {"site": site, "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
                "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
                "certificate": {"selfSigned": {}}},
        }))
        .unwrap()
    }

    #[test]
    fn a_pool_that_cannot_be_decoded_keeps_its_domains_from_younger_ones_elsewhere() {
        let caches = Caches::new().0;
        let older = pool("a", "2026-01-01T00:00:00Z", json!(7));
        assert!(older.read().is_none());
        let younger = pool("b", "2026-02-01T00:00:00Z", json!("hq"));
        let epoch = caches.pools.epoch();
        caches.pools.created(older, epoch);
        caches.pools.created(younger, epoch);
        let inputs = world(&caches, "b", &References::default());
        assert!(inputs.pools.is_empty());
        let fault = inputs.broken.values().next().unwrap();
        assert_eq!(fault.fault.reason, Reason::DomainConflict);
    }
}
