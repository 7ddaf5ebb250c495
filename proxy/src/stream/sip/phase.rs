//! Whether a link takes anything, or ends.

use std::time::{Duration, Instant};

/// Between two looks whether nothing is left to do.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkPhase {
    Open,
    /// What is in work goes to its end, until then.
    Ending(Instant),
    /// It asks nothing any more: what it was asked is answered, until then.
    Answering(Instant),
}

impl LinkPhase {
    pub(super) fn is_open(self) -> bool {
        self == Self::Open
    }

    /// Whether something goes to the server.
    pub(super) fn asks(self) -> bool {
        !matches!(self, Self::Answering(_))
    }

    /// It ends, by then at the latest; an end that was to be sooner stays so.
    pub(super) fn end_by(&mut self, until: Instant) {
        *self = match *self {
            Self::Open => Self::Ending(until),
            Self::Ending(before) => Self::Ending(before.min(until)),
            Self::Answering(before) => Self::Answering(before.min(until)),
        };
    }

    /// When there is something to look at.
    pub(super) fn next_look(self, now: Instant) -> Option<Instant> {
        match self {
            Self::Open => None,
            Self::Ending(until) | Self::Answering(until) => Some(until.min(now + LOOK)),
        }
    }
}
