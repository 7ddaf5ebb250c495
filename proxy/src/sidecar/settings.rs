//! From what a sidecar has to what its engine is told: a pure function.

use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Gateway, GatewayMode, HostPort, Listeners, Settings},
    sidecar_config::{SidecarConfig, SidecarLimits},
};
use zeroize::Zeroizing;

use super::LoopbackAuthority;
use crate::config::{
    PemPair,
    sidecar::SidecarSettings,
    trunk_name::{ProductVersion, TrunkName},
};

/// What is said once, on the command line or by the process itself.
#[derive(Clone)]
pub struct SidecarConstants {
    /// The pod's or host's name.
    pub instance: TrunkName,
    pub version: ProductVersion,
    /// In place of the document's `server.address`.
    pub server: Option<HostPort>,
    /// Beside the document's `edges`.
    pub edges: Vec<HostPort>,
    /// Where the server connects to, on loopback.
    pub port: u16,
    /// For dialback with the server; 16 octets or more.
    pub dialback_secret: Zeroizing<Vec<u8>>,
}

/// A secret is in it: who it is is shown.
impl std::fmt::Debug for SidecarConstants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SidecarConstants")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// What changes while it runs, each part whole and good.
#[derive(Clone, Copy, Debug)]
pub struct SidecarParts<'a> {
    pub config: &'a SidecarConfig,
    /// What edges are shown.
    pub identity: &'a PemPair,
    /// PEM of the internal CA.
    pub internal_ca: &'a str,
    pub authority: &'a LoopbackAuthority,
    pub admin_token: Option<&'a Zeroizing<String>>,
}

/// What the engine goes on with; `generation` is one more with each change.
#[must_use]
pub fn settings(
    constants: &SidecarConstants,
    parts: SidecarParts<'_>,
    generation: u64,
) -> SidecarSettings {
    let config = parts.config;
    let server = &config.server;
    let mut edges = config.edges.clone();
    let more = constants.edges.iter();
    edges.extend(more.filter(|edge| !config.edges.contains(edge)).cloned());
    SidecarSettings {
        instance: constants.instance.clone(),
        version: constants.version,
        servers: server.mode,
        generation,
        namespace: config.namespace.clone(),
        server: Gateway {
            name: Some(config.name.clone()),
            domains: config.domains.clone(),
            mode: GatewayMode::Direct,
            address: Some(
                constants
                    .server
                    .as_ref()
                    .unwrap_or(&server.address)
                    .clone()
                    .into(),
            ),
            negotiation: server.negotiation,
            methods: server.methods,
            trust_ca: server.trust_ca.clone(),
            trust_public_roots: server.trust_public_roots,
            confirm_by_ping: true,
            sidecar: None,
            sip: None,
            issued_after: None,
        },
        namespace_domains: own(config),
        edges,
        identity: parts.identity.clone(),
        internal_ca: parts.internal_ca.to_owned(),
        leaf_issuer: parts.authority.pair().clone(),
        dialback_secret: constants.dialback_secret.clone(),
        admin_token: parts.admin_token.cloned(),
        listeners: Listeners {
            s2s: 0,
            direct_tls: 0,
            internal: constants.port,
            admin: 0,
            dns: 0,
            sip: 0,
            sip_tcp: 0,
        },
        settings: bounded(config.limits),
    }
}

fn own(config: &SidecarConfig) -> Vec<DomainName> {
    let mut own: Vec<_> = config.own_domains().cloned().collect();
    own.sort();
    own
}

fn bounded(limits: SidecarLimits) -> Settings {
    Settings {
        max_stanza_bytes: limits.max_stanza_bytes,
        queue_bytes: limits.queue_bytes,
        queue_total_bytes: limits.queue_total_bytes,
        queue_timeout_seconds: limits.queue_timeout_seconds,
        ..Settings::default()
    }
}
