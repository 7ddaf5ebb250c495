//! Where a stream is between its first byte and its last, and whether it takes more on meanwhile.

use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use xmpp_edge_crds::domain::DomainName;

use crate::negotiation::Fault;

/// Where a stream is. Each state knows what counts in it alone.
#[derive(Debug)]
pub(super) enum StreamState {
    Establishing(Establishing),
    Established,
    /// It carries no pairs of its own: what comes from here on is a trunk's.
    Trunk(ProvedPeer),
    Closing(Closing),
    Broken(Broken),
}

/// Who opened a trunk, or was dialled for one.
#[derive(Debug)]
pub(super) struct ProvedPeer {
    pub(super) domain: DomainName,
}

/// Until the first pair is authenticated or ready: ends at the deadline.
#[derive(Debug)]
pub(super) struct Establishing {
    pub(super) deadline: Instant,
}

/// Nothing more is taken on; ends when all is written, at the deadline at the latest.
#[derive(Debug)]
pub(super) struct Closing {
    fault: Fault,
    deadline: Instant,
    after: AfterClose,
    /// Until when the peer is heard on what it has got of what was written before the end.
    confirms_until: Option<Instant>,
}

/// Reading or writing failed, or took too long: nothing more can be said.
#[derive(Debug)]
pub(super) struct Broken {
    fault: Fault,
}

/// What is read once all is written that ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterClose {
    /// The peer is done, or owed nothing.
    Nothing,
    /// Stanzas that were on their way, until the peer closes its stream.
    Relay,
    /// Whatever comes, thrown away: closed with bytes unread, the connection would be reset, and the
    /// peer would not read the error.
    Discard,
}

/// Whether a stream takes on what comes.
#[derive(Debug)]
pub(super) enum Intake {
    Open,
    /// Nothing more is taken in; the stream ends once all is settled and confirmed. A permit that it
    /// has is held until then.
    Draining(Option<OwnedSemaphorePermit>),
}

impl StreamState {
    pub(super) fn establishing(deadline: Instant) -> Self {
        Self::Establishing(Establishing { deadline })
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self, Self::Established | Self::Trunk(_))
    }

    /// Who proved itself for a trunk, once somebody has.
    pub(super) fn trunk(&self) -> Option<&DomainName> {
        match self {
            Self::Trunk(ProvedPeer { domain }) => Some(domain),
            _ => None,
        }
    }

    /// What ended the stream, once something has.
    pub(super) fn end(&self) -> Option<&Fault> {
        match self {
            Self::Establishing(_) | Self::Established | Self::Trunk(_) => None,
            Self::Closing(Closing { fault, .. }) | Self::Broken(Broken { fault }) => Some(fault),
        }
    }

    /// When this state is over at the latest, where it has an end of its own.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Establishing(Establishing { deadline })
            | Self::Closing(Closing {
                deadline,
                confirms_until: None,
                ..
            }) => Some(*deadline),
            Self::Closing(Closing {
                deadline,
                confirms_until: Some(until),
                ..
            }) => Some(*until.min(deadline)),
            Self::Established | Self::Trunk(_) | Self::Broken(_) => None,
        }
    }

    /// What is being set up is over by then.
    pub(super) fn hurry(&mut self, by: Instant) {
        if let Self::Establishing(Establishing { deadline }) = self {
            *deadline = by.min(*deadline);
        }
    }

    /// The stream ends over `fault`, unless something ended it before.
    pub(super) fn close(&mut self, fault: Fault, deadline: Instant, after: AfterClose) {
        if self.end().is_none() {
            *self = Self::Closing(Closing {
                fault,
                deadline,
                after,
                confirms_until: None,
            });
        }
    }

    /// A stream that ends hears until then what the peer has got.
    pub(super) fn confirm_until(&mut self, until: Instant) {
        if let Self::Closing(Closing { confirms_until, .. }) = self {
            *confirms_until = Some(until);
        }
    }

    /// Nothing is heard any more of what the peer has got; says whether it was.
    pub(super) fn confirms_no_more(&mut self) -> bool {
        match self {
            Self::Closing(Closing { confirms_until, .. }) => confirms_until.take().is_some(),
            _ => false,
        }
    }

    /// Whether what the peer says of what it has got still counts, although the stream is over.
    pub(super) fn confirms(&self) -> bool {
        let Self::Closing(Closing { confirms_until, .. }) = self else {
            return false;
        };
        confirms_until.is_some()
    }

    /// Nothing more can be said on a stream that ends.
    pub(super) fn cut(&mut self) {
        if let Self::Closing(Closing { fault, .. }) = self {
            let fault = fault.clone();
            *self = Self::Broken(Broken { fault });
        }
    }

    /// The peer has closed its stream too.
    pub(super) fn peer_is_done(&mut self) {
        if let Self::Closing(Closing {
            after,
            confirms_until,
            ..
        }) = self
        {
            *after = AfterClose::Nothing;
            *confirms_until = None;
        }
    }

    /// Whether stanzas are taken in although the stream is over.
    pub(super) fn lingers(&self) -> bool {
        self.after_close() == Some(AfterClose::Relay)
    }

    /// Whether what the peer still says is read and thrown away before the connection is closed.
    pub(super) fn discards(&self) -> bool {
        self.after_close() == Some(AfterClose::Discard)
    }

    /// Whether nothing is left to do; `all_sent`: what was to be written has left.
    pub(super) fn is_over(&self, all_sent: bool) -> bool {
        match self {
            Self::Establishing(_) | Self::Established | Self::Trunk(_) => false,
            Self::Closing(Closing {
                after,
                confirms_until,
                ..
            }) => all_sent && *after != AfterClose::Relay && confirms_until.is_none(),
            Self::Broken(_) => true,
        }
    }

    fn after_close(&self) -> Option<AfterClose> {
        match self {
            Self::Closing(Closing { after, .. }) => Some(*after),
            Self::Establishing(_) | Self::Established | Self::Trunk(_) | Self::Broken(_) => None,
        }
    }
}

