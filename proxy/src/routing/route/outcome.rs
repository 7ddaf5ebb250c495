//! What a queue is given, and what its callers are to do about it.

use std::time::{Duration, Instant};

use crate::routing::{batch::Batch, failure::Failure, unanswered::Unanswered};

/// Tells the tasks that set streams up for one route from each other: one that has been overtaken
/// has no say any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectNumber(pub(super) u64);

/// A stream is to be set up, under this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    pub number: ConnectNumber,
    /// Not before this time.
    pub not_before: Option<Instant>,
}

/// What a queue takes in.
#[derive(Debug)]
pub enum Queued {
    Stanzas(Batch),
    /// Errors are to be made of it, for the senders at the end of this route.
    Unanswered(Unanswered),
}

/// What became of what was given to a queue.
#[derive(Debug)]
pub enum EnqueueOutcome {
    /// `first`: the sweeper does not know of this queue yet.
    Queued { first: bool },
    /// Queued, and the caller has a stream set up.
    Dial { first: bool, dial: Dial },
    /// Not queued: too many streams are set up to names that the partner object's wildcards match.
    Crowded { queued: Queued },
    /// Not queued: the next hop failed a moment ago.
    Refused {
        queued: Queued,
        failure: Failure,
        until: Instant,
    },
}

/// What follows on a failure to set a stream up.
#[derive(Debug)]
pub enum AfterFailure {
    /// It is not this task's business any more.
    Overtaken,
    /// Something waits: try again after this pause.
    Retry(Duration),
    /// The task is over; what waited is to be answered. Says when the next try may be.
    BackOff { failed: Vec<Queued>, until: Instant },
}
