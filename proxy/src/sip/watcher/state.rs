//! The states of a watch.

use std::time::{Duration, Instant};

use super::exchange::WatchMoment;
use crate::sip::dialog::{CallKey, Dialog};

/// Shortest time that is refreshed, whatever is granted.
pub(super) const LEAST_GRANTED: Duration = Duration::from_secs(2);

/// Whether R waits to hear that they may watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approval {
    Asked,
    /// It was said, or they know (RFC 8048 section 5.2.2: a probe is no question).
    Given,
}

/// Whether U ever let R watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchHistory {
    /// Not yet, as far as anybody knows.
    New,
    /// It did: R has U among their contacts, and what passes takes nobody out of there.
    Stood,
}

#[derive(Debug)]
pub(super) enum PresenceWatchState {
    Apart(Apart),
    Opening(OpeningCall),
    Standing(StandingWatch),
    /// It ended, and U will not change any more (`invariant`).
    Final,
    Leaving(Leaving),
}

/// No dialog; the next SUBSCRIBE goes at this time.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) at: Instant,
}

/// The first SUBSCRIBE is out, and no NOTIFY came.
#[derive(Debug)]
pub(super) struct OpeningCall {
    pub(super) call: CallKey,
    pub(super) notify_by: Instant,
    pub(super) grant: Option<Duration>,
}

/// A NOTIFY made the dialog.
#[derive(Debug)]
pub(super) struct StandingWatch {
    pub(super) dialog: Dialog,
    pub(super) decision: Decision,
    pub(super) refresh: Refresh,
    /// When it is over where nothing is granted anew.
    pub(super) ends: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Pending,
    Active,
}

/// The next SUBSCRIBE of a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refresh {
    At(Instant),
    /// One is out.
    InWork,
}

/// R does not want it any more, or may not have it.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) dialog: Dialog,
    pub(super) cause: LeaveCause,
    pub(super) refresh: Refresh,
    /// Nobody waits any longer for its answer.
    pub(super) until: Instant,
    pub(super) then: AfterLeave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaveCause {
    Unsubscribed,
    Forbidden,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterLeave {
    Forget,
    /// R asked again meanwhile.
    Anew,
}

impl Refresh {
    /// At half of what was granted, or up to a tenth of that before.
    pub(super) fn after(granted: Duration, moment: WatchMoment) -> Instant {
        let half = granted.max(LEAST_GRANTED) / 2;
        moment.now + half.mul_f64(1.0 - moment.jitter / 10.0)
    }
}
