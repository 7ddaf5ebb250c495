//! What is not the same in all clusters: the values of the template's slots.
//!
//! In a cluster they are variables of the policy, which the chart fills in; on the command line they are options.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// A value that the template leaves open. In the template it stands in braces by its [`Slot::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The label's value.
    Gateway,
    /// The pod's.
    Namespace,
    Image,
    PullPolicy,
    ClusterDomain,
    CpuRequest,
    MemoryRequest,
    MemoryLimit,
}

impl Slot {
    pub const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Namespace,
        Self::Image,
        Self::PullPolicy,
        Self::ClusterDomain,
        Self::CpuRequest,
        Self::MemoryRequest,
        Self::MemoryLimit,
    ];

    /// In the template, and as variable of the policy.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Namespace => "namespace",
            Self::Image => "image",
            Self::PullPolicy => "imagePullPolicy",
            Self::ClusterDomain => "clusterDomain",
            Self::CpuRequest => "cpuRequest",
            Self::MemoryRequest => "memoryRequest",
            Self::MemoryLimit => "memoryLimit",
        }
    }

    /// Whether the cluster says it; else the pod does.
    #[must_use]
    pub fn is_parameter(self) -> bool {
        !matches!(self, Self::Gateway | Self::Namespace)
    }
}

/// Variable of the policy with the container's security context.
pub const SECURITY_CONTEXT: &str = "securityContext";
/// Variable of the policy with the resolvers, joined by spaces.
pub const RESOLVERS: &str = "resolvers";

/// The values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarParameters {
    pub image: String,
    pub pull_policy: String,
    /// The cluster's own, which the sidecar asks what it does not answer.
    pub resolvers: Vec<SocketAddr>,
    /// Zone of the cluster's Services.
    pub cluster_domain: String,
    pub cpu_request: String,
    pub memory_request: String,
    pub memory_limit: String,
    /// Of the container, an object.
    pub security_context: Value,
}

impl SidecarParameters {
    /// As the chart has them by default.
    #[must_use]
    pub fn new(image: String, resolvers: Vec<SocketAddr>) -> Self {
        Self {
            image,
            pull_policy: "IfNotPresent".to_owned(),
            resolvers,
            cluster_domain: "cluster.local".to_owned(),
            cpu_request: "20m".to_owned(),
            memory_request: "32Mi".to_owned(),
            memory_limit: "128Mi".to_owned(),
            security_context: json!({
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
                "seccompProfile": { "type": "RuntimeDefault" },
            }),
        }
    }

    /// The value of a slot that the cluster says; of others nothing.
    #[must_use]
    pub fn value(&self, slot: Slot) -> &str {
        match slot {
            Slot::Gateway | Slot::Namespace => "",
            Slot::Image => &self.image,
            Slot::PullPolicy => &self.pull_policy,
            Slot::ClusterDomain => &self.cluster_domain,
            Slot::CpuRequest => &self.cpu_request,
            Slot::MemoryRequest => &self.memory_request,
            Slot::MemoryLimit => &self.memory_limit,
        }
    }
}
