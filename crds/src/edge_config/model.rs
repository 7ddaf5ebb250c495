//! The model. Unknown fields are ignored; a proxy takes documents of its own minor version and the two
//! before. A document has the lowest version that says all of it, so that pods of earlier releases read it.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    domain::{DomainName, DomainPattern},
    jid::BareJid,
    negotiation::{KeyBinding, MethodSet, Negotiation},
    partner_type::PartnerType,
};

use super::{
    address::{GatewayAddress, HostPort, SipServers, SipService},
    sip::GatewaySip,
};

/// The newest version that this build reads and writes.
pub const VERSION: Version = Version { major: 1, minor: 2 };
/// The version of a document that says nothing of SIP.
pub const WITHOUT_SIP: Version = Version { major: 1, minor: 1 };
/// The version of a document that says nothing of sidecars either.
pub const WITHOUT_SIDECARS: Version = Version { major: 1, minor: 0 };

/// `major.minor` of the document's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl EdgeConfig {
    /// As [`admin_name`].
    #[must_use]
    pub fn admin_name(&self) -> String {
        admin_name(&self.namespace, &self.pool)
    }

    /// The names that the pool's certificate must cover: every own domain, and the FQDN.
    #[must_use]
    pub fn certificate_names(&self) -> Vec<DomainName> {
        let mut names = self.domains.clone();
        if !names.contains(&self.fqdn) {
            names.push(self.fqdn.clone());
        }
        names
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeConfig {
    pub version: Version,
    /// One more with each changed content.
    pub generation: u64,
    pub namespace: String,
    pub pool: String,
    pub site: String,
    /// SRV target of this pool, on the certificate beside the own domains.
    pub fqdn: DomainName,
    #[serde(default)]
    pub suspended: bool,
    /// The pool's records are withdrawn (`spec.route.enabled: false`): streams end in order once this
    /// has gone on, and they have stood, for so many seconds. By then nobody is led here any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_after_seconds: Option<u32>,
    /// Own domains, sorted.
    pub domains: Vec<DomainName>,
    /// Own domains of every pool of the namespace: `domains` and more. Wildcards pass them by.
    pub namespace_domains: Vec<DomainName>,
    pub listeners: Listeners,
    pub gateways: Vec<Gateway>,
    pub partners: Vec<Partner>,
    pub access: AccessRules,
    pub settings: Settings,
    #[serde(default)]
    pub content: Content,
    /// PEM: extra roots for partners beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_ca: Option<String>,
    /// Where inside servers find edges: every pool of the namespace, for the DNS view.
    #[serde(default)]
    pub edges: Vec<Edge>,
    /// CIDRs whose connections begin with a PROXY header; empty: no header is read.
    #[serde(default)]
    pub proxy_protocol_sources: Vec<IpNet>,
    pub contacts: Contacts,
}

/// Ports; 0 is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listeners {
    pub s2s: u16,
    pub direct_tls: u16,
    pub internal: u16,
    pub admin: u16,
    pub dns: u16,
    /// For SIP servers by TLS; open only where a gateway has it.
    #[serde(default, skip_serializing_if = "is_off")]
    pub sip: u16,
    /// For SIP servers by TCP, likewise.
    #[serde(default, skip_serializing_if = "is_off")]
    pub sip_tcp: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_off(port: &u16) -> bool {
    *port == 0
}

/// The organisation's own server for some own domains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// What it is called in metrics and in status; absent before minor 1: its first domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub domains: Vec<DomainName>,
    pub mode: GatewayMode,
    /// Where its server is. Never absent in modes `Direct` and `Sip`; in mode `Sidecar` it is for other servers
    /// inside alone, and the edge does not dial it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<GatewayAddress>,
    pub negotiation: Negotiation,
    pub methods: MethodSet,
    /// PEM accepted beside the internal CA, with SAN = the own domain; serverAuth alone suffices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_ca: Option<String>,
    #[serde(default)]
    pub trust_public_roots: bool,
    /// As of a partner.
    #[serde(default = "confirmed_by_ping")]
    pub confirm_by_ping: bool,
    /// Sidecars beside its server may open trunks. In mode `Direct` too: nothing is sent on those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<GatewaySidecar>,
    /// How its server is spoken to; there in mode `Sip` alone, and never absent there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<GatewaySip>,
    /// A sidecar's certificate of the internal CA counts only if it begins then or later: those before were
    /// taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_after: Option<Timestamp>,
}

impl Gateway {
    /// Whether sidecars may open trunks for it, used or not.
    #[must_use]
    pub fn takes_trunks(&self) -> bool {
        self.mode == GatewayMode::Sidecar || self.sidecar.is_some()
    }

