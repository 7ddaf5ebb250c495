//! Why a trunk ends: the one place that maps causes to the stream error, the label and the text.

use super::{MOST_PAIRS, PairNumber, nonza::NonzaError};
use crate::{config::trunk_name::ProductVersion, negotiation::Fault};

/// The cause of a trunk's end where its peer broke the rules, or is not there any more. A fault of one
/// stanza is none of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrunkFault {
    #[error("{0}")]
    Nonza(#[from] NonzaError),
    #[error("<{0}/> is not expected now")]
    Unexpected(&'static str),
    #[error("pair {number}: {acknowledged} stanzas acknowledged, only {sent} were sent")]
    HandledCountTooHigh {
        number: PairNumber,
        acknowledged: u32,
        sent: u32,
    },
    #[error("stanzas of pair {0} are acknowledged, which was not opened")]
    UnknownPair(PairNumber),
    #[error("pair {0} is opened a second time")]
    NumberInUse(PairNumber),
    #[error("the domains of pair {new} have the number {old} already")]
    PairInUse { new: PairNumber, old: PairNumber },
    #[error("pair {0} ends before its stanzas are acknowledged")]
    EndedTooEarly(PairNumber),
    #[error("more than {MOST_PAIRS} pairs are open")]
    TooManyPairs,
    #[error("a stanza came without its <pair/>")]
    StanzaWithoutPair,
    #[error("something came after <drain/> that its sender had promised not to send")]
    AfterDrain,
    #[error("the peer's version is {peer}, ours {own}: they may be one minor version apart")]
    Version {
        peer: ProductVersion,
        own: ProductVersion,
    },
    #[error("the other end has not said in time what it is")]
    GreetingTimeout,
    #[error("no sign of life in time")]
    Silent,
    #[error("not drained in time")]
    DrainTimeout,
    #[error("the peer does not read what it is told")]
    Unread,
    #[error("the peer says too often that something is another")]
    TooManyChanges,
}

impl TrunkFault {
    /// Of RFC 6120 section 4.9.3.
    #[must_use]
    pub fn condition(&self) -> &'static str {
        match self {
            Self::Nonza(NonzaError::Unknown(_)) | Self::Unexpected(_) => "unsupported-stanza-type",
            Self::Nonza(_) => "bad-format",
            Self::HandledCountTooHigh { .. }
            | Self::UnknownPair(_)
            | Self::NumberInUse(_)
            | Self::PairInUse { .. }
            | Self::EndedTooEarly(_)
            | Self::AfterDrain => "undefined-condition",
            Self::TooManyPairs | Self::Unread => "resource-constraint",
            Self::TooManyChanges => "policy-violation",
            Self::StanzaWithoutPair => "not-authorized",
            Self::Version { .. } => "unsupported-version",
            Self::GreetingTimeout | Self::Silent | Self::DrainTimeout => "connection-timeout",
        }
    }

    /// The fixed word: a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Nonza(NonzaError::Unknown(_)) => "UnknownElement",
            Self::Nonza(_) => "MalformedElement",
            Self::Unexpected(_) => "UnexpectedElement",
            Self::HandledCountTooHigh { .. } => "HandledCountTooHigh",
            Self::UnknownPair(_) => "UnknownPair",
            Self::NumberInUse(_) | Self::PairInUse { .. } => "PairInUse",
            Self::EndedTooEarly(_) => "EndedTooEarly",
            Self::TooManyPairs => "TooManyPairs",
            Self::StanzaWithoutPair => "StanzaWithoutPair",
            Self::AfterDrain => "AfterDrain",
            Self::Version { .. } => "Version",
            Self::GreetingTimeout => "GreetingTimeout",
            Self::Silent => "Silent",
            Self::DrainTimeout => "DrainTimeout",
            Self::Unread => "Unread",
            Self::TooManyChanges => "TooManyChanges",
        }
    }
}

impl From<TrunkFault> for Fault {
    fn from(fault: TrunkFault) -> Self {
        Self::Trunk {
            condition: fault.condition(),
            label: fault.label(),
            text: fault.to_string(),
        }
    }
}

/// How the ledger of a pair tells a count that is too high.
pub(super) fn too_high(number: PairNumber, fault: &Fault) -> TrunkFault {
    match fault {
        Fault::HandledCountTooHigh { acknowledged, sent } => TrunkFault::HandledCountTooHigh {
            number,
            acknowledged: *acknowledged,
            sent: *sent,
        },
        _ => TrunkFault::UnknownPair(number),
    }
}
