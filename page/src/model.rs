//! What the page can show, as JSON of one record each. Shown as text alone, whatever is in it: names and
//! texts come from peers. Not a contract: page and server are of one build, `/status` is for programs.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;

/// Lists that the page has. The order is that of their records in an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Section {
    Head,
    Pool,
    Gateway,
    Partner,
    Rate,
    Refusal,
}

/// The one record of [`Section::Head`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// `EdgePool chat/hq`, for example.
    pub title: String,
    pub version: &'static str,
    /// Whether nothing is waited for.
    pub ready: bool,
    /// What is waited for or not as it should be, a line each.
    pub notes: Vec<String>,
    /// Whether `/explain` answers here.
    pub explains: bool,
    /// Whether `/probe` answers here.
    pub probes: bool,
    /// Whether refusals are known here.
    pub refusals: bool,
}

/// Notes that are shown one by one; more are counted.
pub const NOTES: usize = 50;

/// The first [`NOTES`], and how many more there are; `where_else` says where they stand.
#[must_use]
pub fn bounded_notes(mut notes: Vec<String>, where_else: &str) -> Vec<String> {
    let more = notes.len().saturating_sub(NOTES);
    notes.truncate(NOTES);
    if more > 0 {
        notes.push(format!("and {more} more: {where_else}"));
    }
    notes
}

/// A pool, by `namespace/name`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRecord {
    pub namespace: String,
    pub name: String,
    pub site: String,
    /// Ready and wanted replicas; none where only one is known of.
    pub replicas: Option<(u32, u32)>,
    pub generation: Option<u64>,
    /// Why the newest configuration is not in force.
    pub rejected: Option<String>,
    pub inbound_streams: u32,
    pub outbound_streams: u32,
    /// What waits for a stream; none where nobody tells.
    pub queue: Option<Queue>,
    pub conditions: Vec<ConditionShown>,
    pub certificates: Vec<CertificateShown>,
    pub records: Vec<DnsRecordShown>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Queue {
    pub stanzas: u64,
    /// Memory held.
    pub bytes: u64,
}

/// A condition of an object, as `kubectl describe` has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionShown {
    pub r#type: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub since: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateShown {
    /// What it is for.
    pub name: String,
    pub not_after: Timestamp,
    pub dns_names: Vec<String>,
}

/// What a control plane in the same process says of the pool.
#[derive(Clone, Debug, Default)]
pub struct ControlShown {
    /// What is wrong with manifests, a line each.
    pub notes: Vec<String>,
    pub conditions: Vec<ConditionShown>,
    /// Records that should be in DNS, as in a zone file.
    pub records: Vec<String>,
    pub answers: Option<RecordAnswers>,
}

/// Who knows what DNS answers for a record.
#[derive(Clone)]
pub struct RecordAnswers(pub Arc<AnswerOf>);

/// What DNS answers for a record, where that is known.
type AnswerOf = dyn Fn(&str) -> Option<AnswerShown> + Send + Sync;

impl fmt::Debug for RecordAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordAnswers").finish_non_exhaustive()
    }
}

impl ControlShown {
    /// The records, each with what DNS answers as far as that is known.
    #[must_use]
    pub fn records_shown(&self) -> Vec<DnsRecordShown> {
        let shown = |wanted: &String| DnsRecordShown {
            answered: self.answers.as_ref().and_then(|answers| answers.0(wanted)),
            wanted: wanted.clone(),
        };
        self.records.iter().map(shown).collect()
    }
}

/// A DNS record that should exist.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecordShown {
    /// Full text, as in a zone file.
    pub wanted: String,
    /// What the resolver beside the server answers; none where it was not asked yet.
    pub answered: Option<AnswerShown>,
}

/// What DNS answers for a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "seen")]
pub enum AnswerShown {
    /// The record.
    Same,
    /// Others of its name and type, or none.
    Other(Vec<String>),
    /// Nothing: why.
    Nothing(String),
}

/// A partner in its pools, by `namespace/name`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartnerRecord {
    pub namespace: String,
    pub name: String,
    /// Primary domain first.
    pub domains: Vec<String>,
    /// `Federated` and its like.
    pub partner_type: String,
    pub conditions: Vec<ConditionShown>,
    /// One a pool.
    pub cells: Vec<Cell>,
}

