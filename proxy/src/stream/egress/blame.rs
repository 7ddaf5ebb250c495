//! What the end of a stream says of what its peer was sent.

use crate::{
    negotiation::{Fault, Side},
    stream::peer_memory::LEAST_BYTES,
};

/// Among others, a stanza of so many bytes may be what was too large for a peer that announces no limit.
pub(super) const LARGE: usize = 32 * 1024;

/// What a stream's end says of what was unconfirmed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    Nothing,
    /// The peer ended it, and did not say why.
    Unsaid,
    /// The peer ended it over something that it was sent.
    Content,
    /// It could not read that: some say so of what is too large.
    Unread,
    /// It did not want that, and its size may well have been why.
    Size,
}

impl Blame {
    /// What the end of a stream says.
    #[must_use]
    pub fn of(end: &Fault) -> Self {
        /// Conditions that speak of what was sent (RFC 6120 section 4.9.3). Behind the negotiation the first
        /// three of the addresses of a stanza.
        const CONTENT: [&str; 11] = [
            "host-unknown",
            "improper-addressing",
            "not-authorized",
            "bad-format",
            "bad-namespace-prefix",
            "invalid-from",
            "invalid-namespace",
            "invalid-xml",
            "restricted-xml",
            "undefined-condition",
            "unsupported-stanza-type",
        ];
        match end {
            Fault::PeerClosed => Self::Unsaid,
            Fault::PeerError { condition, .. } => match condition.as_str() {
                "policy-violation" => Self::Size,
                "not-well-formed" | "xml-not-well-formed" => Self::Unread,
                other if CONTENT.contains(&other) => Self::Content,
                _ => Self::Nothing,
            },
            _ => Self::Nothing,
        }
    }

    /// Whether a stanza that ended two streams, alone in the second, tells how large others may be. What a server
    /// inside takes counts for all partners, of whom each could teach it a little one: it must have spoken of a rule,
    /// over a large stanza.
    #[must_use]
    pub fn teaches_size(self, side: Side, bytes: usize) -> bool {
        match side {
            Side::Partner => self.may_be_size() && bytes > LEAST_BYTES,
            Side::Gateway => self == Self::Size && bytes >= LARGE,
        }
    }

    /// Whether the size of what the stream ended over may have been why.
    #[must_use]
    pub fn may_be_size(self) -> bool {
        matches!(self, Self::Size | Self::Unread)
    }
}
