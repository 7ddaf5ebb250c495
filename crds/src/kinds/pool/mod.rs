//! `EdgePool`: one site's edge proxies, what they serve and how they are reached.
//!
//! The objects that a cluster makes for it (Service, Pods, NetworkPolicy) are described in
//! [`workload`], what is known of it in [`status`].

pub mod certificate;
pub mod dns;
pub mod status;
pub mod workload;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    conditions::ConditionType,
    fields::{self, ConfigMapKeyRef, SecretRef},
};
use crate::{
    edge_config::{GatewayMode, Settings},
    negotiation::{KeyBinding, MethodSet, Negotiation, NegotiationError, Requirement},
};
pub use certificate::{
    CertManager, Certificate, Csr, IssuerRef, KeyAlgorithm, SelfSigned, Subject,
};
pub use dns::{Dns, ExternalDns, Rfc2136, TsigAlgorithm};
pub use status::PoolStatus;
use workload::{InternalServiceSpec, NetworkPolicySpec, PodTemplate, ServiceSpec};

/// Longest name of a pool: names of objects are made from it.
pub const MAX_POOL_NAME: usize = 40;

/// The conditions of a pool, in the order of its status.
pub const CONDITIONS: &[ConditionType] = &[
    ConditionType::Ready,
    ConditionType::Accepted,
    ConditionType::CertificateReady,
    ConditionType::ConfigReplicated,
    ConditionType::DnsPublished,
    ConditionType::GatewayReachable,
];

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
    /// Name of the site; users whose home site it is follow its policy. Several pools may be of
    /// one site.
    #[schemars(schema_with = "fields::site")]
    pub site: String,
    /// The organisation's own domains that it serves.
    #[schemars(schema_with = "fields::domains")]
    pub domains: Vec<String>,
    /// How partners find it.
    pub access_edge: AccessEdge,
    /// Its place among the pools of its domains: priority and weight of its SRV records.
    #[serde(default)]
    pub route: Route,
    /// Number of pods. Standalone is always one.
    #[serde(default = "two")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// Ports of the pods and their Services. Changed ports replace the pods; standalone needs a
    /// restart.
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
    /// Roots for partners beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<PoolTrust>,
    /// The XMPP gateway configuration: limits, times, the dialback secret.
    #[serde(default)]
    pub settings: PoolSettings,
    /// What passes beyond the content that always does.
    #[serde(default)]
    pub content: Content,
    /// Kill switch of the whole pool: streams are closed at once, nothing is accepted.
    #[serde(default)]
    pub suspended: bool,
    /// Where the contacts of `PublicUnverified` partners live; absent: `embedded`. Standalone
    /// needs a restart when the kind of store changes.
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
    /// Host name of the edge: target of the SRV records, and a name of the certificate.
    #[schemars(schema_with = "fields::domain")]
    pub fqdn: String,
    /// Addresses of the host name, published as its A and AAAA; absent: those of the Service's
    /// load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::ip_addresses")]
    pub addresses: Option<Vec<String>>,
}

/// `spec.route`: priority and weight as in RFC 2782.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    /// Lower is tried first (RFC 2782). The pool of lowest priority, then first by name, is the
    /// preferred one of its domains.
    #[schemars(range(min = 0, max = 65_535))]
    pub priority: u16,
    /// Share among pools of one priority (RFC 2782).
    #[schemars(range(min = 0, max = 65_535))]
    pub weight: u16,
    /// False withdraws the SRV records, so that partners, and servers inside by the DNS view, go to
    /// other pools; then drains: streams end in order once the records have run out everywhere.
    /// Who comes all the same is served.
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
    /// Partners by STARTTLS; a TLS ClientHello as first bytes is served as direct TLS.
    #[schemars(range(min = 1, max = 65_535))]
    pub s2s: u16,
    /// Partners by direct TLS (XEP-0368); 0 is off.
    #[schemars(range(min = 0, max = 65_535))]
    pub direct_tls: u16,
    /// Servers inside, which reach partners here.
    #[schemars(range(min = 1, max = 65_535))]
    pub internal: u16,
    /// Health, metrics, status: plain HTTP, never for partners.
    #[schemars(range(min = 1, max = 65_535))]
    pub admin: u16,
    /// DNS view, by which servers inside find partners at the edge; 0 is off.
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
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.trust) || !has(self.trust.caConfigMapRef) || !has(self.negotiation) || self.negotiation.saslNegotiation != 'NotSupported'",
        "message": "a pinned key, an own CA and onKeyChange: Refuse bind the certificate, which dialback does not prove, so that no authentication method is left: set saslNegotiation to Required or Optional, or take them out of trust"
    }
]))]
pub struct Gateway {
    /// Own domains that this server is authoritative for.
    #[schemars(schema_with = "fields::gateway_domains")]
    pub domains: Vec<String>,
    /// Who dials whom. `Direct`: the edge dials `address`. `Sidecar` is not served by this
    /// version: a pool with it is not accepted.
    #[serde(default = "direct")]
    pub mode: GatewayMode,
    /// `host:port` of the server; an IPv6 address stands in brackets. A name is whole
    /// (`prosody.chat.svc.cluster.local`): search lists do not apply.
    #[schemars(schema_with = "fields::host_port")]
    pub address: String,
    /// How the server and the edge authenticate each other. Plaintext needs no opt-in inside.
    #[serde(default)]
    pub negotiation: GatewayNegotiation,
    /// Certificates of the server's own PKI, accepted beside the internal CA; absent: the internal
    /// CA alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<GatewayTrust>,
}