/// How a pool fares with a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum CellState {
    /// The kill switch is on.
    Suspended,
    /// The newest attempt failed, and none succeeded since.
    Failing,
    Connected,
    /// No stream, and no failure either.
    Idle,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    pub pool: String,
    pub state: CellState,
    pub inbound_streams: u32,
    pub outbound_streams: u32,
    pub method: Option<String>,
    pub tls_version: Option<String>,
    pub tls_cipher: Option<String>,
    pub peer_certificate_not_after: Option<Timestamp>,
    pub last_connected_time: Option<Timestamp>,
    pub next_attempt_time: Option<Timestamp>,
    /// The newest failure since the last success, else what came last.
    pub attempt: Vec<StepShown>,
    pub queue: Option<Queue>,
    /// Time, and the milliseconds where it was answered.
    pub probe: Option<(Timestamp, Option<u64>)>,
}

/// One step of an attempt.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepShown {
    pub step: String,
    /// `Ok`, or the cause.
    pub outcome: String,
    /// `Inbound`: the peer dialled.
    pub direction: String,
    pub domain: String,
    pub address: Option<String>,
    pub text: String,
    /// What to do about the cause.
    pub remedy: Option<&'static str>,
    pub time: Option<Timestamp>,
    pub replica: Option<String>,
}

/// One of the organisation's own servers, by pool and first domain.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRecord {
    pub pool: String,
    pub domains: Vec<String>,
    pub address: String,
    /// None: not tried yet.
    pub reachable: Option<bool>,
    /// Where nobody tells the steps.
    pub message: Option<String>,
    pub attempt: Vec<StepShown>,
    /// Those that are connected, where the gateway takes trunks; none: it takes none.
    pub sidecars: Option<Vec<SidecarShown>>,
    /// Of a server that speaks SIP, where somebody tells.
    pub sip: Option<SipShown>,
}

/// A SIP server, as the edge that is linked to it sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SipShown {
    /// How its clients write: of dialect `Lync` messages go in sessions.
    pub dialect: &'static str,
    /// Sessions of messages; none: its dialect has none.
    pub sessions: Option<usize>,
    /// All connections; the first of them are listed.
    pub connection_count: usize,
    pub connections: Vec<SipConnectionShown>,
    /// Subscriptions of the edge, for users of partners.
    pub watching: usize,
    /// Subscriptions of the server's users.
    pub watched: usize,
    /// Those of both to which nobody said yes yet.
    pub pending: usize,
    /// When the server last gave a final answer.
    pub last_answer_time: Option<Timestamp>,
}

/// A connection with a SIP server.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SipConnectionShown {
    /// `inbound`: the edge opened it, for what comes from partners.
    pub direction: &'static str,
    pub address: Option<String>,
    /// None without TLS.
    pub tls_version: Option<String>,
    pub tls_cipher: Option<String>,
    pub peer_certificate_not_after: Option<Timestamp>,
    pub since: Timestamp,
}

/// A sidecar that is connected: at one pod each of its trunks, at an operator all of them together.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarShown {
    pub instance: String,
    pub version: Option<String>,
    /// Whether it gets what comes in.
    pub active: bool,
    pub server_up: bool,
    /// What is wrong with the server beside it.
    pub server_text: Option<String>,
    /// Trunks that it has to this pool.
    pub trunks: u32,
    /// None where nobody tells.
    pub pairs: Option<u64>,
    /// Stanzas and bytes that it has not acknowledged.
    pub unacknowledged: Option<Queue>,
    pub since: Option<Timestamp>,
    pub certificate_not_after: Option<Timestamp>,
}

/// What policy refused, by partner, direction and reason.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalRecord {
    pub partner: String,
    pub direction: &'static str,
    pub reason: String,
    /// Since the process began.
    pub count: u64,
    /// When it was last seen to grow.
    pub last_time: Timestamp,
    pub remedy: Option<&'static str>,
}

impl RefusalRecord {
    /// What tells it from all others.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{} {} {}", self.partner, self.direction, self.reason)
    }
}

/// A rate over the last hour, by its name.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateRecord {
    /// What is counted.
    pub label: &'static str,
    /// Between two values.
    pub seconds: u64,
    /// Counted in each of these times, the newest last.
    pub counts: Vec<u32>,
}
