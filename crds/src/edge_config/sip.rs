//! What an edge has to know of a SIP server inside.

use serde::{Deserialize, Serialize};

use crate::domain::DomainName;

/// A gateway of mode `Sip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySip {
    pub transport: SipTransport,
    /// How its clients write to each other.
    #[serde(default, skip_serializing_if = "SipDialect::is_simple")]
    pub dialect: SipDialect,
    /// What the server's certificate may name beside the host of `address` and the gateway's domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<DomainName>,
    /// What the server calls the edge: in Via, and dNSName of the certificate that the edge shows.
    pub edge_name: DomainName,
    /// Whether that is a certificate that somebody gives, which lies beside the document, and no leaf of the pod's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_certificate: bool,
    /// Most bytes of the body of one MESSAGE.
    pub max_message_bytes: u32,
    /// Whether each side hears that somebody is writing.
    pub typing: bool,
    /// Seconds that a subscription to presence of the server's users is asked for.
    #[serde(default = "presence_expires_seconds")]
    pub presence_expires_seconds: u32,
    /// What becomes of the contact when no device of a user of SIP watches it any more.
    #[serde(default)]
    pub end_of_subscription: EndOfSubscription,
}

/// As `presenceExpiresSeconds` has it where nobody says otherwise.
fn presence_expires_seconds() -> u32 {
    1_800
}

/// What the end of a user's SIP subscriptions to somebody's presence does to the XMPP contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum EndOfSubscription {
    /// Nothing: clients end their subscriptions at each logout.
    #[default]
    Keep,
    /// `unsubscribe`: the user does not want that presence any more.
    Unsubscribe,
}

/// What carries SIP. UDP does not: nothing there holds a sender back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum SipTransport {
    #[default]
    Tls,
    Tcp,
}

impl SipTransport {
    /// Where a server is of which DNS says no port (RFC 3261 section 19.1.2).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Tls => 5061,
            Self::Tcp => 5060,
        }
    }
}

/// What of SIP the clients of a server use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum SipDialect {
    /// SIP/SIMPLE: each message by itself (RFC 3428).
    #[default]
    Simple,
    /// Lync and Skype for Business: messages in sessions.
    Lync,
}

impl SipDialect {
    fn is_simple(&self) -> bool {
        *self == Self::Simple
    }
}
