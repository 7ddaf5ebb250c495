//! `/status`: what this replica is doing, as JSON. The shape is a contract (api.md).

use jiff::Timestamp;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};
use xmpp_edge_crds::{
    domain::DomainPattern,
    edge_config::{GatewayMode, Partner, VERSION, Version},
    negotiation::Method,
    verdict::Direction,
};

use super::sip_status::SipStatus;
use crate::telemetry::{attempts::ShownStep, config_status::RejectedStatus, metrics::MetricTotals};
use crate::{
    config::ActiveConfig,
    negotiation::{PeerRole, Side},
    stream::context::StreamContext,
    stream::registry::StreamInfo,
    stream::trunk::figures::ShownSidecar,
    trunk::nonza::ServerState,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub pool: String,
    pub version: &'static str,
    /// When this was taken, by the proxy's clock: `since` for the next.
    pub time: Timestamp,
    /// When the process began to serve: with another one than before, nothing of before holds.
    pub started_time: Timestamp,
    pub config: ConfigSection,
    pub certificate: Option<CertificateStatus>,
    pub streams: Vec<StreamStatus>,
    /// Ids of all streams that stand, changed or not: what is not among them has ended.
    pub open_streams: Vec<u64>,
    pub partners: Vec<PartnerStatus>,
    pub gateways: Vec<GatewayStatus>,
    pub totals: MetricTotals,
    /// What policy refused, the newest first.
    pub refusals: Vec<RefusalStatus>,
}

/// One series of `stanzas_refused_total`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalStatus {
    /// Name of the object; `other` where it belongs to none.
    pub partner: String,
    pub direction: Direction,
    pub reason: &'static str,
    /// Since the process began.
    pub count: u64,
    /// When it was last seen to grow; it is looked at every ten seconds.
    pub last_time: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSection {
    pub generation: u64,
    /// Of the bytes that the document in force was read from; numbers alone may come again with a backup.
    pub sha256: Option<String>,
    /// The newest form of the document that this proxy reads: the operator writes no newer one.
    pub reads: Version,
    pub loaded_time: Timestamp,
    pub rejected: Option<RejectedStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    pub not_after: Timestamp,
    pub dns_names: Vec<String>,
    pub serial: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    pub id: u64,
    pub side: &'static str,
    pub direction: &'static str,
    pub initiator: &'static str,
    pub peer_domains: BTreeSet<String>,
    pub local_domains: BTreeSet<String>,
    pub address: Option<String>,
    pub method: Option<Method>,
    pub tls_version: Option<&'static str>,
    pub tls_cipher: Option<&'static str>,
    pub peer_certificate_not_after: Option<Timestamp>,
    pub bidirectional: bool,
    pub acknowledged: bool,
    pub trunk: bool,
    pub established_time: Option<Timestamp>,
    pub last_stanza_time: Option<Timestamp>,
    pub stanzas_in: u64,
    pub stanzas_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub queued_stanzas: u64,
    pub queued_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartnerStatus {
    pub name: String,
    pub domain: String,
    pub domains: Vec<String>,
    pub last_connected_time: Option<Timestamp>,
    pub last_attempt: Vec<ShownStep>,
    pub next_attempt_time: Option<Timestamp>,
    pub peer_key_sha256: Option<String>,
    pub probe: Option<crate::stream::partner_ping::ProbeStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    pub name: String,
    pub mode: GatewayMode,
    pub domains: Vec<String>,
    pub address: String,
    pub reachable: Option<bool>,
    pub last_attempt: Vec<ShownStep>,
    pub sidecars: Vec<SidecarStatus>,
    /// Of mode `Sip` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipStatus>,
}

/// One trunk of a gateway's sidecars.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarStatus {
    pub instance: String,
    pub version: String,
    pub address: Option<String>,
    pub active: bool,
    pub server_up: bool,
    /// What is wrong with its server, in the sidecar's words; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_text: Option<String>,
    pub established_time: Timestamp,
    pub pairs: u64,
    pub unacknowledged_stanzas: u64,
    pub unacknowledged_bytes: u64,
    pub certificate_not_after: Option<Timestamp>,
    pub key_sha256: Option<String>,
}

