//! Trunks: one stream between a sidecar and an edge pod that carries all their pairs, both ways, with
//! XEP-0198's counters for each pair.
//!
//! What is here knows no socket and no clock: the caller says what came and what time it is, and writes
//! what it is shown. Stanzas stand on a trunk as they came; what else is said are the nonzas of
//! [`nonza`]. What a side sends is in custody in [`sending`] until the other side acknowledged it, pair
//! by pair; what it took is counted in [`receiving`].

pub mod ack_schedule;
pub mod choice;
pub mod claim;
pub mod fault;
pub mod liveness;
pub mod machine;
pub mod nonza;
pub mod phase;
pub mod receiving;
pub mod sending;
pub mod turns;

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use crate::negotiation;

/// Of everything that is said on a trunk and is no stanza.
pub const NAMESPACE: &str = negotiation::ns::TRUNK;

/// Who an edge pod is on a trunk, all of them: a stream's `to`, and the name on the leaf that it shows.
pub const EDGE_NAME: &str = "edge.xmpp-edge.internal";

/// Most pairs that one side may have open on one trunk; one more gets `resource-constraint`.
pub const MOST_PAIRS: usize = 10_000;

/// When the number of a pair without a stanza is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairIdle {
    /// So long it is kept, while less than half of [`MOST_PAIRS`] are open.
    pub after: Duration,
    /// Between two looks, each at all pairs of a trunk. So long it is kept while more are open: whoever has
    /// a stanza go to ten thousand names, one after the other, does not use up the numbers of others.
    pub look: Duration,
}

impl PairIdle {
    fn of(self, pairs: usize) -> Duration {
        if pairs > MOST_PAIRS / 2 {
            self.after.min(self.look)
        } else {
            self.after
        }
    }
}

impl Default for PairIdle {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(600),
            look: Duration::from_secs(10),
        }
    }
}

/// The number that the sender of a pair gives it. Never given twice on one trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairNumber(pub u32);

impl fmt::Display for PairNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
