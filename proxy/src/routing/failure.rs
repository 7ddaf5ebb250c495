//! Why a stanza could not be handed on: one value maps to its stanza error, its metric label, its
//! text.

use std::{sync::Arc, time::Duration};

use xmpp_edge_crds::domain::DomainName;

use crate::xml::{Condition, ErrorType};

/// A fate that is not delivery.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: FailureKind,
    /// For people: what was tried and what it said. Stands in the error's text; empty: it has none.
    pub text: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No address was found for the domain.
    NotFound,
    /// Addresses there were, but no server answered, or its stream broke.
    Unreachable,
    /// A server answered, and could not have this pair proved to it just now: nothing is said of its other pairs.
    Unproved,
    /// A server answered, and it or the edge does not want the stream.
    Refused,
    /// It waited for `queueTimeoutSeconds`.
    TimedOut,
    /// Sent twice, acknowledged never.
    Unacknowledged,
    /// No room in a queue.
    QueueFull,
    /// Larger than what the next hop takes (XEP-0478).
    TooLarge,
    /// The next hop ended a stream over it.
    EndedStream,
    /// The pair was forbidden while it waited.
    Forbidden,
    /// A SIP server answered it, or what it would be there is nothing.
    Answered {
        condition: Condition,
        error_type: ErrorType,
    },
}

/// Characters of what somebody else said that stand in the text of an error.
const QUOTED: usize = 120;

impl FailureKind {
    /// Stanza error condition (RFC 6120 section 8.3.3).
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::NotFound => "remote-server-not-found",
            Self::Unreachable
            | Self::Unproved
            | Self::Refused
            | Self::TimedOut
            | Self::Unacknowledged => "remote-server-timeout",
            Self::QueueFull => "resource-constraint",
            Self::TooLarge | Self::EndedStream => "policy-violation",
            Self::Forbidden => "not-allowed",
            Self::Answered { condition, .. } => condition.as_str(),
        }
    }

    /// Stanza error type.
    #[must_use]
    pub fn error_type(self) -> &'static str {
        match self {
            Self::NotFound | Self::Forbidden => "cancel",
            Self::TooLarge | Self::EndedStream => "modify",
            Self::Answered { error_type, .. } => error_type.as_str(),
            Self::Unreachable
            | Self::Unproved
            | Self::Refused
            | Self::TimedOut
            | Self::Unacknowledged
            | Self::QueueFull => "wait",
        }
    }

    /// Whether it is the way that was lacking, which another replica may have: nothing is known against the
    /// stanza.
    #[must_use]
    pub fn is_of_the_way(self) -> bool {
        matches!(
            self,
            Self::NotFound | Self::Unreachable | Self::Unproved | Self::Refused | Self::TimedOut
        )
    }

    /// Whether it may be over in a moment, without anybody's doing: what waits goes on waiting.
    #[must_use]
    pub fn is_outage(self) -> bool {
        matches!(self, Self::Unreachable | Self::Unproved | Self::TimedOut)
    }
}

impl Failure {
    #[must_use]
    pub fn new(kind: FailureKind, text: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// What goes to `to` waited for so long, for this cause.
    #[must_use]
    pub fn waited(limit: Duration, to: &DomainName, cause: &str) -> Self {
        let before = format!("waited {} s for {to}: ", limit.as_secs());
        Self::quoting(FailureKind::TimedOut, &before, cause, "")
    }

    /// With words of ours before and after what was found, or what somebody else said, which is cut to
    /// 120 characters.
    #[must_use]
    pub fn quoting(kind: FailureKind, before: &str, quoted: &str, after: &str) -> Self {
        let end = quoted
            .char_indices()
            .nth(QUOTED)
            .map_or(quoted.len(), |(at, _)| at);
        let mark = if end < quoted.len() { "…" } else { "" };
        Self::new(kind, format!("{before}{}{mark}{after}", &quoted[..end]))
    }
}
