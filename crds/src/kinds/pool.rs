//! `EdgePool`: one site's edge proxies, what they serve and how they are reached.
//!
//! The objects that a cluster makes for it (Service, Pods, NetworkPolicy) are described in
//! [`workload`], what is known of it in [`status`].

pub mod status;
pub mod workload;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{self, ConfigMapKeyRef, SecretRef};
use crate::{
    edge_config::{GatewayMode, Settings},
    negotiation::{Negotiation, Requirement},
};
pub use status::PoolStatus;
use workload::{InternalServiceSpec, NetworkPolicySpec, PodTemplate, ServiceSpec};

/// Longest name of a pool: names of objects are made from it.
pub const MAX_POOL_NAME: usize = 40;

/// The edge proxies of one site.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "xmpp-edge.dev",
    version = "v1alpha1",
    kind = "EdgePool",
    plural = "edgepools",
    shortname = "epool",
    category = "xmpp",
    namespaced,
    status = "PoolStatus",
    derive = "PartialEq",
    doc = "One site's edge proxies: own domains, the servers inside, certificates, records.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')")
        .message("a pool's name has at most 40 of a-z, 0-9 and \"-\", a letter first: choose another metadata.name"),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.site"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "DNS", type_ = "string", json_path = ".status.conditions[?(@.type=='DnsPublished')].status"),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".status.conditions[?(@.type=='GatewayReachable')].status"),
    printcolumn(name = "FQDN", type_ = "string", json_path = ".spec.accessEdge.fqdn", priority = 1),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.route.priority", priority = 1),
    printcolumn(name = "Certificate", type_ = "date", json_path = ".status.certificate.notAfter", priority = 1),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.domains.all(d, self.gateways.exists_one(g, d in g.domains))")
        .message("each own domain needs exactly one gateway: list every one of spec.domains in the domains of one entry of spec.gateways")
        .field_path(".gateways"),
    validation = Rule::new("self.gateways.all(g, g.domains.all(d, d in self.domains))")
        .message("a gateway lists a domain that is not an own domain: add it to spec.domains, or remove it from the gateway")
        .field_path(".gateways"),
)]
pub struct PoolSpec {
    /// The site of this pool; users whose home site it is follow its policy.
    #[schemars(schema_with = "fields::site")]
    pub site: String,
    /// The organisation's own domains that it serves.
    #[schemars(schema_with = "fields::domains")]
    pub domains: Vec<String>,
    /// How partners find it.
    pub access_edge: AccessEdge,
    /// Its SRV record.
    #[serde(default)]
    pub route: Route,
    /// Pods.
    #[serde(default = "two")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// Ports.
    #[serde(default)]
    pub listeners: Listeners,
    /// The organisation's own XMPP servers; each own domain has exactly one.
    #[schemars(
        length(min = 1, max = fields::MAX_DOMAINS),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub gateways: Vec<Gateway>,
    /// Where the certificate for partners comes from. Its names are every own domain and the FQDN.
    pub certificate: Certificate,
    /// How records are published; absent: they are only shown in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Extra roots for partners, beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<PoolTrust>,
    /// The XMPP gateway configuration: limits and times.
    #[serde(default)]
    pub settings: PoolSettings,
    /// What passes beyond the documented list.
    #[serde(default)]
    pub content: Content,
    /// Kill switch of the whole pool.
    #[serde(default)]
    pub suspended: bool,
    /// Where the contacts of unverified partners live; default: embedded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<Contacts>,
    /// The Service that partners reach.
    #[serde(default)]
    pub service: ServiceSpec,
    /// The Service that servers inside reach.
    #[serde(default)]
    pub internal_service: InternalServiceSpec,
    /// Who may reach the pods, and what they may reach.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
    /// The proxy's image; default: the operator's `--proxy-image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// What is added to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

fn two() -> i32 {
    2
}

/// `spec.accessEdge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessEdge {
    /// SRV target.
    #[schemars(schema_with = "fields::domain")]
    pub fqdn: String,
    /// Its addresses; absent: those of the Service's load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::ip_addresses")]
    pub addresses: Option<Vec<String>>,
}

