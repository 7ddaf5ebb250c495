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
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    pub external_traffic_policy: ExternalTrafficPolicy,
    pub ip_family_policy: IpFamilyPolicy,
    /// Every connection comes from a trusted source and begins with a PROXY header.
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
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// What the DNS view answers; absent: the load balancer's, else the cluster IP.
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
    pub enabled: bool,
    /// Who may reach the admin port beside the operator.
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::labels")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::labels")]
    pub node_selector: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::object_name")]
    pub priority_class_name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,
}
