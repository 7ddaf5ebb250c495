//! Whether the other end of a trunk is there: a sign of life is asked for when nothing was heard.

use std::time::{Duration, Instant};

/// Silence after which a sign of life is asked for while something is unacknowledged.
const SILENCE_WITH_CUSTODY: Duration = Duration::from_secs(2);
/// And while nothing is.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What is known of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// Nothing is asked.
    Heard { at: Instant },
    /// An `<r/>` of this number is on its way, and nothing was heard since.
    Asked { number: u32, since: Instant },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessAction {
    /// Write an `<r/>` of this number.
    Ask(u32),
    /// The peer is not there any more.
    GiveUp,
}

/// The signs of life of one trunk. A silent partition is noticed after 10 s.
#[derive(Clone, Copy, Debug)]
pub struct TrunkLiveness {
    sign: Sign,
    /// Of the request last made.
    last: u32,
}

impl TrunkLiveness {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            sign: Sign::Heard { at: now },
            last: 0,
        }
    }

    /// Bytes of the peer came, whatever they are: on a slow link an answer stands behind stanzas.
    pub fn heard(&mut self, now: Instant) {
        self.sign = Sign::Heard { at: now };
    }

    /// What is due now; `in_custody`: something is unacknowledged.
    pub fn act(&mut self, now: Instant, in_custody: bool) -> Option<LivenessAction> {
        if now < self.deadline(in_custody) {
            return None;
        }
        Some(match self.sign {
            Sign::Heard { .. } => {
                self.last = self.last.wrapping_add(1);
                let number = self.last;
                self.sign = Sign::Asked { number, since: now };
                LivenessAction::Ask(number)
            }
            Sign::Asked { .. } => LivenessAction::GiveUp,
        })
    }

    /// When [`Self::act`] has something to say.
    #[must_use]
    pub fn deadline(&self, in_custody: bool) -> Instant {
        match self.sign {
            Sign::Heard { at } if in_custody => at + SILENCE_WITH_CUSTODY,
            Sign::Heard { at } => at + SILENCE,
            Sign::Asked { since, .. } => since + ANSWER,
        }
    }

    /// The answer to this `<r/>` came; `false` where it was never asked.
    #[must_use]
    pub fn answered(&self, number: u32) -> bool {
        // Requests are few: what is not above the last was asked.
        self.last.wrapping_sub(number) < u32::MAX / 2 && number != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_asked_and_given_up_within_ten_seconds() {
        for (in_custody, silence) in [(true, 2), (false, 5)] {
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let mut own = TrunkLiveness::new(start);
            assert_eq!(own.deadline(in_custody), at(silence * 1000));
            assert_eq!(own.act(at(silence * 1000 - 1), in_custody), None);
            let asked = own.act(at(silence * 1000), in_custody);
            assert_eq!(asked, Some(LivenessAction::Ask(1)));
            assert_eq!(own.act(at(silence * 1000 + 4999), in_custody), None);
            let over = silence * 1000 + 5000;
            assert!(over <= 10_000);
            assert_eq!(own.act(at(over), in_custody), Some(LivenessAction::GiveUp));
        }
    }

    #[test]
    fn whatever_is_heard_is_a_sign_of_life() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut own = TrunkLiveness::new(start);
        assert_eq!(own.act(at(5), false), Some(LivenessAction::Ask(1)));
        own.heard(at(9));
        assert_eq!(own.act(at(10), true), None);
        assert_eq!(own.act(at(11), true), Some(LivenessAction::Ask(2)));
        assert!(own.answered(1) && own.answered(2));
        assert!(!own.answered(0) && !own.answered(3));
    }

    #[test]
    fn custody_that_begins_in_a_silence_shortens_it() {
        let start = Instant::now();
        let mut own = TrunkLiveness::new(start);
        let later = start + Duration::from_secs(3);
        assert_eq!(own.act(later, false), None);
        assert_eq!(own.act(later, true), Some(LivenessAction::Ask(1)));
    }
}
