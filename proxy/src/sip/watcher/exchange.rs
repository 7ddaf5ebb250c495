//! What goes into a watch and what comes out of it.

use std::time::Instant;

use crate::sip::{
    code::StatusCode,
    dialog::CallKey,
    pidf::{ReadDevice, ReadPresence},
};

/// A time, and what scatters what would go at one time: 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct WatchMoment {
    pub now: Instant,
    pub jitter: f64,
}

/// What R is told, or the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchOutput {
    /// R may watch, and asked whether they may.
    Subscribed,
    /// U lets R watch, whether R asked or not: what is to be known after a restart.
    Approved,
    /// R may not, or not any more.
    Unsubscribed,
    /// Presence of a device of U's.
    Device(ReadDevice),
    /// U is unavailable, on whichever device.
    Unavailable,
    /// There is no such watch any more.
    Forget,
    /// The server has no presence agent, or not for this.
    EventRefused(StatusCode),
    /// It granted a subscription, and no NOTIFY came: it does not know its way to the edge.
    NotifyMissing,
    /// The server takes the edge for a user.
    AuthenticationDemanded(StatusCode),
}

/// What a SUBSCRIBE has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Seconds; 0 ends it.
    pub expires: u32,
    pub within: AskWithin,
}

/// Of which dialog it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskWithin {
    /// Of none: the first, with this Call-ID and tag.
    New(CallKey),
    /// The request goes in the dialog of [`super::PresenceWatch::dialog_mut`].
    Standing,
}

/// What a NOTIFY says of U.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifiedPresence {
    /// There is no document in it.
    None,
    Document(ReadPresence),
    /// One that cannot be read: what was known stays.
    Unreadable,
}

/// How a SUBSCRIBE ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskOutcome {
    /// Seconds of Expires in a 2xx; of Min-Expires in a 423.
    Answered {
        code: StatusCode,
        expires: Option<u32>,
        min_expires: Option<u32>,
    },
    /// Nothing came in time.
    Unanswered,
    /// Its connection ended.
    Lost,
}

/// Why there is a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchCause {
    /// R asked whether they may.
    Subscribe,
    /// R knows that they may: they probed, or it stood before.
    Standing,
}

/// How it stands, for who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchProgress {
    Pending,
    Active,
}
