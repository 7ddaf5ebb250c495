//! A lab: one edge, the organisation's server, the partner's server. The servers accept streams, grant
//! every dialback key they are shown, and confirm what they are asked about their own keys.

mod connection;
mod lab;
mod server;

use std::time::Duration;

pub use connection::Stream;
pub use lab::{Lab, get, inputs, partner_server, server_at, server_that, server_without};
pub use server::Server;

/// What a loaded machine may need for one step.
pub const GENEROUS: Duration = Duration::from_secs(40);
/// The key that our servers make; every other one is not theirs.
const KEY: &str = "thekey";
/// A stream header but for its addresses.
pub const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'";

/// What differs from test to test.
#[derive(Clone, Default)]
pub struct Plan {
    /// 0: the default.
    pub queue_timeout_seconds: u32,
    /// The gateway offers XEP-0198; its acks are the test's.
    pub gateway_acks: bool,
    /// The partner offers XEP-0198; its acks are the test's.
    pub partner_acks: bool,
    /// What the partner makes of a stream's second pair.
    pub partner_on_second: Second,
    /// So many first connections to the gateway read nothing once the stream stands.
    pub deaf_connections: usize,
    /// So many first connections to the partner are turned away: it is down.
    pub partner_turns_away: usize,
    /// How long the partner takes to answer a header.
    pub partner_is_slow: Duration,
    /// How each server confirms what it got, where the test does not.
    pub gateway_confirms: Confirms,
    pub partner_confirms: Confirms,
    /// How each server ends a stream over a message that says [`CULPRIT`].
    pub gateway_ends: EndsOver,
    pub partner_ends: EndsOver,
    /// The partner is never asked by ping.
    pub never_by_ping: bool,
    /// 0: the pool's.
    pub partner_connection_limit: u32,
    /// 0: the default.
    pub max_stanza_bytes: u32,
    /// Port of the admin listener; 0: none.
    pub admin: u16,
}

/// How a server confirms what it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirms {
    /// By answering `db:verify`, where it is asked by that; acks are the test's.
    #[default]
    Verify,
    /// By XEP-0198, by itself.
    Acks,
    /// Neither; it may answer pings ([`Server::answers_pings`]).
    Nothing,
}

/// What no server takes that ends streams over something; in a message's body, alone.
pub const CULPRIT: &str = "<body>culprit</body>";

/// How a server ends a stream over what it does not take. What it read before is handled, and acknowledged
/// where it has XEP-0198; what it read behind it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndsOver {
    #[default]
    Never,
    /// With an error of this condition.
    Saying(&'static str),
    /// With the end tag alone.
    Closing,
    /// With the end of the connection alone.
    HangingUp,
}

/// How a further `db:result` on a stream is answered.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Second {
    #[default]
    Valid,
    Error,
    /// By the test, if at all.
    Silence,
}

/// What a server does that cannot reach who would verify a key.
#[derive(Clone, Copy)]
pub enum Unproved {
    /// It says so, with this condition (XEP-0220 section 2.4.2).
    Error(&'static str),
    /// It looks on.
    Silence,
}

impl Unproved {
    /// To the `db:result` between these.
    fn answer(self, from: &str, to: &str) -> String {
        match self {
            Self::Silence => String::new(),
            Self::Error(condition) => format!(
                "<db:result from='{to}' to='{from}' type='error'><error type='cancel'>\
                 <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>"
            ),
        }
    }
}

/// Message `id` of a user inside to a partner's.
pub fn outward(from: &str, to: &str, id: &str) -> String {
    format!(
        "<message from='alice@{from}/x' to='rob@{to}' type='chat' id='{id}'>\
         <body>hello</body></message>"
    )
}

/// Message number `id` from the partner's user to the organisation's.
pub fn message(id: u32) -> String {
    format!(
        "<message from='rob@partner.example/x' to='alice@org.example' type='chat' id='{id}'>\
         <body>hello</body></message>"
    )
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GENEROUS, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {GENEROUS:?}"),
    }
}
