//! What is kept from peers that have proved nothing. A stranger chooses the names that the edge looks up
//! and dials; how soon a failure comes back would tell him which name resolves, which port is closed and
//! which network answers. So all failures reach him when the slowest may.

use std::time::{Duration, Instant};

use super::Stream;
use crate::negotiation::{Input, KeyVerification, Side};

/// So long before a failure is told the search ends at the latest: what takes all of its time is told no
/// later than what failed at once.
pub(super) const MARGIN: Duration = Duration::from_millis(250);

/// A failed verification that is not told yet.
#[derive(Debug)]
pub(super) struct HeldFailure {
    request: u32,
    verdict: KeyVerification,
    due: Instant,
}

impl Stream {
    /// What became of a verification that this stream asked for. `due` is when a stranger hears of a
    /// failure.
    pub(super) fn verdict(&mut self, request: u32, verdict: KeyVerification, due: Instant) {
        let is_stranger = self.side == Side::Partner && self.place.is_some();
        match verdict {
            KeyVerification::Unavailable(why)
                if is_stranger && why.tells_of_others() && Instant::now() < due =>
            {
                // Never more than may be pending: until it is told, the question counts as such.
                self.held.push(HeldFailure {
                    request,
                    verdict,
                    due,
                });
            }
            verdict => self.input(Input::Verdict { request, verdict }),
        }
    }

    /// When the next one is due.
    pub(super) fn next_held(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.due).min()
    }

    /// Tells those that are due.
    pub(super) fn tell_held(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.due <= now);
        self.held = later;
        let due: Vec<HeldFailure> = due;
        for HeldFailure {
            request, verdict, ..
        } in due
        {
            self.input(Input::Verdict { request, verdict });
        }
    }
}
