//! What the watches hold of a pool's objects, and what its plan needs beside spec and document.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::config::Host;
use xmpp_edge_crds::{
    edge_config::{
        EdgeConfig, HostPort,
        shards::{MAX_SHARDS, SHARD_KEY, ShardHeader, shard_name},
    },
    kinds::{EdgePool, pool::Certificate},
    postgres::ConnectionString,
};

use super::{
    plan::{
        ChildKind, deployment, names, pod,
        rollout::{self, Rollout, Stage},
    },
    sidecars,
};
use crate::{
    compile::NamespaceInputs,
    controllers::namespace::snapshot::{NamespaceSnapshot, OperatorConfig},
    proxy_status::WrittenDocuments,
    runtime::{caches::Caches, decoded::Decoded, store::UnreadError},
    secrets::database::DatabaseSecret,
};

/// The proxy's image where neither the pool nor the command line names one.
pub const DEFAULT_PROXY_IMAGE: &str = concat!("xmpp-edge-proxy:", env!("CARGO_PKG_VERSION"));

/// Pods of a pool that are ready.
#[must_use]
pub fn ready_replicas(caches: &Caches, namespace: &str, name: &str) -> i32 {
    let deployment = names::workload(name);
    let deployment = caches.deployments.get(namespace, &deployment);
    let status = deployment.as_ref().and_then(|it| it.status.as_ref());
    status.and_then(|it| it.ready_replicas).unwrap_or(0)
}

/// The image of pools that name none.
#[must_use]
pub fn proxy_image(settings: &OperatorConfig) -> pod::ProxyImage<'_> {
    pod::ProxyImage {
        reference: settings
            .proxy_image
            .as_deref()
            .unwrap_or(DEFAULT_PROXY_IMAGE),
        pull_secrets: &settings.proxy_pull_secrets,
    }
}

/// Default port of PostgreSQL.
const DATABASE_PORT: u16 = 5432;

/// An object as the watches last saw it; `None` also for kinds that are not watched.
///
/// # Errors
/// [`UnreadError`] where it is there and could not be read.
pub fn observed(
    caches: &Caches,
    kind: ChildKind,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, UnreadError> {
    fn value<T: Serialize>(object: Option<std::sync::Arc<T>>) -> Option<Value> {
        serde_json::to_value(object?.as_ref()).ok()
    }
    Ok(match kind {
        ChildKind::Certificate | ChildKind::Secret => None,
        ChildKind::ConfigMap => value(caches.config_maps.get(namespace, name)?),
        ChildKind::NetworkPolicy => value(caches.network_policies.get(namespace, name)),
        ChildKind::PodDisruptionBudget => value(caches.disruption_budgets.get(namespace, name)),
        ChildKind::Service => value(caches.services.get(namespace, name)),
        ChildKind::PersistentVolumeClaim => value(caches.volumes.get(namespace, name)),
        ChildKind::Deployment => value(caches.deployments.get(namespace, name)),
    })
}

/// The operator's pods, as a NetworkPolicy names them.
#[must_use]
pub fn operator_peer(namespace: &str) -> NetworkPolicyPeer {
    let labels = |pairs: &[(&str, &str)]| LabelSelector {
        match_labels: Some(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        ),
        ..LabelSelector::default()
    };
    NetworkPolicyPeer {
        namespace_selector: Some(labels(&[("kubernetes.io/metadata.name", namespace)])),
        pod_selector: Some(labels(&[
            ("app.kubernetes.io/part-of", "xmpp-edge"),
            ("app.kubernetes.io/component", "operator"),
        ])),
        ..NetworkPolicyPeer::default()
    }
}

/// Hosts and ports that the client library dials for a connection string; sockets of this machine are
/// none.
fn database_hosts(connection: &ConnectionString) -> Vec<HostPort> {
    let Ok(config) = connection.text.parse::<tokio_postgres::Config>() else {
        return Vec::new();
    };
    let addresses = config.get_hostaddrs();
    let hosts: Vec<String> = if addresses.is_empty() {
        let named = config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(_) => String::new(),
        });
        named.collect()
    } else {
        addresses.iter().map(ToString::to_string).collect()
    };
    let ports = config.get_ports();
    let port_of = |index: usize| {
        let port = ports
            .get(index)
            .or(ports.first().filter(|_| ports.len() == 1));
        port.copied().unwrap_or(DATABASE_PORT)
    };
    hosts
        .iter()
        .enumerate()
        .filter(|(_, host)| !host.is_empty())
        .filter_map(|(index, host)| {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            HostPort::parse(&host, Some(port_of(index))).ok()
        })
        .collect()
}