impl Gateway {
    /// Whether `trust` says from which authority the server's certificate must be.
    #[must_use]
    pub fn key_binding(&self) -> KeyBinding {
        let own_ca = self
            .trust
            .as_ref()
            .is_some_and(|trust| trust.ca_config_map_ref.is_some());
        KeyBinding::of(own_ca, false, false)
    }

    /// The methods that `negotiation` and `trust` leave usable.
    ///
    /// # Errors
    /// As [`Negotiation::methods`].
    pub fn methods(&self) -> Result<MethodSet, NegotiationError> {
        Negotiation::from(&self.negotiation).methods(self.key_binding())
    }
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
    /// Whether streams are encrypted: `Required`, `Optional`, `NotSupported`.
    pub tls_negotiation: Requirement,
    /// Whether domains are authenticated by certificate (SASL EXTERNAL): `Required`, `Optional`,
    /// `NotSupported`.
    pub sasl_negotiation: Requirement,
    /// Whether domains may be authenticated by Server Dialback.
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
    /// CA certificates (PEM) that the server's certificate may come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapKeyRef>,
    /// Whether the public roots count too, as for a server with a certificate of a public CA.
    #[serde(default)]
    pub public_roots: bool,
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
    /// Most authenticated streams with partners of one replica; the one too many gets `resource-
    /// constraint`.
    #[schemars(range(min = 1, max = 100_000))]
    pub connection_limit: u32,
    /// Most authenticated streams of one replica with one partner; a partner's `connectionLimit`
    /// overrides it.
    #[schemars(range(min = 1, max = 100_000))]
    pub partner_connection_limit: u32,
    /// Seconds of silence after which the edge asks a peer for a sign of life.
    #[schemars(range(min = 5, max = 86_400))]
    pub keep_alive_interval_seconds: u32,
    /// Seconds that a stream has to authenticate.
    #[schemars(range(min = 1, max = 3_600))]
    pub stream_establishment_timeout_seconds: u32,
    /// Seconds without a stanza after which a stream ends, where the partner's `enableKeepAlive`
    /// is false.
    #[schemars(range(min = 10, max = 604_800))]
    pub stream_inactivity_timeout_seconds: u32,
    /// Largest stanza, in bytes; RFC 6120 section 13.12 asks for 10,000 at least. A larger one
    /// ends the stream.
    #[schemars(range(min = 10_000, max = 16_777_216))]
    pub max_stanza_bytes: u32,
    /// Bytes of memory that the queue of one pair of domains may hold in one direction.
    #[schemars(range(min = 10_000, max = 1_073_741_824))]
    pub queue_bytes: u64,
    /// Bytes of memory that all queues of a replica may hold.
    #[schemars(range(min = 10_000, max = 68_719_476_736_u64))]
    pub queue_total_bytes: u64,
    /// Seconds that a stanza waits before it is answered, and that a question to a peer may take.
    #[schemars(range(min = 1, max = 25))]
    pub queue_timeout_seconds: u32,
    /// Whether bodies of messages are logged. Off, no content of a stanza is.
    pub log_message_bodies: bool,
    /// Largest element before a stream is authenticated, in bytes.
    #[schemars(range(min = 10_000, max = 16_777_216))]
    pub unauthenticated_stanza_bytes: u32,
    /// Networks where no partner is dialled that DNS leads to, such as `10.0.0.0/8`; `proxyFqdn` and
    /// gateways are exempt. Absent: `networkPolicy.partnerEgressExcept`, else private, shared,
    /// unique-local, loopback and link-local networks, multicast, and NAT64 of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::cidrs")]
    pub dial_except: Option<Vec<String>>,
    /// Secret with the dialback secret: `secret` and, still verified, `previous`; absent: `xmpp-
    /// edge-dialback`, generated once for all pools of the namespace.
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
            dial_except: None,
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
            ..Self::default()
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
    /// Values of `type` of messages that pass.
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
    /// One replica, with a volume of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedded: Option<EmbeddedContacts>,
    /// A PostgreSQL database, shared by replicas and by pools of one domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresContacts>,
}

/// `contacts.embedded`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EmbeddedContacts {
    /// Size of the volume.
    #[schemars(schema_with = "fields::storage_size")]
    pub size: String,
    /// Storage class of the volume; absent: the cluster's default.
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
    /// Secret with `url` (`postgresql://...`) and, optional, `ca.crt`.
    pub secret_ref: SecretRef,
}