/// `spec.route`: priority and weight as in RFC 2782.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    /// Lower is tried first.
    #[schemars(range(min = 0, max = 65_535))]
    pub priority: u16,
    /// Share among pools of one priority.
    #[schemars(range(min = 0, max = 65_535))]
    pub weight: u16,
    /// False withdraws the records, then drains.
    pub enabled: bool,
}
impl Default for Route {
    fn default() -> Self {
        Self {
            priority: 10,
            weight: 100,
            enabled: true,
        }
    }
}

/// `spec.listeners`: ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[self.s2s, self.directTls, self.internal, self.admin, self.dns].filter(p, p > 0).all(p, [self.s2s, self.directTls, self.internal, self.admin, self.dns].exists_one(q, q == p))",
    "message": "two listeners have the same port: give each its own"
}]))]
pub struct Listeners {
    /// STARTTLS.
    #[schemars(range(min = 1, max = 65_535))]
    pub s2s: u16,
    /// Direct TLS (XEP-0368); 0 is off.
    #[schemars(range(min = 0, max = 65_535))]
    pub direct_tls: u16,
    /// For servers inside.
    #[schemars(range(min = 1, max = 65_535))]
    pub internal: u16,
    /// Health, metrics, status.
    #[schemars(range(min = 1, max = 65_535))]
    pub admin: u16,
    /// DNS view for servers inside; 0 is off.
    #[schemars(range(min = 0, max = 65_535))]
    pub dns: u16,
}
impl Default for Listeners {
    fn default() -> Self {
        Self {
            s2s: 5269,
            direct_tls: 5270,
            internal: 23_456,
            admin: 9090,
            dns: 0,
        }
    }
}

/// The XMPP server of some own domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Own domains that it is authoritative for.
    #[schemars(schema_with = "fields::gateway_domains")]
    pub domains: Vec<String>,
    /// Who dials whom.
    #[serde(default = "direct")]
    pub mode: GatewayMode,
    /// `host:port` of the server.
    #[schemars(schema_with = "fields::host_port")]
    pub address: String,
    /// How it and the edge authenticate each other.
    #[serde(default)]
    pub negotiation: GatewayNegotiation,
    /// Certificates of its own PKI, accepted beside the internal CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<GatewayTrust>,
}

fn direct() -> GatewayMode {
    GatewayMode::Direct
}

/// `gateways[].negotiation`. Plaintext needs no opt-in here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.saslNegotiation == 'NotSupported' || self.tlsNegotiation != 'NotSupported'",
        "message": "saslNegotiation needs TLS, but tlsNegotiation is NotSupported: set saslNegotiation to NotSupported, or allow TLS"
    },
    {
        "rule": "self.saslNegotiation != 'NotSupported' || self.supportDialbackNegotiation",
        "message": "no authentication method is left: enable saslNegotiation, or set supportDialbackNegotiation to true"
    }
]))]
pub struct GatewayNegotiation {
    pub tls_negotiation: Requirement,
    pub sasl_negotiation: Requirement,
    pub support_dialback_negotiation: bool,
}
impl Default for GatewayNegotiation {
    fn default() -> Self {
        Self {
            tls_negotiation: Requirement::Required,
            sasl_negotiation: Requirement::Optional,
            support_dialback_negotiation: true,
        }
    }
}
impl From<&GatewayNegotiation> for Negotiation {
    fn from(gateway: &GatewayNegotiation) -> Self {
        Self {
            tls: gateway.tls_negotiation,
            sasl: gateway.sasl_negotiation,
            dialback: gateway.support_dialback_negotiation,
        }
    }
}

/// `gateways[].trust`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTrust {
    /// CA certificates (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapKeyRef>,
    /// Whether the public roots count too.
    #[serde(default)]
    pub public_roots: bool,
}

/// `spec.certificate`: exactly one mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.selfSigned), has(self.secretRef), has(self.certManager), has(self.csr)].filter(m, m).size() == 1",
    "message": "choose exactly one of selfSigned, secretRef, certManager and csr"
}]))]
pub struct Certificate {
    /// A CA of the pool's own: for trials and closed groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// A Secret with `tls.crt` and `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// cert-manager issues it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// The offline way: a request that someone signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<Csr>,
}

