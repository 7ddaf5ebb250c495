//! Which objects a pool needs: a pure function of its spec, its document and a few facts.
//!
//! Ports, gateways and limits come from the document in force, so that pods and document agree even
//! while the spec is not accepted; what only a cluster knows of (replicas, Services, pods) comes
//! from the spec. One child kind a file. It must not do I/O, and `render` prints what it says.

pub mod certificate;
pub mod child;
pub mod deployment;
pub mod disruption;
pub mod metadata;
pub mod names;
pub mod network;
pub mod pod;
pub mod rollout;
pub mod secrets;
pub mod service;
pub mod shards;
pub mod volume;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use k8s_openapi::api::{core::v1::PersistentVolumeClaim, networking::v1::NetworkPolicyPeer};
use kube::ResourceExt;
use xmpp_edge_crds::{
    edge_config::{EdgeConfig, HostPort, shards::EncodeError},
    kinds::EdgePool,
};

pub use child::{Child, ChildKind};

/// What the plan cannot read from spec and document.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Where `spec.image` says nothing.
    pub proxy_image: pod::ProxyImage<'a>,
    /// The operator's pods: they read the admin port.
    pub operator: Option<NetworkPolicyPeer>,
    /// Resolvers of the operator itself: those of pods of the cluster, where it runs in one.
    pub resolvers: Vec<IpAddr>,
    /// Hosts and ports of the contacts' database, where its Secret could be read.
    pub database: Vec<HostPort>,
    /// The contacts' volume as it is: its storage class cannot be changed.
    pub volume: Option<&'a PersistentVolumeClaim>,
    /// The generation whose shards are all in place, as they were written: they are neither packed nor planned again.
    pub written: Option<u64>,
    /// The pool of a shared domain whose pods are to be replaced first, where there is one.
    pub after: Option<String>,
}

/// What there should be, and what there should not be any more.
#[derive(Debug)]
pub struct PoolPlan {
    /// In the order of writing: what pods mount comes before the pods.
    pub children: Vec<Child>,
    /// Objects of this pool that an earlier plan may have made.
    pub absent: Vec<(ChildKind, String)>,
    /// Pods are not replaced before those of this pool; the Deployment's template stays meanwhile.
    pub held_by: Option<String>,
    /// Hash of the document that is among the children, where one is to be written.
    pub document_sha256: Option<String>,
    /// The document cannot be written: the one in place stays.
    pub too_large: Option<EncodeError>,
}

impl PoolPlan {
    /// The child of a kind and name.
    #[must_use]
    pub fn child(&self, kind: ChildKind, name: &str) -> Option<&Child> {
        self.children
            .iter()
            .find(|child| child.kind() == kind && child.name() == name)
    }
}

/// Plans one pool. `config` is its document in force.
#[must_use]
pub fn plan(pool: &EdgePool, config: &EdgeConfig, facts: &Facts<'_>) -> PoolPlan {
    let name = pool.name_any();
    let mut children = Vec::new();
    let mut absent = Vec::new();
    let mut optional = |child: Option<Child>, kind: ChildKind, name: String| match child {
        Some(child) => children.push(child),
        None => absent.push((kind, name)),
    };
    let workload = || names::workload(&name);
    optional(
        certificate::plan(pool, config),
        ChildKind::Certificate,
        workload(),
    );
    optional(
        network::plan(pool, config, facts),
        ChildKind::NetworkPolicy,
        workload(),
    );
    optional(
        disruption::plan(pool),
        ChildKind::PodDisruptionBudget,
        workload(),
    );
    children.extend(service::plan(pool, config));
    // It stays where no gateway takes trunks any more, until the pool goes: it leads nobody anywhere then.
    children.extend(service::trunks(pool, config));
    children.extend(volume::plan(pool, facts.volume));
    let (mut too_large, mut document_sha256) = (None, None);
    if facts.written != Some(config.generation) {
        match shards::plan(pool, config) {
            Ok(document) => {
                let surplus = shards::surplus(&name, document.shards.len());
                absent.extend(surplus.map(|name| (ChildKind::ConfigMap, name)));
                children.extend(document.shards);
                document_sha256 = Some(document.sha256);
            }
            Err(error) => too_large = Some(error),
        }
    }
    children.push(deployment::plan(pool, config, facts));
    PoolPlan {
        children,
        absent,
        held_by: facts.after.clone(),
        document_sha256,
        too_large,
    }
}