impl From<ShownSidecar> for SidecarStatus {
    fn from(shown: ShownSidecar) -> Self {
        let ShownSidecar {
            name,
            far,
            facts,
            is_active,
        } = shown;
        Self {
            instance: name,
            version: facts.version.to_string(),
            address: facts.address.map(|address| address.to_string()),
            active: is_active,
            server_up: far.server == ServerState::Up,
            server_text: far.server.words().map(str::to_owned),
            established_time: facts.since,
            pairs: facts.figures.pairs(),
            unacknowledged_stanzas: facts.figures.unacknowledged_stanzas(),
            unacknowledged_bytes: facts.figures.unacknowledged_bytes(),
            certificate_not_after: facts.certificate_not_after,
            key_sha256: facts.key_sha256,
        }
    }
}

/// The status now, with the refusals that a [history](super::history) knows; with `since`, only streams and partners that changed after it. A stream changes
/// with each stanza and each pair, a partner with each step, stream, probe and plan to try again.
#[must_use]
pub fn status(
    context: &StreamContext,
    since: Option<Timestamp>,
    refusals: Vec<RefusalStatus>,
) -> Status {
    // Before anything is read, so that nothing falls between two answers.
    let time = Timestamp::now();
    let config = context.config();
    let changed = |times: &[Option<Timestamp>]| {
        since.is_none_or(|since| times.iter().flatten().any(|time| *time > since))
    };
    let mut keys = BTreeMap::new();
    let mut streams = Vec::new();
    let mut open_streams = Vec::new();
    for entry in context.streams.all() {
        let facts = entry.facts();
        if facts.method.is_none() {
            continue;
        }
        open_streams.push(entry.id);
        if entry.side == Side::Partner
            && let Some(key) = &facts.peer_key_sha256
        {
            let partner = facts.partner(entry.side, &config).unwrap_or_default();
            keys.insert(partner.to_owned(), key.clone());
        }
        if changed(&[facts.changed, entry.last_stanza_time()]) {
            streams.push(stream(context, &entry));
        }
    }
    streams.sort_by_key(|stream| stream.id);
    open_streams.sort_unstable();
    let partners = config
        .document
        .partners
        .iter()
        .filter(|own| {
            let probed = context.probes.status(&own.name).map(|probe| probe.time);
            changed(&[context.attempts.changed(&own.name), probed])
        })
        .map(|own| partner(context, own, keys.get(&own.name)))
        .collect();
    Status {
        pool: config.document.pool.clone(),
        version: env!("CARGO_PKG_VERSION"),
        time,
        started_time: context.started,
        config: ConfigSection::of(context, &config),
        certificate: CertificateStatus::of(&config),
        streams,
        open_streams,
        partners,
        gateways: gateways(context, &config),
        totals: context.metrics.totals(),
        refusals,
    }
}

impl ConfigSection {
    pub(super) fn of(context: &StreamContext, config: &ActiveConfig) -> Self {
        Self {
            generation: config.document.generation,
            sha256: config.document_sha256.as_deref().map(str::to_owned),
            reads: VERSION,
            loaded_time: config.loaded_time,
            rejected: context.config_status.rejected(),
        }
    }
}

impl CertificateStatus {
    pub(super) fn of(config: &ActiveConfig) -> Option<Self> {
        config.identity.as_ref().map(|identity| Self {
            not_after: identity.not_after(),
            dns_names: identity.dns_names().to_vec(),
            serial: identity.serial().to_owned(),
        })
    }
}

/// All streams that stand, by their ids.
pub(super) fn streams(context: &StreamContext) -> Vec<StreamStatus> {
    let all = context.streams.all();
    let stand = all.iter().filter(|entry| entry.facts().method.is_some());
    let mut streams: Vec<_> = stand.map(|entry| stream(context, entry)).collect();
    streams.sort_by_key(|stream| stream.id);
    streams
}

