//! Why a stanza could not be handed on: one value maps to its stanza error, its metric label, its
//! text.

use std::sync::Arc;

/// A fate that is not delivery.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: FailureKind,
    /// For people: what was tried and what it said. Stands in the error's text.
    pub text: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No address was found for the domain.
    NotFound,
    /// Addresses there were, but no stream could be set up, or not in time.
    Unreachable,
    /// It waited for `queueTimeoutSeconds`.
    TimedOut,
    /// Sent twice, acknowledged never.
    Unacknowledged,
    /// No room in a queue.
    QueueFull,
    /// Larger than what the next hop takes (XEP-0478).
    TooLarge,
    /// The pair was forbidden while it waited.
    Forbidden,
    /// The proxy stops.
    Stopping,
}

impl FailureKind {
    /// Stanza error condition (RFC 6120 section 8.3.3).
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::NotFound => "remote-server-not-found",
            Self::Unreachable | Self::TimedOut | Self::Unacknowledged | Self::Stopping => {
                "remote-server-timeout"
            }
            Self::QueueFull => "resource-constraint",
            Self::TooLarge => "policy-violation",
            Self::Forbidden => "not-allowed",
        }
    }

    /// Stanza error type.
    #[must_use]
    pub fn error_type(self) -> &'static str {
        match self {
            Self::NotFound | Self::Forbidden => "cancel",
            Self::TooLarge => "modify",
            Self::Unreachable
            | Self::TimedOut
            | Self::Unacknowledged
            | Self::QueueFull
            | Self::Stopping => "wait",
        }
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
}
