//! What an authenticated peer is refused within a minute: each refusal costs an answer, a count and perhaps a
//! line of the log, and an honest peer asks for a pair that it was refused seldom.

use std::time::{Duration, Instant};

use crate::negotiation::MAX_PAIRS;

/// Refusals within [`MINUTE`] that end a stream: a hoster may ask for all its domains at once, and learns of each
/// that finds no room.
const MOST: usize = 16 * MAX_PAIRS;
const MINUTE: Duration = Duration::from_secs(60);

/// Refusals since the present minute began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RefusedSteps {
    since: Option<Instant>,
    count: usize,
}

impl RefusedSteps {
    /// Counts one more; says whether it is one too many.
    pub(super) fn one_more(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= MINUTE {
            self.since = Some(now);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_end_a_stream_once_there_are_too_many_in_a_minute() {
        let now = Instant::now();
        let mut refusals = RefusedSteps::default();
        for _ in 1..MOST {
            assert!(!refusals.one_more(now));
        }
        assert!(refusals.one_more(now));
    }

    #[test]
    fn a_peer_that_asks_now_and_then_for_what_it_is_refused_keeps_its_stream() {
        let begin = Instant::now();
        let mut refusals = RefusedSteps::default();
        // Four each second.
        for number in 0..20_000_u32 {
            let now = begin + Duration::from_millis(250) * number;
            assert!(!refusals.one_more(now), "{number}");
        }
    }
}