fn stream(context: &StreamContext, entry: &StreamInfo) -> StreamStatus {
    let facts = entry.facts();
    let (mut peer_domains, mut local_domains) = (BTreeSet::new(), BTreeSet::new());
    for pair in &facts.receives {
        peer_domains.insert(pair.from.to_string());
        local_domains.insert(pair.to.to_string());
    }
    let (mut queued_stanzas, mut queued_bytes) = (0, 0);
    for pair in &facts.sends {
        peer_domains.insert(pair.to.to_string());
        local_domains.insert(pair.from.to_string());
        if let Some(route) = context.router.known(entry.side, pair)
            && route.is_carried_by(entry.handle.waker())
        {
            queued_stanzas += route.waiting();
            queued_bytes += route.held() as u64;
        }
    }
    StreamStatus {
        id: entry.id,
        side: match entry.side {
            Side::Partner => "Partner",
            Side::Gateway => "Gateway",
        },
        direction: if entry.is_bidirectional() {
            "Both"
        } else {
            match entry.direction() {
                xmpp_edge_crds::verdict::Direction::Inbound => "Inbound",
                xmpp_edge_crds::verdict::Direction::Outbound => "Outbound",
            }
        },
        initiator: match entry.peer {
            PeerRole::Client => "Peer",
            PeerRole::Server => "Edge",
        },
        peer_domains,
        local_domains,
        address: entry.address.map(|address| address.to_string()),
        method: facts.method,
        tls_version: facts.tls_version,
        tls_cipher: facts.tls_cipher,
        peer_certificate_not_after: facts.peer_certificate_not_after,
        bidirectional: entry.is_bidirectional(),
        acknowledged: entry.is_acknowledged(),
        trunk: entry.is_trunk(),
        established_time: facts.established,
        last_stanza_time: entry.last_stanza_time(),
        stanzas_in: entry.stanzas_in.load(Ordering::Relaxed),
        stanzas_out: entry.stanzas_out.load(Ordering::Relaxed),
        bytes_in: entry.bytes_in.load(Ordering::Relaxed),
        bytes_out: entry.bytes_out.load(Ordering::Relaxed),
        queued_stanzas,
        queued_bytes,
    }
}

fn partner(context: &StreamContext, partner: &Partner, key: Option<&String>) -> PartnerStatus {
    let shown = context.attempts.partner(&partner.name);
    let domains: Vec<_> = partner
        .domains
        .iter()
        .map(DomainPattern::to_string)
        .collect();
    PartnerStatus {
        name: partner.name.clone(),
        domain: domains.first().cloned().unwrap_or_default(),
        domains,
        last_connected_time: shown.last_connected_time,
        last_attempt: shown.last_attempt,
        next_attempt_time: shown.next_attempt_time,
        peer_key_sha256: key.cloned(),
        probe: context.probes.status(&partner.name),
    }
}

fn gateways(context: &StreamContext, config: &ActiveConfig) -> Vec<GatewayStatus> {
    config
        .gateways()
        .iter()
        .map(|gateway| {
            let domains = &gateway.config.domains;
            let name = gateway.config.effective_name();
            let sidecars = context.trunks.sidecars_of(name);
            GatewayStatus {
                name: name.to_owned(),
                mode: gateway.config.mode,
                sidecars: sidecars.into_iter().map(Into::into).collect(),
                sip: gateway.config.sip.as_ref().and_then(|sip| {
                    let link = context.sip.of(name)?;
                    Some(SipStatus::new(sip.dialect, link.shown()))
                }),
                domains: domains.iter().map(ToString::to_string).collect(),
                address: gateway
                    .config
                    .address
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                reachable: domains
                    .iter()
                    .filter_map(|domain| context.attempts.gateway_reachable(domain))
                    .reduce(|all, one| all && one),
                last_attempt: domains
                    .iter()
                    .map(|domain| context.attempts.gateway(domain).last_attempt)
                    .find(|steps| !steps.is_empty())
                    .unwrap_or_default(),
            }
        })
        .collect()
}