/// `certificate.selfSigned`: nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SelfSigned {}

/// `certificate.certManager`, in cert-manager's own formats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertManager {
    pub issuer_ref: IssuerRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::go_duration")]
    pub duration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::go_duration")]
    pub renew_before: Option<String>,
}

/// cert-manager's reference to an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuerRef {
    #[schemars(schema_with = "fields::object_name")]
    pub name: String,
    #[serde(default = "issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    #[serde(default = "issuer_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

fn issuer_kind() -> String {
    "Issuer".into()
}
fn issuer_group() -> String {
    "cert-manager.io".into()
}

/// `certificate.csr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Csr {
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,
    /// Distinguished name; absent: none but the names of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// The Secret whose `tls.crt` completes the request. The operator only reads it.
    pub chain_secret_ref: SecretRef,
}

/// The key of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum KeyAlgorithm {
    #[default]
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

/// A distinguished name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub common_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organization: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organizational_unit: Option<String>,
    /// Two letters (ISO 3166).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::country")]
    pub country: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub locality: Option<String>,
}

/// `spec.dns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.rfc2136) || has(self.externalDns)",
    "message": "name rfc2136, externalDns or both; to publish records yourself, leave spec.dns out"
}]))]
pub struct Dns {
    /// Dynamic updates under TSIG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rfc2136: Option<Rfc2136>,
    /// DNSEndpoint objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_dns: Option<ExternalDns>,
}

/// `dns.rfc2136`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rfc2136 {
    /// Primary server, `host` or `host:port` (53).
    #[schemars(schema_with = "fields::host_optional_port")]
    pub server: String,
    /// Zone of all names; absent: found by SOA, name by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::domain")]
    pub zone: Option<String>,
    /// Seconds.
    #[serde(default = "ttl")]
    #[schemars(range(min = 1, max = 86_400))]
    pub ttl: u32,
    /// Keys `name` and `secret` (base64).
    pub tsig_secret_ref: SecretRef,
    #[serde(default)]
    pub tsig_algorithm: TsigAlgorithm,
}

fn ttl() -> u32 {
    60
}

/// RFC 8945 section 6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TsigAlgorithm {
    #[default]
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// `dns.externalDns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExternalDns {
    /// Seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub ttl: u32,
}
impl Default for ExternalDns {
    fn default() -> Self {
        Self { ttl: ttl() }
    }
}

/// `spec.trust` of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolTrust {
    /// CA certificates (PEM).
    pub ca_config_map_ref: ConfigMapKeyRef,
}

