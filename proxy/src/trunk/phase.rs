//! The life of a trunk after both ends have said who they are: open, then drained in order.
//!
//! A side that drains takes nothing more, and both send no further stanza. Each way is closed by its own
//! `</stream:stream>`: the side that drains closes once it has settled and acknowledged what it took and
//! what it sent is acknowledged, the other one after it. Signs of life are asked for until then, so that a
//! silent peer is noticed however far the drain is. Where both drain at once, neither can know which of
//! its stanzas the other still took: each closes without waiting for acks, and they flow until both have.
//!
//! Nothing follows a `</stream:stream>`: who has closed answers nothing and asks nothing.

use std::time::{Duration, Instant};

use super::fault::TrunkFault;

/// Added to the time that stanzas may wait: what waits has its answer before the trunk is reset.
const BEYOND_QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a trunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkPhase {
    Open,
    Draining(Draining),
    /// In order: what is unacknowledged was not taken.
    Done,
}

/// A trunk that ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    own: HalfClose,
    peer: HalfClose,
    /// After it the trunk is reset.
    deadline: Instant,
}

/// How far one side is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HalfClose {
    /// It was the other side that drained; acks flow.
    Open,
    /// It sent `<drain/>`.
    Drained,
    /// It sent `</stream:stream>`.
    Closed,
}

impl TrunkPhase {
    /// This side takes nothing more. `true`: `<drain/>` is to be written.
    pub fn drain(&mut self, now: Instant, queue_timeout: Duration) -> bool {
        match self {
            Self::Open => {
                *self = Self::Draining(Draining {
                    own: HalfClose::Drained,
                    peer: HalfClose::Open,
                    deadline: now + queue_timeout + BEYOND_QUEUE_TIMEOUT,
                });
                true
            }
            Self::Draining(draining) if draining.own == HalfClose::Open => {
                draining.own = HalfClose::Drained;
                true
            }
            Self::Draining(_) | Self::Done => false,
        }
    }

    /// The peer takes nothing more.
    ///
    /// # Errors
    /// [`TrunkFault::Unexpected`] where it has said so before.
    pub fn peer_drains(&mut self, now: Instant, queue_timeout: Duration) -> Result<(), TrunkFault> {
        match self {
            Self::Open => {
                *self = Self::Draining(Draining {
                    own: HalfClose::Open,
                    peer: HalfClose::Drained,
                    deadline: now + queue_timeout + BEYOND_QUEUE_TIMEOUT,
                });
                Ok(())
            }
            Self::Draining(draining) if draining.peer == HalfClose::Open => {
                draining.peer = HalfClose::Drained;
                Ok(())
            }
            Self::Draining(_) | Self::Done => Err(TrunkFault::Unexpected("drain")),
        }
    }

    /// The peer sent `</stream:stream>`. `false`: nobody had drained, so that nothing says whether it took
    /// what it has not acknowledged.
    #[must_use]
    pub fn peer_closed(&mut self) -> bool {
        match self {
            Self::Open => false,
            Self::Draining(draining) => {
                draining.peer = HalfClose::Closed;
                if draining.own == HalfClose::Closed {
                    *self = Self::Done;
                }
                true
            }
            Self::Done => true,
        }
    }

    /// Whether stanzas may be sent.
    #[must_use]
    pub fn may_send(&self) -> bool {
        *self == Self::Open
    }

    /// Whether both may still say something: one that has closed answers no question.
    #[must_use]
    pub fn converses(&self) -> bool {
        match self {
            Self::Open => true,
            Self::Draining(draining) => {
                draining.own != HalfClose::Closed && draining.peer != HalfClose::Closed
            }
            Self::Done => false,
        }
    }

