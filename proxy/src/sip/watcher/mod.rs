//! Users of a partner who watch users of SIP: the edge subscribes on their behalf (RFC 8048 section 5.2).
//!
//! [`PresenceWatch`] is one of them, [`Watchers`] all of one SIP server, with their names, times and bounds.

mod exchange;
mod state;
#[cfg(test)]
mod tests;
mod told;
mod trouble;
mod watch;
mod watchers;

pub use self::{
    exchange::{
        Ask, AskOutcome, AskWithin, NotifiedPresence, WatchCause, WatchMoment, WatchOutput,
        WatchProgress,
    },
    watch::PresenceWatch,
    watchers::{WatchEvent, WatchNumber, WatchRoom, WatchStep, WatchTicket, Watchers},
};
