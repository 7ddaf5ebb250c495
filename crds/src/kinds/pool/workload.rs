//! What a cluster makes for a pool: Services, pods, network policies.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{
        Affinity, EnvVar, HostAlias, LocalObjectReference, PodDNSConfig, ResourceRequirements,
        Toleration, TopologySpreadConstraint,
    },
    networking::v1::{NetworkPolicyEgressRule, NetworkPolicyPeer},
};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kinds::fields;

/// `spec.service`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = with_service_rules)]
pub struct ServiceSpec {
    /// Type of the Service: `LoadBalancer` (the default), `NodePort` or `ClusterIP`.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Labels of the Service beside the operator's own, as some load balancers select by them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Service, which configure many load balancers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Traffic policy of the Service for connections from outside. `Local`, the default, preserves
    /// the addresses of partners; `Cluster` replaces them with those of nodes.
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// IP families of the Service: `SingleStack`, `PreferDualStack` (the default) or
    /// `RequireDualStack`.
    pub ip_family_policy: IpFamilyPolicy,
    /// Class of the load balancer; type `LoadBalancer` only. Defaults to the cluster's default
    /// implementation. It cannot change while the Service exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::load_balancer_class")]
    pub load_balancer_class: Option<String>,
    /// Networks from which the load balancer accepts connections; type `LoadBalancer` only.
    /// Defaults to anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::cidrs_some")]
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// Whether the load balancer gets node ports; type `LoadBalancer` only. Defaults to true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// PROXY protocol in front of the pool: every connection comes from a trusted source and begins
    /// with a header. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Rules that both Services share.
fn with_service_rules(schema: &mut Schema) {
    let rules = [
        (
            "self.type == 'LoadBalancer' || !has(self.loadBalancerClass)",
            "loadBalancerClass is for type LoadBalancer alone: remove it, or change the type",
        ),
        (
            "self.type == 'LoadBalancer' || !has(self.loadBalancerSourceRanges)",
            "loadBalancerSourceRanges is for type LoadBalancer alone: remove it, or change the type",
        ),
        (
            "self.type == 'LoadBalancer' || !has(self.allocateLoadBalancerNodePorts)",
            "allocateLoadBalancerNodePorts is for type LoadBalancer alone: remove it, or change the type",
        ),
        (
            "!has(self.labels) || self.labels.all(k, !k.startsWith('app.kubernetes.io/') && !k.startsWith('xmpp-edge.dev/'))",
            OWN_LABELS,
        ),
    ];
    let rules = rules.map(|(rule, message)| json!({ "rule": rule, "message": message }));
    schema.insert("x-kubernetes-validations".to_owned(), json!(rules));
}

pub(super) const OWN_LABELS: &str =
    "labels of app.kubernetes.io/ and xmpp-edge.dev/ are the operator's: choose another prefix";
pub(super) const OWN_ANNOTATIONS: &str =
    "annotations of xmpp-edge.dev/ are the operator's: choose another prefix";

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            service_type: ServiceType::LoadBalancer,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            external_traffic_policy: ExternalTrafficPolicy::Local,
            ip_family_policy: IpFamilyPolicy::PreferDualStack,
            load_balancer_class: None,
            load_balancer_source_ranges: None,
            allocate_load_balancer_node_ports: None,
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
    /// Networks of the load balancer. Connections from elsewhere are refused.
    #[schemars(schema_with = "fields::cidrs_some")]
    pub trusted_sources: Vec<String>,
}

/// `spec.internalService`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = with_service_rules)]
pub struct InternalServiceSpec {
    /// Type of the Service: `ClusterIP` (the default), `NodePort` or `LoadBalancer`. With
    /// `listeners.dns` the Service has ports of TCP and UDP, which some load balancers refuse.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Labels of the Service beside the operator's own, as some load balancers select by them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Service, which configure many load balancers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Traffic policy of the Service for connections from outside of the cluster: `Cluster` (the
    /// default) or `Local`.
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// Class of the load balancer; type `LoadBalancer` only. Defaults to the cluster's default
    /// implementation. It cannot change while the Service exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::load_balancer_class")]
    pub load_balancer_class: Option<String>,
    /// Networks from which the load balancer accepts connections; type `LoadBalancer` only.
    /// Defaults to anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::cidrs_some")]
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// Whether the load balancer gets node ports; type `LoadBalancer` only. Defaults to true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// IP addresses of the internal listener that the DNS view answers. Defaults to those of the
    /// load balancer, else the cluster IP; in standalone to `--internal-bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::ip_addresses")]
    pub addresses: Option<Vec<String>>,
}
impl Default for InternalServiceSpec {
    fn default() -> Self {
        Self {
            service_type: ServiceType::ClusterIP,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            external_traffic_policy: ExternalTrafficPolicy::Cluster,
            load_balancer_class: None,
            load_balancer_source_ranges: None,
            allocate_load_balancer_node_ports: None,
            addresses: None,
        }
    }
}