/// Where a pod finds what its kubelet says of DNS.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The operator's own resolvers: in a cluster those of every pod. What cannot be read names none.
#[must_use]
pub fn resolvers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    name_servers(&text)
}

fn name_servers(text: &str) -> Vec<IpAddr> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    // Loopback is the operator's own: a pod's is another.
    let addresses = lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses.filter(|ip| !ip.is_loopback()).collect()
}

/// Zone of the cluster's Services, as the operator's own search list has it.
#[must_use]
pub fn cluster_domain() -> String {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    zone_of_services(&text)
        .unwrap_or(sidecars::DEFAULT_CLUSTER_DOMAIN)
        .to_owned()
}

fn zone_of_services(text: &str) -> Option<&str> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("search"));
    let mut names = lines.flat_map(str::split_whitespace);
    names.find_map(|name| name.strip_prefix("svc."))
}

/// Hosts and ports of a pool's database, as far as its Secret can be read.
#[must_use]
pub fn database_of(world: &NamespaceInputs, pool: &EdgePool) -> Vec<HostPort> {
    let contacts = pool.spec.contacts.as_ref();
    let Some(postgres) = contacts.and_then(|contacts| contacts.postgres.as_ref()) else {
        return Vec::new();
    };
    let name = &postgres.secret_ref.name;
    DatabaseSecret::read(name, world.secrets.get(name))
        .map(|database| database_hosts(&database.connection))
        .unwrap_or_default()
}

/// The generation whose shards are all in place as they were written, with nothing beside them; `ours` are the
/// documents that this operator wrote or found.
#[must_use]
pub fn written(
    caches: &Caches,
    ours: &WrittenDocuments,
    namespace: &str,
    pool: &str,
) -> Option<u64> {
    let mut headers = Vec::new();
    for number in 0..MAX_SHARDS {
        let name = shard_name(pool, number);
        let Some(map) = caches.config_maps.get(namespace, &name).ok()? else {
            continue;
        };
        let shard = map.binary_data.as_ref()?.get(SHARD_KEY)?;
        let line = shard.0.split(|byte| *byte == b'\n').next()?;
        let header: ShardHeader = serde_json::from_slice(line).ok()?;
        (header.number == number).then_some(())?;
        headers.push(header);
    }
    let first = headers.first()?;
    let whole = headers.len() == first.count
        && headers.iter().all(|header| {
            (header.generation, &header.sha256, header.count)
                == (first.generation, &first.sha256, first.count)
        });
    let ours = whole && ours.has(first.generation, &first.sha256);
    ours.then_some(first.generation)
}

/// Where the pods of all pools of the namespace stand: who is to roll first.
#[must_use]
pub fn rollouts<'a>(
    scene: &'a NamespaceSnapshot,
    caches: &Caches,
    image: pod::ProxyImage<'_>,
) -> Vec<Rollout<'a>> {
    let pools = scene.world.pools.iter().filter_map(|pool| {
        let config = scene.config(pool.metadata.name.as_deref()?)?;
        Some((pool, config))
    });
    pools
        .map(|(pool, config)| Rollout {
            pool: &config.pool,
            priority: pool.spec.route.priority,
            domains: config
                .domains
                .iter()
                .map(|domain| domain.as_str())
                .collect::<BTreeSet<_>>(),
            stage: stage(pool, config, caches, image),
            at_once: pool
                .annotations()
                .get(rollout::ROLLOUT)
                .is_some_and(|value| value == rollout::AT_ONCE),
        })
        .collect()
}

