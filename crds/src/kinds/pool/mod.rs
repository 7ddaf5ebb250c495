//! `EdgePool`: one site's edge proxies, what they serve and how they are reached.
//!
//! The objects that a cluster makes for it (Service, Pods, NetworkPolicy) are described in
//! [`workload`], what is known of it in [`status`].

pub mod certificate;
pub mod dns;
pub mod egress;
pub mod gateway;
pub mod sidecar;
mod sip;
pub mod status;
pub mod workload;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    conditions::ConditionType,
    fields::{self, ConfigMapKeyRef, SecretRef},
};
use crate::edge_config::{GatewayMode, Settings, VERSION, Version, WITHOUT_SIDECARS, WITHOUT_SIP};
pub use certificate::{
    CertManager, Certificate, Csr, IssuerRef, KeyAlgorithm, SelfSigned, Subject,
};
pub use dns::{Dns, ExternalDns, Rfc2136, TsigAlgorithm};
pub use egress::PoolEgressProxy;
pub use gateway::{GatewayNegotiation, GatewayTrust, PoolGateway};
pub use sidecar::{PoolSidecar, PoolSidecarKey, PoolSidecarTrust};
pub use sip::PoolSip;
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
    ConditionType::SidecarIdentity,
];

/// Specification of the edge proxies of one site.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "xmpp-edge.dev",
    version = "v1alpha1",
    kind = "EdgePool",
    plural = "edgepools",
    shortname = "epool",
    category = "xmpp",
    namespaced,
    selectable = ".spec.site",
    selectable = ".spec.accessEdge.fqdn",
    status = "PoolStatus",
    derive = "PartialEq",
    doc = "An EdgePool runs the edge proxies of one site: own domains, XMPP servers inside, certificates, DNS records.",
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
    printcolumn(name = "Certificate", type_ = "string", json_path = ".status.certificate.notAfter", priority = 1),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended", priority = 1),
    printcolumn(name = "Sidecars", type_ = "string", json_path = ".status.sidecars", priority = 1),
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
    validation = Rule::new("self.gateways.all(g, g.name == '' || self.gateways.all(o, o.name != '' || o.domains[0] != g.name))")
        .message("two gateways have the same name, which of one without spec.gateways[].name is its first domain: give it a name of its own")
        .field_path(".gateways"),
    validation = Rule::new("!has(self.certificate.certManager) || !has(self.certificate.certManager.commonName) || self.certificate.certManager.commonName == self.accessEdge.fqdn || self.certificate.certManager.commonName in self.domains")
        .message("the common name is one of the certificate's names: write one of spec.domains, or accessEdge.fqdn")
        .field_path(".certificate.certManager.commonName"),
)]
pub struct PoolSpec {
    /// Site of the pool. A user's home site is the site of the pool with the lowest
    /// `route.priority` that serves the user's domain; ExternalAccessPolicies of scope `Site` name
    /// it. Several pools may be of one site.
    #[schemars(schema_with = "fields::site")]
    pub site: String,
    /// Own domains of the organisation that this pool serves.
    #[schemars(schema_with = "fields::domains")]
    pub domains: Vec<String>,
    /// Host name and addresses at which partners reach the pool.
    pub access_edge: AccessEdge,
    /// Priority and weight of the pool's SRV records among the pools of its domains.
    #[serde(default)]
    pub route: Route,
    /// Number of proxy pods. Defaults to 1 with embedded contacts (`contacts.embedded`, the
    /// default), which one pod alone can keep, and to 2 with `contacts.postgres`. A pool with
    /// embedded contacts and more than one replica leaves `PublicUnverified` partners out.
    /// Standalone always runs one process. Set it before a HorizontalPodAutoscaler refers to the
    /// pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: Option<i32>,
    /// Ports of the pods and of their Services. A changed port replaces the pods; standalone needs
    /// a restart.
    #[serde(default)]
    pub listeners: PoolListeners,
    /// XMPP servers of the organisation. Each own domain has exactly one. Entries are told apart by
    /// `name`: of several, one at most may leave it out.
    #[schemars(
        length(min = 1, max = fields::MAX_DOMAINS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub gateways: Vec<PoolGateway>,
    /// Source of the certificate that partners see. Its subjectAltNames are every own domain and
    /// `accessEdge.fqdn`.
    pub certificate: Certificate,
    /// Publication of the pool's DNS records. Without it the records are only listed in
    /// `status.srvRecords`, for someone to publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Additional CA certificates used to verify partners, on top of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<PoolTrust>,
    /// Limits, timeouts and the dialback secret of the pool.
    #[serde(default)]
    pub settings: PoolSettings,
    /// Content that is let through in addition to the documented defaults.
    #[serde(default)]
    pub content: PoolContent,
    /// Kill switch of the pool: when true, all streams are closed at once and none is accepted.
    /// Defaults to false.
    #[serde(default)]
    pub suspended: bool,
    /// Store of the contacts that decide what `PublicUnverified` partners may send. Defaults to
    /// `embedded`. Standalone needs a restart when the kind of store changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<PoolContacts>,
    /// Service that partners connect to, named `<pool>-edge`.
    #[serde(default)]
    pub service: ServiceSpec,
    /// Service that the XMPP servers inside connect to, named `<pool>-internal`.
    #[serde(default)]
    pub internal_service: InternalServiceSpec,
    /// NetworkPolicy of the pods: who may connect to them, and where they may connect to.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
    /// Image of the proxy. Defaults to the operator's `--proxy-image` (chart value `proxyImage`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Settings of the pods beyond the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

impl PoolSpec {
    /// Pods that there should be: `replicas`, or as many as the store of contacts and SIP servers serve well.
    #[must_use]
    pub fn desired_replicas(&self) -> i32 {
        let several = self.has_database() && !self.speaks_sip();
        self.replicas.unwrap_or(if several { 2 } else { 1 })
    }

    /// Whether the server of a gateway speaks SIP.
    #[must_use]
    pub fn speaks_sip(&self) -> bool {
        self.gateways
            .iter()
            .any(|gateway| gateway.mode == GatewayMode::Sip)
    }

    /// The lowest version of a document that says all of the pool.
    #[must_use]
    pub fn document_version(&self) -> Version {
        if self.speaks_sip() {
            VERSION
        } else if self.gateways.iter().any(PoolGateway::takes_trunks) {
            WITHOUT_SIP
        } else {
            WITHOUT_SIDECARS
        }
    }

    /// Whether contacts live in PostgreSQL, so that several pods can share them.
    #[must_use]
    pub fn has_database(&self) -> bool {
        let contacts = self.contacts.as_ref();
        contacts.is_some_and(|contacts| contacts.postgres.is_some())
    }
}

/// `spec.accessEdge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessEdge {
    /// Host name of the edge (FQDN): target of the SRV records, and a name of the certificate.
    #[schemars(schema_with = "fields::domain")]
    pub fqdn: String,
    /// IP addresses of the host name, published as its A and AAAA records. Defaults to the
    /// addresses of the load balancer of `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::ip_addresses")]
    pub addresses: Option<Vec<String>>,
}

/// `spec.route`: priority and weight as in RFC 2782.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    /// Priority of the SRV records (RFC 2782): lower is tried first. Among the pools of a domain
    /// the one with the lowest priority, then the first by name, is the preferred one. Defaults to
    /// 10.
    #[schemars(range(min = 0, max = 65_535))]
    pub priority: u16,
    /// Weight of the SRV records (RFC 2782): the share among pools of equal priority. Defaults to
    /// 100.
    #[schemars(range(min = 0, max = 65_535))]
    pub weight: u16,
    /// Whether the pool is announced. When false, its SRV records are withdrawn, so that partners,
    /// and servers inside by the DNS view, go to other pools; once the TTL of the records has
    /// passed, the streams are closed in order. Connections that still arrive are served. Defaults
    /// to true.
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
    "rule": "[self.s2s, self.directTls, self.internal, self.admin, self.dns, self.sip, self.sipTcp].filter(p, p > 0).all(p, [self.s2s, self.directTls, self.internal, self.admin, self.dns, self.sip, self.sipTcp].exists_one(q, q == p))",
    "message": "two listeners have the same port: give each its own"
}]))]
pub struct PoolListeners {
    /// Port for partners by STARTTLS; a TLS ClientHello as first bytes is served as direct TLS.
    /// Defaults to 5269.
    #[schemars(range(min = 1, max = 65_535))]
    pub s2s: u16,
    /// Port for partners by direct TLS (XEP-0368). 0 switches it off. Defaults to 5270.
    #[schemars(range(min = 0, max = 65_535))]
    pub direct_tls: u16,
    /// Port for the XMPP servers inside, which reach partners here. Defaults to 23456.
    #[schemars(range(min = 1, max = 65_535))]
    pub internal: u16,
    /// Port of health checks, metrics and status over plain HTTP; it is never exposed to partners.
    /// Defaults to 9090.
    #[schemars(range(min = 1, max = 65_535))]
    pub admin: u16,
    /// Port of the DNS view, by which servers inside find partners at the edge. 0, the default,
    /// switches it off.
    #[schemars(range(min = 0, max = 65_535))]
    pub dns: u16,
    /// Port for SIP servers inside, by TLS. Opened only where a gateway of mode `Sip` has transport `Tls`. Defaults to
    /// 5061.
    #[schemars(range(min = 0, max = 65_535))]
    pub sip: u16,
    /// Port for SIP servers inside, by TCP. Opened only where a gateway of mode `Sip` has transport `Tcp`. 0, the
    /// default, switches it off.
    #[schemars(range(min = 0, max = 65_535))]
    pub sip_tcp: u16,
}
impl Default for PoolListeners {
    fn default() -> Self {
        Self {
            s2s: 5269,
            direct_tls: 5270,
            internal: 23_456,
            admin: 9090,
            dns: 0,
            sip: 5061,
            sip_tcp: 0,
        }
    }
}