    /// Whether this side has sent its `</stream:stream>`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Open => false,
            Self::Draining(draining) => draining.own == HalfClose::Closed,
            Self::Done => true,
        }
    }

    /// Whether the peer has sent its `</stream:stream>`.
    #[must_use]
    pub fn is_closed_by_peer(&self) -> bool {
        match self {
            Self::Open => false,
            Self::Draining(draining) => draining.peer == HalfClose::Closed,
            Self::Done => true,
        }
    }

    /// Whether a stanza that comes now is taken. One that is not was on its way when this side drained:
    /// its sender has it still.
    ///
    /// # Errors
    /// [`TrunkFault::AfterDrain`] where the peer had said that it sends nothing more.
    pub fn takes(&self) -> Result<bool, TrunkFault> {
        match self {
            Self::Open => Ok(true),
            Self::Draining(draining) if draining.peer == HalfClose::Open => Ok(false),
            Self::Draining(_) | Self::Done => Err(TrunkFault::AfterDrain),
        }
    }

    /// `unsettled`: something that was taken is not settled, or not acknowledged; `unacknowledged`: so is
    /// something that was sent. `true`: this side's `</stream:stream>` is to be written.
    ///
    /// # Errors
    /// [`TrunkFault::DrainTimeout`] where it took too long.
    pub fn look(
        &mut self,
        unsettled: bool,
        unacknowledged: bool,
        now: Instant,
    ) -> Result<bool, TrunkFault> {
        let Self::Draining(draining) = self else {
            return Ok(false);
        };
        let closes = match draining.own {
            HalfClose::Open => draining.peer == HalfClose::Closed,
            HalfClose::Drained => !unacknowledged || draining.peer != HalfClose::Open,
            HalfClose::Closed => false,
        };
        if closes && !unsettled {
            draining.own = HalfClose::Closed;
            if draining.peer == HalfClose::Closed {
                *self = Self::Done;
            }
            return Ok(true);
        }
        if now >= draining.deadline {
            return Err(TrunkFault::DrainTimeout);
        }
        Ok(false)
    }

    /// When [`Self::look`] fails.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Draining(draining) => Some(draining.deadline),
            Self::Open | Self::Done => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn the_side_that_drains_closes_first_and_the_other_after_it() {
        let now = Instant::now();
        let (mut own, mut peer) = (TrunkPhase::Open, TrunkPhase::Open);
        assert!(own.drain(now, TIMEOUT) && !own.drain(now, TIMEOUT));
        assert_eq!(own.takes(), Ok(false), "what was on its way");
        peer.peer_drains(now, TIMEOUT).expect("once");
        assert!(!own.may_send() && !peer.may_send());
        assert_eq!(peer.takes(), Err(TrunkFault::AfterDrain));
        assert_eq!(own.look(true, true, now), Ok(false));
        assert_eq!(
            peer.look(false, true, now),
            Ok(false),
            "it waits for the acks"
        );
        assert_eq!(own.look(false, true, now), Ok(false), "and so does it");
        assert!(own.converses() && peer.converses());
        assert_eq!(own.look(false, false, now), Ok(true));
        assert!(peer.peer_closed());
        assert!(!own.converses() && !peer.converses());
        assert_eq!(peer.look(true, true, now), Ok(false));
        assert_eq!(
            peer.look(false, true, now),
            Ok(true),
            "what was not acknowledged was not taken"
        );
        assert!(own.peer_closed());
        assert_eq!((own, peer), (TrunkPhase::Done, TrunkPhase::Done));
    }

    #[test]
    fn two_that_drain_at_once_wait_for_nothing_that_cannot_come() {
        let now = Instant::now();
        let mut sides = [TrunkPhase::Open, TrunkPhase::Open];
        for side in &mut sides {
            assert!(side.drain(now, TIMEOUT));
        }
        for side in &mut sides {
            side.peer_drains(now, TIMEOUT).expect("once");
            let again = side.peer_drains(now, TIMEOUT);
            assert_eq!(again, Err(TrunkFault::Unexpected("drain")));
            assert_eq!(side.look(false, true, now), Ok(true));
        }
        for side in &mut sides {
            assert!(side.peer_closed());
            assert_eq!(*side, TrunkPhase::Done);
        }
    }

    #[test]
    fn what_is_not_drained_in_time_is_reset() {
        let now = Instant::now();
        let mut own = TrunkPhase::Open;
        assert_eq!(own.deadline(), None);
        own.drain(now, TIMEOUT);
        let over = now + Duration::from_secs(25);
        assert_eq!(own.deadline(), Some(over));
        assert_eq!(own.look(true, true, over), Err(TrunkFault::DrainTimeout));
    }

    #[test]
    fn a_stream_that_is_closed_without_a_word_is_not_in_order() {
        assert!(!TrunkPhase::Open.peer_closed());
    }
}