    /// What it is called: its name, or its first domain.
    #[must_use]
    pub fn effective_name(&self) -> &str {
        let first = || self.domains.first().map_or("", DomainName::as_str);
        self.name.as_deref().unwrap_or_else(first)
    }

    /// Whether it says from which authority the server's certificate must be.
    #[must_use]
    pub fn key_binding(&self) -> KeyBinding {
        KeyBinding::of(self.trust_ca.is_some(), false, false)
    }

    /// Where its SIP servers are; none in other modes.
    #[must_use]
    pub fn sip_servers(&self) -> Option<SipServers> {
        let transport = self.sip.as_ref()?.transport;
        Some(match self.address.as_ref()? {
            GatewayAddress::At(server) => SipServers::At(server.clone(), transport),
            GatewayAddress::Named(host) => SipServers::Named(SipService {
                host: host.clone(),
                transport,
            }),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum GatewayMode {
    /// The edge dials `address`.
    Direct,
    /// A sidecar beside the server dials the edge.
    Sidecar,
    /// The server speaks SIP; it and the edge dial each other.
    Sip,
}

/// Who may open trunks for a gateway, and how several of them share what comes in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySidecar {
    /// Where their Secret is; none: in the pool's namespace. For the operator alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub server: SidecarServers,
    /// Keys of sidecars outside of the cluster, beside certificates of the internal CA.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<SidecarKey>,
    /// PEM: another issuer of sidecars' certificates, with SAN = the domains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_ca: Option<String>,
}

/// What the servers beside several sidecars of one gateway are to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SidecarServers {
    /// Worlds of their own: one gets what comes in, the others stand by.
    #[default]
    Single,
    /// One server: each gets a share of what comes in.
    Clustered,
}

/// One sidecar that is known by its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarKey {
    pub name: String,
    /// Lower-case hex of SHA-256 over the SubjectPublicKeyInfo.
    pub spki_sha256: String,
}

/// Name in the certificate of the admin ports of a pool's pods. It stands in no DNS: who asks the port names it.
#[must_use]
pub fn admin_name(namespace: &str, pool: &str) -> String {
    format!("{pool}.{namespace}.admin.xmpp-edge.internal")
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partner {
    /// The object's name: label `partner` in metrics.
    pub name: String,
    /// Primary domain first.
    pub domains: Vec<DomainPattern>,
    pub partner_type: PartnerType,
    pub negotiation: Negotiation,
    pub methods: MethodSet,
    #[serde(default)]
    pub suspended: bool,
    pub enable_keep_alive: bool,
    pub connection_limit: u32,
    /// Skips SRV discovery; without a port in the manifest 5269.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_fqdn: Option<HostPort>,
    /// Per stream direction; over it: slow down, never drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stanzas_per_second: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u32>,
    #[serde(default)]
    pub trust: PartnerTrust,
    /// Seconds between XEP-0199 probes; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_interval_seconds: Option<u32>,
    /// Left out of the pool's traffic although accepted, because contacts are not shared
    /// (`ContactsNotShared`): the proxy treats it as not allowed.
    #[serde(default)]
    pub left_out: bool,
    /// Whether pings (XEP-0199) confirm what was sent, where the peer acknowledges nothing.
    #[serde(default = "confirmed_by_ping")]
    pub confirm_by_ping: bool,
}

fn confirmed_by_ping() -> bool {
    true
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartnerTrust {
    /// PEM, in place of the public roots and the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Lower-case hex of SHA-256 over the SubjectPublicKeyInfo.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned_spki_sha256: Vec<String>,
    #[serde(default)]
    pub on_key_change: OnKeyChange,
    /// Keys seen before, same form as the pins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_spki_sha256: Vec<String>,
}

impl PartnerTrust {
    /// Whether it says which certificate the partner must have.
    #[must_use]
    pub fn key_binding(&self) -> KeyBinding {
        KeyBinding::of(
            self.ca.is_some(),
            !self.pinned_spki_sha256.is_empty(),
            self.on_key_change == OnKeyChange::Refuse,
        )
    }
}

/// What a changed partner key does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum OnKeyChange {
    #[default]
    Ignore,
    Warn,
    /// A new key is accepted only once it is pinned.
    Refuse,
}

/// Access policies in force, already free of conflicts: a user stands in at most one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRules {
    pub policies: Vec<AccessPolicy>,
    /// Home site of each own domain of this pool.
    pub home_sites: std::collections::BTreeMap<DomainName, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicy {
    pub name: String,
    pub scope: AccessScope,
    pub enable_federation_access: bool,
    pub enable_xmpp_access: bool,
    pub enable_public_cloud_access: bool,
    /// Partner object names; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partners: Option<Vec<String>>,
    #[serde(default)]
    pub mode: PolicyMode,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AccessScope {
    Global,
    /// Users whose home site it is.
    Site(String),
    User(Granted),
}

/// Who is granted a `User` policy, prepared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// Exact users: they beat a granted domain.
    pub users: Vec<BareJid>,
    /// `*@domain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<DomainName>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum PolicyMode {
    #[default]
    Enforce,
    /// Delivers what it would refuse, and counts and logs it.
    Audit,
}

/// `spec.settings` of the pool with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    pub connection_limit: u32,
    pub partner_connection_limit: u32,
    pub keep_alive_interval_seconds: u32,
    pub stream_establishment_timeout_seconds: u32,
    pub stream_inactivity_timeout_seconds: u32,
    pub max_stanza_bytes: u32,
    /// A pair's queue: memory held, in bytes.
    pub queue_bytes: u64,
    pub queue_total_bytes: u64,
    pub queue_timeout_seconds: u32,
    pub log_message_bodies: bool,
    pub unauthenticated_stanza_bytes: u32,
    /// Networks where no partner is dialled that DNS leads to.
    pub dial_except: Vec<IpNet>,
    /// The way to partners; absent: they are dialled directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<EgressProxy>,
}

/// A SOCKS5 proxy (RFC 1928) by which partners are dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressProxy {
    pub address: HostPort,
    #[serde(default)]
    pub name_resolution: NameResolution,
    /// User name and password (RFC 1929) arrive as files.
    #[serde(default)]
    pub has_credentials: bool,
}