/// `spec.trust` of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolTrust {
    /// ConfigMap key with CA certificates (PEM), each a root.
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
    },
    {
        "rule": "!has(self.dialExcept) || self.dialExcept.size() == 0 || !has(self.egressProxy) || self.egressProxy.nameResolution != 'Proxy'",
        "message": "the edge does not see the addresses of names that the egress proxy resolves, so that dialExcept cannot hold: put these networks into the proxy's own rules and take dialExcept out, or set egressProxy.nameResolution to Edge"
    }
]))]
pub struct PoolSettings {
    /// Maximum number of authenticated streams with partners on one replica; further ones are
    /// refused with `resource-constraint`. Defaults to 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub connection_limit: u32,
    /// Maximum number of authenticated streams with one partner on one replica; a partner's
    /// `connectionLimit` overrides it. Defaults to 20.
    #[schemars(range(min = 1, max = 100_000))]
    pub partner_connection_limit: u32,
    /// Seconds without traffic after which the edge sends a keep-alive to a peer. Defaults to 180,
    /// below the idle limits usual in firewalls and load balancers.
    #[schemars(range(min = 5, max = 86_400))]
    pub keep_alive_interval_seconds: u32,
    /// Seconds within which a stream must be authenticated. Defaults to 60.
    #[schemars(range(min = 1, max = 3_600))]
    pub stream_establishment_timeout_seconds: u32,
    /// Seconds without a stanza after which a stream is closed, where the partner's
    /// `enableKeepAlive` is false. Defaults to 600.
    #[schemars(range(min = 10, max = 604_800))]
    pub stream_inactivity_timeout_seconds: u32,
    /// Maximum size of a stanza in bytes (RFC 6120 section 13.12: at least 10,000). Defaults to
    /// 262144.
    #[schemars(range(min = 10_000, max = 16_777_216))]
    pub max_stanza_bytes: u32,
    /// Maximum memory in bytes of the queue of one pair of domains in one direction. Defaults to
    /// 1048576 (1 MiB).
    #[schemars(range(min = 10_000, max = 1_073_741_824))]
    pub queue_bytes: u64,
    /// Maximum memory in bytes of all queues of a replica together. Defaults to 268435456
    /// (256 MiB).
    #[schemars(range(min = 10_000, max = 68_719_476_736_u64))]
    pub queue_total_bytes: u64,
    /// Seconds that a stanza waits for a next hop before it is answered with an error, and that a
    /// peer has to answer a question of the edge. Defaults to 20.
    #[schemars(range(min = 1, max = 25))]
    pub queue_timeout_seconds: u32,
    /// Whether the bodies of messages are logged. When false, the default, no content of stanzas
    /// is.
    pub log_message_bodies: bool,
    /// Maximum size in bytes of an element before a stream is authenticated. Defaults to 10000.
    #[schemars(range(min = 10_000, max = 16_777_216))]
    pub unauthenticated_stanza_bytes: u32,
    /// Networks where no partner is dialled that DNS leads to, such as `10.0.0.0/8`; `proxyFqdn` and
    /// gateways are exempt. Absent: `networkPolicy.partnerEgressExcept`, else private, shared,
    /// unique-local, loopback and link-local networks, multicast, and NAT64 of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::cidrs")]
    pub dial_except: Option<Vec<String>>,
    /// Secret with the dialback secret under `secret` and, optionally, an older one that is still
    /// verified under `previous`. Defaults to the Secret `xmpp-edge-dialback`, which is generated
    /// once for all pools of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialback_secret_ref: Option<SecretRef>,
    /// SOCKS5 proxy by which partners are dialled; gateways, the database and DNS are not. Absent:
    /// partners are dialled directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<PoolEgressProxy>,
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
            egress_proxy: None,
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
pub struct PoolContent {
    /// XML namespaces of iq payloads that pass in addition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::uris")]
    pub iq_namespaces: Vec<String>,
    /// PEP nodes whose events pass between contacts in addition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::uris")]
    pub pep_nodes: Vec<String>,
    /// Message types that pass in addition.
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
pub struct PoolContacts {
    /// Embedded store on a PersistentVolumeClaim of the pool, for one replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedded: Option<EmbeddedContacts>,
    /// PostgreSQL database, shared by replicas and by the pools of a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresContacts>,
}

/// `contacts.embedded`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EmbeddedContacts {
    /// Size of the volume. A volume never shrinks: one that is larger stays. Defaults to 1Gi.
    #[schemars(schema_with = "fields::storage_size")]
    pub size: String,
    /// StorageClass of the volume. Defaults to the cluster's default one, which must exist then.
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
    /// Secret with the connection string under `url` (`postgresql://...`) and, optionally, CA
    /// certificates of the server under `ca.crt`.
    pub secret_ref: SecretRef,
}