impl Intake {
    /// Nothing more is taken in. A permit that was held stays.
    pub(super) fn drain(&mut self) {
        if matches!(self, Self::Open) {
            *self = Self::Draining(None);
        }
    }

    /// The stream is over: the permit goes to another.
    pub(super) fn release(&mut self) {
        if let Self::Draining(permit) = self {
            *permit = None;
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self, Self::Draining(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: [AfterClose; 3] = [AfterClose::Nothing, AfterClose::Relay, AfterClose::Discard];

    fn closing(after: AfterClose) -> StreamState {
        let mut state = StreamState::establishing(Instant::now());
        state.close(Fault::Done, Instant::now(), after);
        state
    }

    #[test]
    fn what_ended_a_stream_first_is_what_ended_it() {
        for after in AFTER {
            let mut state = closing(after);
            state.close(Fault::Unresponsive, Instant::now(), AfterClose::Nothing);
            assert_eq!(state.end(), Some(&Fault::Done));
            state.cut();
            state.close(Fault::Unresponsive, Instant::now(), AfterClose::Relay);
            assert_eq!(state.end(), Some(&Fault::Done));
            assert!(!state.lingers(), "nothing is taken in after a break");
        }
    }

    #[test]
    fn a_stream_is_over_once_all_has_left_and_nothing_may_come() {
        assert!(!StreamState::Established.is_over(true));
        for after in AFTER {
            let mut state = closing(after);
            assert!(!state.is_over(false), "{after:?}: something is unwritten");
            assert_eq!(state.is_over(true), after != AfterClose::Relay);
            state.peer_is_done();
            assert!(state.is_over(true) && !state.lingers() && !state.discards());
            state.cut();
            assert!(state.is_over(false), "{after:?}: nothing can be written");
        }
    }

    #[test]
    fn a_stream_hears_a_while_what_the_peer_has_got_and_no_longer_than_the_peer_speaks() {
        for after in AFTER {
            let mut state = closing(after);
            state.confirm_until(Instant::now());
            assert!(state.confirms() && !state.is_over(true));
            assert!(state.confirms_no_more() && !state.confirms_no_more());
            assert_eq!(state.is_over(true), after != AfterClose::Relay);
            state.confirm_until(Instant::now());
            state.peer_is_done();
            assert!(!state.confirms() && state.is_over(true));
        }
        let mut state = StreamState::Established;
        state.confirm_until(Instant::now());
        assert!(!state.confirms() && !state.confirms_no_more());
    }

    #[test]
    fn what_is_hurried_ends_no_later_than_it_would_have() {
        let (now, second) = (Instant::now(), std::time::Duration::from_secs(1));
        let mut state = StreamState::establishing(now + second);
        for (by, deadline) in [(2 * second, second), (second / 2, second / 2)] {
            state.hurry(now + by);
            assert_eq!(state.deadline(), Some(now + deadline));
        }
        let mut state = StreamState::Established;
        state.hurry(now);
        assert_eq!(state.deadline(), None);
    }

    #[test]
    fn only_a_stream_that_ends_can_break() {
        let mut state = StreamState::Established;
        state.cut();
        assert!(state.is_established());
    }

    #[tokio::test]
    async fn a_permit_is_held_until_a_draining_stream_is_over() {
        let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let permit = std::sync::Arc::clone(&permits).acquire_owned().await;
        let mut intake = Intake::Draining(permit.ok());
        intake.drain();
        assert_eq!(permits.available_permits(), 0);
        intake.release();
        assert_eq!(permits.available_permits(), 1);
        assert!(intake.is_draining());
    }
}
