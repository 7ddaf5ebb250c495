//! What a cluster makes for a pool: Services, pods, network policies.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{
        Affinity, EnvVar, LocalObjectReference, ResourceRequirements, Toleration,
        TopologySpreadConstraint,
    },
    networking::v1::NetworkPolicyPeer,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kinds::fields;

/// `spec.service`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Type of the Service.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Annotations of the Service, as load balancers want them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// `Local` keeps partners' addresses visible; `Cluster` hides them behind nodes'.
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// Address families of the Service.
    pub ip_family_policy: IpFamilyPolicy,
    /// For a load balancer that speaks the PROXY protocol: every connection comes from a trusted
    /// source and begins with its header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}
impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            service_type: ServiceType::LoadBalancer,
            annotations: BTreeMap::new(),
            external_traffic_policy: ExternalTrafficPolicy::Local,
            ip_family_policy: IpFamilyPolicy::PreferDualStack,
            proxy_protocol: None,
        }
    }
}

/// `type` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    LoadBalancer,
    NodePort,
    ClusterIP,
}

/// `externalTrafficPolicy` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExternalTrafficPolicy {
    Local,
    Cluster,
}

/// `ipFamilyPolicy` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IpFamilyPolicy {
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

/// `service.proxyProtocol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// Networks of the load balancer: whoever else connects is refused.
    #[schemars(schema_with = "fields::cidrs_some")]
    pub trusted_sources: Vec<String>,
}

/// `spec.internalService`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InternalServiceSpec {
    /// Type of the Service.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Annotations of the Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Addresses of the internal listener that the DNS view answers; absent: the load balancer's,
    /// else the cluster IP; standalone: `--internal-bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::ip_addresses")]
    pub addresses: Option<Vec<String>>,
}
impl Default for InternalServiceSpec {
    fn default() -> Self {
        Self {
            service_type: ServiceType::ClusterIP,
            annotations: BTreeMap::new(),
            addresses: None,
        }
    }
}

/// `spec.networkPolicy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Whether there is a NetworkPolicy for the pods.
    pub enabled: bool,
    /// Who may reach the admin port beside the operator, such as Prometheus.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub admin_from: Vec<NetworkPolicyPeer>,
    /// Who may reach the internal listener and the DNS view; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub internal_from: Option<Vec<NetworkPolicyPeer>>,
    /// Networks where no partner is dialled; absent: private and link-local ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::cidrs")]
    pub partner_egress_except: Option<Vec<String>>,
}
impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self {
            enabled: true,
            admin_from: vec![],
            internal_from: None,
            partner_egress_except: None,
        }
    }
}

/// `spec.podTemplate`: added to the pods. It has no field that could weaken the restricted Pod
/// Security standard, and its rules refuse the annotations that could.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.labels) || self.labels.all(k, !k.startsWith('app.kubernetes.io/') && !k.startsWith('xmpp-edge.dev/'))",
        "message": "labels of app.kubernetes.io/ and xmpp-edge.dev/ are the operator's: choose another prefix"
    },
    {
        "rule": "!has(self.annotations) || self.annotations.all(k, !k.startsWith('xmpp-edge.dev/'))",
        "message": "annotations of xmpp-edge.dev/ are the operator's: choose another prefix"
    },
    {
        "rule": "!has(self.annotations) || self.annotations.all(k, !k.startsWith('container.apparmor.security.beta.kubernetes.io/') && !k.startsWith('container.seccomp.security.alpha.kubernetes.io/') && k != 'seccomp.security.alpha.kubernetes.io/pod')",
        "message": "annotations that set AppArmor or seccomp profiles could weaken the restricted Pod Security standard: remove them"
    },
    {
        "rule": "!has(self.env) || self.env.all(e, !e.name.startsWith('XMPP_EDGE_'))",
        "message": "variables beginning with XMPP_EDGE_ are the operator's: set the field of the pool instead"
    }
]))]
pub struct PodTemplate {
    /// Labels of the pods beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Requests and limits of the container, in place of the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods put up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Where pods should be, and should not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How pods are spread. One for a zone or a host takes the place of the operator's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::object_name")]
    pub priority_class_name: Option<String>,
    /// Secrets for the registry of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Environment variables of the container; those that begin with `XMPP_EDGE_` are the
    /// operator's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,
}