/// Who resolves the host names of partners' servers. Services (SRV) are always looked up by the edge:
/// SOCKS5 knows no such question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum NameResolution {
    #[default]
    Edge,
    Proxy,
}

/// Where no partner is looked for unless the administrator says so: networks that are nobody's on
/// the Internet (RFC 6890), so that a partner's DNS does not lead the edge to what stands beside it.
/// Their forms in NAT64 and 6to4 are judged with them.
pub const NOT_PUBLIC: [&str; 18] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b:1::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            connection_limit: 1000,
            partner_connection_limit: 20,
            keep_alive_interval_seconds: 180,
            stream_establishment_timeout_seconds: 60,
            stream_inactivity_timeout_seconds: 600,
            max_stanza_bytes: 262_144,
            queue_bytes: 1_048_576,
            queue_total_bytes: 268_435_456,
            queue_timeout_seconds: 20,
            log_message_bodies: false,
            unauthenticated_stanza_bytes: 10_000,
            dial_except: NOT_PUBLIC
                .map(|network| network.parse().expect("NOT_PUBLIC holds networks"))
                .to_vec(),
            egress_proxy: None,
        }
    }
}

impl Settings {
    /// How long a proxy takes at most to stop in order: what is queued may wait its time, streams and
    /// the contacts' store are ended after it. Seconds; what a pod's grace period must leave after
    /// its `preStop`.
    #[must_use]
    pub fn longest_drain_seconds(&self) -> u32 {
        self.queue_timeout_seconds + DRAIN_MARGIN_SECONDS
    }
}

/// 5 s for streams to end after what was queued, 5 s more before they are cut, 5 s for contacts.
const DRAIN_MARGIN_SECONDS: u32 = 15;

/// What passes beyond the documented list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Content {
    pub iq_namespaces: Vec<String>,
    pub pep_nodes: Vec<String>,
    pub message_types: Vec<String>,
}

/// A pool's internal listener as the DNS view publishes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    pub pool: String,
    /// SRV target name inside.
    pub target: DomainName,
    pub addresses: Vec<std::net::IpAddr>,
    pub port: u16,
    /// For SIP servers by TLS; 0 where the pool has none.
    #[serde(default, skip_serializing_if = "is_off")]
    pub sip: u16,
    /// For SIP servers by TCP, likewise.
    #[serde(default, skip_serializing_if = "is_off")]
    pub sip_tcp: u16,
    pub priority: u16,
    pub weight: u16,
    /// How many pods the pool has; before minor 1 nobody asked.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub replicas: u16,
    /// Led to only where every other one is withdrawn too (`spec.route.enabled: false`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    /// Domains of the pool, so that a server is led to edges that serve its domain.
    pub domains: Vec<DomainName>,
}

fn one() -> u16 {
    1
}

fn is_one(replicas: &u16) -> bool {
    *replicas == 1
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contacts {
    /// One replica, a store of its own.
    #[default]
    Embedded,
    /// Shared; url and CA arrive as files.
    Postgres,
}
