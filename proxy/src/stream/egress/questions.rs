//! When a peer is asked to acknowledge (XEP-0198): after many stanzas or a few milliseconds, not after each.

use std::time::{Duration, Instant};

use super::{Confirmation, SendBuffer};

/// Bytes of stanzas after which a peer is asked to acknowledge, or before, where a quarter of a queue is less.
const UNASKED: usize = 256 * 1024;
/// How long after the first of them at the latest.
const ASK_AFTER: Duration = Duration::from_millis(5);

impl SendBuffer {
    /// Asks the peer what it has got, where it acknowledges and is not asked already. Not for each batch: a
    /// question is a record and an answer, and confirms all before it. `at_once`: somebody waits for the answer.
    pub fn ask(&mut self, at_once: bool, most_unasked: usize, now: Instant) {
        let at_once = at_once
            || self.unasked >= most_unasked.min(UNASKED)
            || self.sends_alone()
            || !self.window().takes_errors;
        let Confirmation::Acks { acks, asked, again } = &mut self.confirmation else {
            return;
        };
        if asked.is_some() || again.is_some_and(|again| now < again) {
            return;
        }
        let due = *self.ask_due.get_or_insert(now + ASK_AFTER);
        if now < due && !at_once {
            return;
        }
        self.ask_due = None;
        *asked = Some(now);
        self.unasked = 0;
        let mut out = Vec::new();
        acks.write_request(&mut out);
        self.control(out);
    }

    /// Whether the peer acknowledges by XEP-0198.
    #[must_use]
    pub fn has_acks(&self) -> bool {
        matches!(self.confirmation, Confirmation::Acks { .. })
    }

    /// The stream ends: where something is unacknowledged, the peer is asked once more before the end.
    pub fn ask_last(&mut self, now: Instant) {
        if self.sent.is_empty() {
            return;
        }
        if let Confirmation::Acks { acks, asked, .. } = &mut self.confirmation {
            asked.get_or_insert(now);
            let mut out = Vec::new();
            acks.write_request(&mut out);
            self.control(out);
        }
    }
}
