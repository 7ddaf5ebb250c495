//! What `/status` says of a SIP server inside. The shape is a contract (api.md).

use jiff::Timestamp;
use serde::Serialize;
use xmpp_edge_crds::{edge_config::SipDialect, verdict::Direction};

use crate::stream::sip::figures::{ShownConnection, ShownLink};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SipStatus {
    pub dialect: SipDialect,
    /// As many as a link lists, the edge's own first.
    pub connections: Vec<SipConnectionStatus>,
    /// All of them, listed or not.
    pub connection_count: usize,
    /// Subscriptions of the edge, for users of partners.
    pub watching: usize,
    /// Subscriptions of the server's users, to users of partners.
    pub watched: usize,
    /// Those of both to which nobody said yes yet.
    pub pending: usize,
    /// Sessions of messages, of dialect `Lync`.
    pub sessions: usize,
    /// When the server last gave a final answer.
    pub last_answer_time: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SipConnectionStatus {
    /// `Inbound`: the edge opened it, for what comes from partners; `Outbound`: the server did.
    pub direction: Direction,
    pub address: Option<String>,
    pub tls_version: Option<&'static str>,
    pub tls_cipher: Option<&'static str>,
    pub peer_certificate_not_after: Option<Timestamp>,
    pub established_time: Timestamp,
}

impl SipStatus {
    pub(super) fn new(dialect: SipDialect, shown: ShownLink) -> Self {
        let (watching, seen) = shown.subscriptions.watcher;
        let (watched, served) = shown.subscriptions.notifier;
        Self {
            dialect,
            connections: shown.connections.into_iter().map(Into::into).collect(),
            connection_count: shown.opened + shown.accepted,
            watching,
            watched,
            sessions: shown.sessions,
            pending: (watching + watched).saturating_sub(seen + served),
            last_answer_time: shown.last_answer,
        }
    }
}

impl From<ShownConnection> for SipConnectionStatus {
    fn from(shown: ShownConnection) -> Self {
        Self {
            direction: shown.direction,
            address: shown.address.map(|address| address.to_string()),
            tls_version: shown.tls_version,
            tls_cipher: shown.tls_cipher,
            peer_certificate_not_after: shown.peer_certificate_not_after,
            established_time: shown.established,
        }
    }
}