/// `spec.networkPolicy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Whether the operator makes a NetworkPolicy for the pods. Defaults to true.
    pub enabled: bool,
    /// Peers that may connect to the admin port beside the operator, such as Prometheus.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub admin_from: Vec<NetworkPolicyPeer>,
    /// Peers that may connect to the internal listener and the DNS view. Defaults to anyone; where
    /// every gateway is of mode `Sidecar` and lists no `keys`, to the namespaces of the sidecars.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub internal_from: Option<Vec<NetworkPolicyPeer>>,
    /// Networks to which no connection to a partner is let out. Defaults to private and link-local
    /// ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::cidrs")]
    pub partner_egress_except: Option<Vec<String>>,
    /// Egress rules beside the operator's own: for a server inside whose pods listen on another port
    /// than their Service, or a resolver that the operator does not know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Vec<NetworkPolicyEgressRule>,
}
impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self {
            enabled: true,
            admin_from: vec![],
            internal_from: None,
            partner_egress_except: None,
            egress: vec![],
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
        "message": OWN_LABELS
    },
    {
        "rule": "!has(self.annotations) || self.annotations.all(k, !k.startsWith('xmpp-edge.dev/'))",
        "message": OWN_ANNOTATIONS
    },
    {
        "rule": "!has(self.annotations) || self.annotations.all(k, !k.startsWith('container.apparmor.security.beta.kubernetes.io/') && !k.startsWith('container.seccomp.security.alpha.kubernetes.io/') && k != 'seccomp.security.alpha.kubernetes.io/pod')",
        "message": "annotations that set AppArmor or seccomp profiles could weaken the restricted Pod Security standard: remove them"
    },
    {
        "rule": "!has(self.env) || self.env.all(e, !e.name.startsWith('XMPP_EDGE_'))",
        "message": "variables beginning with XMPP_EDGE_ are the operator's: set the field of the pool instead"
    },
    {
        "rule": "!has(self.dnsPolicy) || self.dnsPolicy != 'None' || (has(self.dnsConfig) && has(self.dnsConfig.nameservers) && self.dnsConfig.nameservers.size() > 0)",
        "message": "dnsPolicy None needs dnsConfig.nameservers: name one, or choose another policy"
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
    /// Resource requests and limits of the container, in place of the operator's: 100m CPU and
    /// 128Mi requested, memory limited to 256Mi and `settings.queueTotalBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Node selector of the pods: labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Topology spread constraints of the pods. One for `topology.kubernetes.io/zone` or
    /// `kubernetes.io/hostname` replaces the operator's own for that key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::object_name")]
    pub priority_class_name: Option<String>,
    /// Image pull Secrets of the pods. Default to chart value `imagePullSecrets`; the Secrets must
    /// be in the namespace of the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Image pull policy of the container: `Always`, `IfNotPresent` or `Never`. Defaults to that of
    /// Kubernetes: `Always` for the tag `latest`, else `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// RuntimeClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::object_name")]
    pub runtime_class_name: Option<String>,
    /// User, group and file-system group of the pods. Each defaults to 65532; with this field, what
    /// it leaves out is left out in the pods too: `{}` leaves all to the cluster, as OpenShift's
    /// security context constraints want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<PodIdentity>,
    /// DNS policy of the pods: `ClusterFirst` (the default), `Default` (the node's resolvers) or
    /// `None` (`dnsConfig` alone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<DnsPolicy>,
    /// Name servers, search list and options of the pods beside those of `dnsPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<PodDNSConfig>,
    /// Entries of the pods' hosts file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["ip"])
    )]
    pub host_aliases: Vec<HostAlias>,
    /// Environment variables of the container. Names that begin with `XMPP_EDGE_` are the
    /// operator's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,
}

/// `imagePullPolicy` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// `dnsPolicy` of a pod, as far as pods without the host's network can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DnsPolicy {
    ClusterFirst,
    Default,
    None,
}

/// `podTemplate.securityContext`: identities alone. Nothing of it can weaken the restricted Pod
/// Security standard; 0 is root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// User ID of the processes; the image runs with any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,
    /// Primary group ID of the processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,
    /// Group ID that owns the mounted Secrets and volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
}
