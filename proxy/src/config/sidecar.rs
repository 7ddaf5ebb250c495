//! What an engine is told that runs as a sidecar beside an XMPP server, and dials edge pods.
//!
//! It is the engine of an edge with one gateway of mode `Direct`, the server beside it, and with one
//! partner, whoever is not own, behind trunks. Knows no file and no trunk: where the settings come from is
//! the caller's to know.

use std::{fmt, sync::Arc};

use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{
        AccessRules, Contacts, Content, EdgeConfig, Gateway, GatewayMode, HostPort, Listeners,
        Partner, PartnerTrust, Settings, SidecarServers, VERSION,
    },
    negotiation::{MethodSet, Negotiation, Requirement},
    partner_type::PartnerType,
};
use zeroize::Zeroizing;

use super::{
    ConfigInputs, ConfigSecrets, PemPair,
    trunk_name::{ProductVersion, TrunkName},
};

/// Name of the one partner that a sidecar knows: label of its metrics.
pub const EVERYBODY: &str = "all";

/// All of it. Swapped as a whole, as [`ConfigInputs`] are: [`Self::into_inputs`] makes them.
#[derive(Clone)]
pub struct SidecarSettings {
    /// Which of the sidecars of its gateway it is; another one for as long as two of them run.
    pub instance: TrunkName,
    /// Of the program; an edge works with it that is one minor version apart at most.
    pub version: ProductVersion,
    pub servers: SidecarServers,
    /// One more with each changed content.
    pub generation: u64,
    pub namespace: String,
    /// The server beside it, in mode `Direct`: its domains are the own ones.
    pub server: Gateway,
    /// Own domains of every pool of the namespace; those of `server` may be missing.
    pub namespace_domains: Vec<DomainName>,
    /// Where edge pods listen: each address that a name has is one. At most 100 are dialled.
    pub edges: Vec<HostPort>,
    /// What edges are shown: SAN = the own domains, or a key that they list.
    pub identity: PemPair,
    /// PEM of the internal CA that edges' certificates are from: one certificate, two while it is renewed.
    pub internal_ca: String,
    /// The CA from which the server is shown leaves.
    pub leaf_issuer: PemPair,
    /// For dialback with the server; 16 octets at least.
    pub dialback_secret: Zeroizing<Vec<u8>>,
    /// Without which `/status` is not shown, where there is one.
    pub admin_token: Option<Zeroizing<String>>,
    /// `internal` is where the server connects to, `s2s` and `directTls` are off.
    pub listeners: Listeners,
    pub settings: Settings,
}

/// Secrets are in it: who it is is shown.
impl fmt::Debug for SidecarSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarSettings")
            .field("instance", &self.instance)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// How edges are dialled: what of the settings is not in the document of the engine.
#[derive(Debug)]
pub struct EdgeDials {
    pub instance: TrunkName,
    pub version: ProductVersion,
    pub servers: SidecarServers,
    pub edges: Vec<HostPort>,
}

impl SidecarSettings {
    /// What an engine is started with, or goes on with.
    #[must_use]
    pub fn into_inputs(self) -> ConfigInputs {
        let mut domains = self.server.domains.clone();
        domains.sort();
        let mut namespace_domains = self.namespace_domains;
        namespace_domains.extend_from_slice(&domains);
        namespace_domains.sort();
        namespace_domains.dedup();
        let config = EdgeConfig {
            version: VERSION,
            generation: self.generation,
            namespace: self.namespace,
            pool: self.instance.to_string(),
            site: String::new(),
            fqdn: domains.first().cloned().unwrap_or_else(nowhere),
            suspended: false,
            drain_after_seconds: None,
            domains,
            namespace_domains,
            listeners: self.listeners,
            gateways: vec![Gateway {
                mode: GatewayMode::Direct,
                ..self.server
            }],
            partners: vec![everybody()],
            access: AccessRules::default(),
            settings: self.settings,
            content: Content::default(),
            trust_ca: None,
            edges: Vec::new(),
            proxy_protocol_sources: Vec::new(),
            contacts: Contacts::Embedded,
        };
        let materials = ConfigSecrets {
            certificate: Some(self.identity),
            internal_ca: self.internal_ca,
            issuer: Some(self.leaf_issuer),
            dialback_secret: self.dialback_secret,
            dialback_previous: None,
            admin_token: self.admin_token,
            contacts_url: None,
            contacts_ca: None,
            egress_credentials: None,
            sip_pairs: Default::default(),
        };
        ConfigInputs {
            config: Arc::new(config),
            document_sha256: None,
            materials: Arc::new(materials),
            edge_dials: Some(Arc::new(EdgeDials {
                instance: self.instance,
                version: self.version,
                servers: self.servers,
                edges: self.edges,
            })),
        }
    }
}

/// Where a server without domains would be.
fn nowhere() -> DomainName {
    DomainName::parse("sidecar.invalid").expect("a domain name")
}

/// Whoever is not own. The edge judges who may talk.
fn everybody() -> Partner {
    let negotiation = Negotiation {
        tls: Requirement::Required,
        sasl: Requirement::Required,
        dialback: false,
    };
    Partner {
        name: EVERYBODY.to_owned(),
        domains: Vec::new(),
        partner_type: PartnerType::Federated,
        negotiation,
        methods: MethodSet::EXTERNAL,
        suspended: false,
        enable_keep_alive: true,
        connection_limit: u32::MAX,
        proxy_fqdn: None,
        stanzas_per_second: None,
        bytes_per_second: None,
        trust: PartnerTrust::default(),
        probe_interval_seconds: None,
        left_out: false,
        confirm_by_ping: false,
    }
}
