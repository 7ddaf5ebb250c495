//! What is kept from peers that have proved nothing. A stranger chooses the names that the edge looks up
//! and dials; how soon a failure comes back would tell him which name resolves, which port is closed and
//! which network answers. So all failures reach him when the slowest may.

use std::time::{Duration, Instant};

use super::{Machine, Stream};
use crate::negotiation::{Input, KeyVerification, Side, Unavailable};

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
            KeyVerification::Valid => {
                let full = self.is_full_for(request);
                self.input(Input::Verdict {
                    request,
                    verdict: full.unwrap_or(KeyVerification::Valid),
                });
            }
            verdict => self.input(Input::Verdict { request, verdict }),
        }
    }

    /// What a good key is worth where the limits on streams leave no room for this one: whoever was told
    /// "valid" would send what the end of the stream takes with it.
    fn is_full_for(&self, request: u32) -> Option<KeyVerification> {
        let Machine::Inbound(machine) = &self.machine else {
            return None;
        };
        if self.side == Side::Gateway || self.counted.is_some() {
            return None;
        }
        let peer = machine.asker(request)?;
        let limit = self.context.streams.has_room(&self.config, peer).err()?;
        self.context.metrics.connection_refused(limit);
        Some(KeyVerification::Unavailable(Unavailable::ConnectionLimit))
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
