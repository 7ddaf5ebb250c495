//! When an `<a/>` is due: one for all pairs that moved within [`TOGETHER`], and at once where a sign of
//! life is wanted.

use std::time::{Duration, Instant};

use super::{nonza::MOST_COUNTS, nonza::TrunkAck, receiving::ReceivedPairs};

/// So long the first pair that moved waits for others.
pub const TOGETHER: Duration = Duration::from_millis(10);

/// What has to be acknowledged, and until when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckSchedule {
    /// Nothing.
    #[default]
    Quiet,
    /// Pairs moved.
    Due { at: Instant },
    /// The peer waits for the answer to its `<r/>` of this number.
    Asked { number: u32 },
}

impl AckSchedule {
    /// Stanzas of some pair were settled.
    pub fn moved(&mut self, now: Instant) {
        if *self == Self::Quiet {
            *self = Self::Due { at: now + TOGETHER };
        }
    }

    /// An `<r/>` came.
    pub fn asked(&mut self, number: u32) {
        *self = Self::Asked { number };
    }

    /// When something is to be written next.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Quiet => None,
            Self::Due { at } => Some(*at),
            Self::Asked { .. } => Some(now),
        }
    }

    /// The `<a/>` that is due; `at_once`: the trunk ends soon, and what is not told comes again. Where
    /// more pairs moved than one takes, the next is due.
    pub fn ack<T>(
        &mut self,
        pairs: &mut ReceivedPairs<T>,
        now: Instant,
        at_once: bool,
    ) -> Option<TrunkAck> {
        let answers = match *self {
            Self::Asked { number } => Some(number),
            Self::Due { at } if now >= at || at_once => None,
            Self::Quiet if at_once => None,
            Self::Quiet | Self::Due { .. } => return None,
        };
        let counts = pairs.counts(MOST_COUNTS);
        *self = if pairs.have_moved() {
            Self::Due { at: now }
        } else {
            Self::Quiet
        };
        (answers.is_some() || !counts.is_empty()).then_some(TrunkAck { answers, counts })
    }
}