/// `spec.settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.partnerConnectionLimit <= self.connectionLimit",
        "message": "partnerConnectionLimit is above connectionLimit: lower it, or raise connectionLimit"
    },
    {
        "rule": "self.queueBytes <= self.queueTotalBytes",
        "message": "queueBytes is above queueTotalBytes: lower it, or raise queueTotalBytes"
    },
    {
        "rule": "self.maxStanzaBytes <= self.queueBytes",
        "message": "a stanza of maxStanzaBytes does not fit into queueBytes: lower maxStanzaBytes, or raise queueBytes"
    },
    {
        "rule": "self.unauthenticatedStanzaBytes <= self.maxStanzaBytes",
        "message": "unauthenticatedStanzaBytes is above maxStanzaBytes: lower it"
    }
]))]
pub struct PoolSettings {
    /// Most authenticated streams of one replica.
    #[schemars(range(min = 1, max = 100_000))]
    pub connection_limit: u32,
    /// Most authenticated streams of one replica with one partner.
    #[schemars(range(min = 1, max = 100_000))]
    pub partner_connection_limit: u32,
    #[schemars(range(min = 5, max = 86_400))]
    pub keep_alive_interval_seconds: u32,
    #[schemars(range(min = 1, max = 3_600))]
    pub stream_establishment_timeout_seconds: u32,
    #[schemars(range(min = 10, max = 604_800))]
    pub stream_inactivity_timeout_seconds: u32,
    /// RFC 6120 section 13.12 asks for 10,000 at least.
    #[schemars(range(min = 10_000, max = 16_777_216))]
    pub max_stanza_bytes: u32,
    /// Memory that a pair's queue may hold.
    #[schemars(range(min = 10_000, max = 1_073_741_824))]
    pub queue_bytes: u64,
    /// Memory that all queues may hold.
    #[schemars(range(min = 10_000, max = 68_719_476_736_u64))]
    pub queue_total_bytes: u64,
    /// How long a stanza waits before it is answered.
    #[schemars(range(min = 1, max = 25))]
    pub queue_timeout_seconds: u32,
    /// Whether bodies of messages are logged.
    pub log_message_bodies: bool,
    #[schemars(range(min = 10_000, max = 16_777_216))]
    pub unauthenticated_stanza_bytes: u32,
    /// Keys `secret` and, still verified, `previous`; default: `xmpp-edge-dialback`, generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialback_secret_ref: Option<SecretRef>,
}
impl Default for PoolSettings {
    fn default() -> Self {
        let defaults = Settings::default();
        Self {
            connection_limit: defaults.connection_limit,
            partner_connection_limit: defaults.partner_connection_limit,
            keep_alive_interval_seconds: defaults.keep_alive_interval_seconds,
            stream_establishment_timeout_seconds: defaults.stream_establishment_timeout_seconds,
            stream_inactivity_timeout_seconds: defaults.stream_inactivity_timeout_seconds,
            max_stanza_bytes: defaults.max_stanza_bytes,
            queue_bytes: defaults.queue_bytes,
            queue_total_bytes: defaults.queue_total_bytes,
            queue_timeout_seconds: defaults.queue_timeout_seconds,
            log_message_bodies: defaults.log_message_bodies,
            unauthenticated_stanza_bytes: defaults.unauthenticated_stanza_bytes,
            dialback_secret_ref: None,
        }
    }
}
impl From<&PoolSettings> for Settings {
    fn from(settings: &PoolSettings) -> Self {
        Self {
            connection_limit: settings.connection_limit,
            partner_connection_limit: settings.partner_connection_limit,
            keep_alive_interval_seconds: settings.keep_alive_interval_seconds,
            stream_establishment_timeout_seconds: settings.stream_establishment_timeout_seconds,
            stream_inactivity_timeout_seconds: settings.stream_inactivity_timeout_seconds,
            max_stanza_bytes: settings.max_stanza_bytes,
            queue_bytes: settings.queue_bytes,
            queue_total_bytes: settings.queue_total_bytes,
            queue_timeout_seconds: settings.queue_timeout_seconds,
            log_message_bodies: settings.log_message_bodies,
            unauthenticated_stanza_bytes: settings.unauthenticated_stanza_bytes,
        }
    }
}

/// `spec.content`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Content {
    /// Namespaces of iq payloads that pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::uris")]
    pub iq_namespaces: Vec<String>,
    /// PEP nodes whose events pass between contacts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::uris")]
    pub pep_nodes: Vec<String>,
    /// Message types that pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::message_types")]
    pub message_types: Vec<String>,
}

/// `spec.contacts`: where the contacts of unverified partners live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.embedded) != has(self.postgres)",
    "message": "choose exactly one of embedded and postgres"
}]))]
pub struct Contacts {
    /// One replica, a volume of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedded: Option<EmbeddedContacts>,
    /// Shared by replicas, and by pools of one domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresContacts>,
}

/// `contacts.embedded`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EmbeddedContacts {
    /// Of the volume.
    #[schemars(schema_with = "fields::storage_size")]
    pub size: String,
    /// Absent: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::object_name")]
    pub storage_class_name: Option<String>,
}
impl Default for EmbeddedContacts {
    fn default() -> Self {
        Self {
            size: "1Gi".into(),
            storage_class_name: None,
        }
    }
}

/// `contacts.postgres`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresContacts {
    /// Keys `url` and, optional, `ca.crt`.
    pub secret_ref: SecretRef,
}
