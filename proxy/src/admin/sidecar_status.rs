//! `/status` of a sidecar: which edges it dials and what came of it, whether it reaches its server, and why not.
//! The shape is a contract (api.md).

use jiff::Timestamp;
use serde::Serialize;
use xmpp_edge_crds::{edge_config::SidecarServers, remedy};

use super::status::{self, CertificateStatus, ConfigSection, StreamStatus};
use crate::{
    stream::{
        context::StreamContext,
        trunk::figures::{DialFailure, DialOutcome, ShownEdge},
    },
    telemetry::{
        attempt::Step,
        attempts::{ShownAttempts, ShownStep},
    },
    trunk::nonza::ServerState,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarProcessStatus {
    /// Name of the gateway.
    pub gateway: String,
    pub instance: String,
    pub version: &'static str,
    pub time: Timestamp,
    pub started_time: Timestamp,
    pub config: ConfigSection,
    pub certificate: Option<CertificateStatus>,
    /// Of what edges are shown, as `spec.gateways[].sidecar.keys` lists it.
    pub key_sha256: Option<String>,
    pub server: ServerStatus,
    pub trunks: Vec<TrunkStatus>,
    pub streams: Vec<StreamStatus>,
}

/// The server beside the sidecar.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    pub mode: Option<SidecarServers>,
    pub address: String,
    pub domains: Vec<String>,
    pub up: bool,
    /// What it, or the network, said, and what to do; none where it is up and takes streams.
    pub text: Option<String>,
    pub last_attempt: Vec<ShownStep>,
}

/// An edge that is dialled, or a name that leads to none.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrunkStatus {
    pub address: String,
    pub state: DialledState,
    pub pool: Option<String>,
    pub pod: Option<String>,
    pub version: Option<String>,
    pub priority: Option<u16>,
    pub withdrawn: Option<bool>,
    /// Whether that pod gives what comes in to this sidecar.
    pub active: Option<bool>,
    pub established_time: Option<Timestamp>,
    pub pairs: u64,
    pub unacknowledged_stanzas: u64,
    pub unacknowledged_bytes: u64,
    /// Why there is none.
    pub last_attempt: Vec<DialStep>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum DialledState {
    /// A name without an address.
    Unresolved,
    #[default]
    Dialling,
    Up,
    /// Its pod has a trunk already, at another address.
    Redundant,
}

/// As a step of a partner's attempts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DialStep {
    pub step: Step,
    pub outcome: &'static str,
    pub text: String,
    pub remedy: &'static str,
    pub time: Timestamp,
}

impl From<DialFailure> for DialStep {
    fn from(failure: DialFailure) -> Self {
        Self {
            step: failure.step,
            outcome: failure.label,
            remedy: failure.remedy(),
            text: failure.text,
            time: failure.time,
        }
    }
}

impl From<ShownEdge> for TrunkStatus {
    fn from(edge: ShownEdge) -> Self {
        let mut status = Self {
            address: edge.address.to_string(),
            ..Self::default()
        };
        match (edge.trunk, edge.outcome) {
            (Some((far, facts, is_active)), _) => {
                status.state = DialledState::Up;
                status.pool = Some(far.pool.to_string());
                status.pod = Some(far.pod.to_string());
                status.version = Some(facts.version.to_string());
                status.priority = Some(far.facts.priority);
                status.withdrawn = Some(far.facts.is_withdrawn);
                status.active = Some(is_active);
                status.established_time = Some(facts.since);
                status.pairs = facts.figures.pairs();
                status.unacknowledged_stanzas = facts.figures.unacknowledged_stanzas();
                status.unacknowledged_bytes = facts.figures.unacknowledged_bytes();
            }
            (None, DialOutcome::None) => {}
            (None, DialOutcome::Redundant { .. }) => status.state = DialledState::Redundant,
            (None, DialOutcome::Failed(failure)) => status.last_attempt = vec![failure.into()],
        }
        status
    }
}

/// The status now; none at an edge.
#[must_use]
pub fn status(context: &StreamContext) -> Option<SidecarProcessStatus> {
    let config = context.config();
    let dials = config.edge_dials.as_ref()?;
    let gateway = config.gateways().first().map(|own| &own.config);
    let edges = context.trunks.edges().into_iter().map(Into::into);
    let unresolved = context.trunks.unresolved().into_iter();
    let unresolved = unresolved.map(|(address, failure)| TrunkStatus {
        address,
        state: DialledState::Unresolved,
        last_attempt: vec![failure.into()],
        ..TrunkStatus::default()
    });
    let key = config.identity.as_ref();
    Some(SidecarProcessStatus {
        gateway: gateway.map_or_else(String::new, |own| own.effective_name().to_owned()),
        instance: dials.instance.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        time: Timestamp::now(),
        started_time: context.started,
        config: ConfigSection::of(context, &config),
        certificate: CertificateStatus::of(&config),
        key_sha256: key.map(|own| format!("sha256:{}", own.spki_sha256())),
        server: ServerStatus {
            mode: Some(dials.servers),
            address: gateway
                .and_then(|own| own.address.as_ref())
                .map_or_else(String::new, ToString::to_string),
            domains: config
                .document
                .domains
                .iter()
                .map(ToString::to_string)
                .collect(),
            ..ServerStatus::of(context)
        },
        trunks: edges.chain(unresolved).collect(),
        streams: status::streams(context),
    })
}

impl ServerStatus {
    fn of(context: &StreamContext) -> Self {
        let state = context.trunks.own_server();
        let config = context.config();
        let domains = config.document.domains.iter();
        let attempts = domains.map(|domain| context.attempts.gateway(domain));
        let newest = |own: &ShownAttempts| own.last_attempt.iter().map(|step| step.time).max();
        let shown = attempts.max_by_key(newest).unwrap_or_default();
        let mut last_attempt = shown.last_attempt;
        for step in last_attempt.iter_mut().filter(|step| step.failed()) {
            step.remedy = Some(remedy::of_server(step.outcome));
        }
        Self {
            mode: None,
            address: String::new(),
            domains: Vec::new(),
            up: state == ServerState::Up,
            text: state.words().map(str::to_owned),
            last_attempt,
        }
    }
}