fn stage(
    pool: &EdgePool,
    config: &EdgeConfig,
    caches: &Caches,
    image: pod::ProxyImage<'_>,
) -> Stage {
    let name = names::workload(&config.pool);
    let Some(held) = caches.deployments.get(&config.namespace, &name) else {
        return Stage::New;
    };
    let template = pod::template(pool, config, image);
    if deployment::is_rolling(&held) {
        Stage::Rolling
    } else if deployment::template_of(&held) == Some(&deployment::print_of(&template)) {
        Stage::Settled
    } else {
        Stage::Waiting
    }
}

/// Addresses of a Service's load balancer, and its host names.
#[must_use]
pub fn balancer(service: Option<&Service>) -> (Vec<String>, Vec<String>) {
    let status = service.and_then(|service| service.status.as_ref());
    let ingress = status
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_ref());
    let mut addresses = Vec::new();
    let mut hosts = Vec::new();
    for point in ingress.into_iter().flatten() {
        addresses.extend(point.ip.clone());
        hosts.extend(point.hostname.clone());
    }
    (addresses, hosts)
}

/// What a pool asks for as its certificate, as far as that can be read.
#[must_use]
pub fn certificate(pool: &Decoded<EdgePool>) -> Option<Cow<'_, Certificate>> {
    match pool {
        Decoded::Valid(pool) => Some(Cow::Borrowed(&pool.spec.certificate)),
        Decoded::Undecodable(object) => {
            let certificate = object.spec.get("certificate")?;
            serde_json::from_value(certificate.clone())
                .ok()
                .map(Cow::Owned)
        }
    }
}

/// Whether a pool's own kill switch is on, as far as that can be read.
#[must_use]
pub fn is_suspended(pool: &Decoded<EdgePool>) -> bool {
    match pool {
        Decoded::Valid(pool) => pool.spec.suspended,
        Decoded::Undecodable(object) => object.suspended == Some(true),
    }
}

/// The pool of this name as it stands in the world, where it can be read and has its domains.
#[must_use]
pub fn readable<'a>(scene: &'a NamespaceSnapshot, name: &str) -> Option<&'a EdgePool> {
    scene
        .world
        .pools
        .iter()
        .find(|pool| pool.name_any() == name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn resolvers_are_those_that_every_pod_has() {
        let text = "search a.svc\nnameserver 10.96.0.10\n nameserver\tfd00::a\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\noptions ndots:5";
        let found: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.96.0.10", "fd00::a"]);
    }

    #[test]
    fn k20_the_policy_opens_the_ports_that_the_client_dials() {
        for (url, expected) in [
            ("postgres://u:p@db.example/x", "db.example:5432"),
            (
                "postgresql://u:p@10.0.0.1:6432/x?sslmode=require",
                "10.0.0.1:6432",
            ),
            (
                "postgres://a.example,b.example:5433/x",
                "a.example:5432 b.example:5433",
            ),
            ("postgres://u@[fd00::1]:5432", "[fd00::1]:5432"),
            ("postgres://u@%2Fvar%2Frun/x", ""),
            ("host=db.example user=u", "db.example:5432"),
            ("host=h.example port=6432 user=u dbname=d", "h.example:6432"),
            ("postgres:///db?host=h.example&port=6432", "h.example:6432"),
            ("postgres://u:a/b@h.example:6432/d", "h.example:6432"),
            (
                "host=a.example,b.example port=6432 user=u",
                "a.example:6432 b.example:6432",
            ),
            (
                "host=h.example hostaddr=10.0.0.9 port=6432 user=u",
                "10.0.0.9:6432",
            ),
        ] {
            let connection = ConnectionString::parse(url).unwrap();
            let found: Vec<String> = database_hosts(&connection)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found.join(" "), expected, "{url}");
        }
    }
}
