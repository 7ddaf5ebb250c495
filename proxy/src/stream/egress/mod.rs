//! The sending half of a stream: what is written next, and what the peer has not confirmed yet.
//!
//! Stanzas stay in custody here from the moment they leave their route's queue until the peer
//! acknowledged them (XEP-0198), answered a later sign of life, or, where it can do neither, until
//! they were written. Knows no socket: `stream` writes what [`SendBuffer::fronts`] shows.

mod blame;
mod questions;
mod returned;
mod written_sizes;

use std::{
    collections::VecDeque,
    io::IoSlice,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};

use crate::{
    negotiation::{Fault, acks::Acks},
    routing::{batch::Batch, route::Route, wake::Window},
};
pub use blame::Blame;
pub use returned::Returned;
use written_sizes::WrittenSizes;

/// Bytes that may be taken out of the queues before the socket has taken them.
const AHEAD: usize = 128 * 1024;

/// Bytes of our own that may wait for the socket before the peer is not read any more: all of them
/// answer something that it said.
const OWN_AHEAD: usize = 64 * 1024;
/// What the edge says itself is joined to what it has said before and not written, up to so many bytes.
const JOINED: usize = 8 * 1024;
/// Pieces that are handed to the transport at once, at most.
pub const FRONTS: usize = 8;

/// Bytes of errors that may be unconfirmed before more are made: a whole queue of them at once would
/// keep a server inside from confirming anything for longer than it has time to.
const ERRORS_AHEAD: usize = 256 * 1024;

/// Before a peer is asked again that answered, but confirmed nothing more: it waits itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the peer confirms what it got.
#[derive(Debug)]
pub enum Confirmation {
    /// Not at all: written is delivered.
    Written,
    /// XEP-0198.
    Acks {
        acks: Acks,
        /// An `<r/>` that has not been answered.
        asked: Option<Instant>,
        /// Not asked again before: the last answer brought nothing new.
        again: Option<Instant>,
    },
    /// A peer without XEP-0198 that answers a question after what came before it: `asked` is the number
    /// of the question in flight and how many it covers.
    Probe {
        by: ProbeKind,
        next: u64,
        asked: Option<(u64, usize, Instant)>,
        last: Option<Instant>,
    },
}

/// What a peer without XEP-0198 is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A `db:verify`, which it answers on the same stream.
    Dialback,
    /// An XEP-0199 ping, which it answers on any stream.
    Ping,
}

/// A batch that left its queue.
#[derive(Debug)]
struct Sent {
    route: Arc<Route>,
    batch: Batch,
    /// Bytes of errors that the edge has made.
    errors: usize,
}

/// What is to be written.
#[derive(Debug)]
enum Piece {
    Control(Bytes),
    /// Of the batch at the front of what is unwritten.
    Stanzas {
        bytes: Bytes,
        /// Where `bytes` begins in its batch.
        at: usize,
        /// The batch's first stanza that is not written whole.
        next: u32,
        /// XEP-0198 was in force when it was queued.
        counts: bool,
    },
}

/// Whether the transport holds something back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// All that it took has left.
    Done,
    Due,
}

#[derive(Debug)]
pub struct SendBuffer {
    pieces: VecDeque<Piece>,
    /// Bytes in `pieces`.
    ahead: usize,
    /// Of these, bytes of our own.
    own_ahead: usize,
    /// In the order of sending; the last `unwritten` are not written yet.
    sent: VecDeque<Sent>,
    unwritten: usize,
    /// The first so many of `sent` went out before XEP-0198 was in force: no `<a/>` counts them.
    uncounted: usize,
    /// Bytes of errors in `sent`.
    errors: usize,
    /// Bytes of stanzas since the peer was asked last to acknowledge.
    unasked: usize,
    /// When it is at the latest.
    ask_due: Option<Instant>,
    flush: Flush,
    confirmation: Confirmation,
    pub last_stanza: Option<Instant>,
    written: WrittenSizes,
    /// The peer has confirmed something here.
    confirmed: bool,
}

impl Default for SendBuffer {
    fn default() -> Self {
        Self {
            pieces: VecDeque::new(),
            ahead: 0,
            own_ahead: 0,
            sent: VecDeque::new(),
            unwritten: 0,
            uncounted: 0,
            errors: 0,
            unasked: 0,
            ask_due: None,
            flush: Flush::Done,
            confirmation: Confirmation::Written,
            last_stanza: None,
            written: WrittenSizes::default(),
            confirmed: false,
        }
    }
}

impl SendBuffer {
    /// Bytes of our own: negotiation, acks, keep-alives.
    pub fn control(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return;
        }
        self.ahead += bytes.len();
        self.own_ahead += bytes.len();
        match self.pieces.back_mut() {
            // One record, and one write, for what is said in one breath.
            Some(Piece::Control(last)) if last.len() + bytes.len() <= JOINED => {
                *last = [&last[..], &bytes[..]].concat().into();
            }
            _ => self.pieces.push_back(Piece::Control(bytes)),
        }
    }

    /// Whether the peer takes our answers: it is not to be read where it does not.
    #[must_use]
    pub fn answers_flow(&self) -> bool {
        self.own_ahead < OWN_AHEAD
    }

    /// From here on the peer confirms in this way.
    pub fn confirm_by(&mut self, confirmation: Confirmation) {
        if matches!(confirmation, Confirmation::Acks { .. }) {
            self.uncounted = self.sent.len();
        }
        self.confirmation = confirmation;
    }

    /// From here on the peer is asked by such probes.
    pub fn probe_by(&mut self, by: ProbeKind) {
        self.confirm_by(Confirmation::Probe {
            by,
            next: 0,
            asked: None,
            last: None,
        });
    }

    /// No further answer to a ping is waited for: written is delivered.
    pub fn pings_no_more(&mut self) {
        if let Confirmation::Probe {
            by: ProbeKind::Ping,
            ..
        } = self.confirmation
        {
            self.confirmation = Confirmation::Written;
        }
    }

    /// A probe begins, where the peer is asked by them and none is under way: what is to be asked, under
    /// which number.
    pub fn begin_probe(&mut self, now: Instant) -> Option<(ProbeKind, u64)> {
        let covers = self.sent.len();
        let Confirmation::Probe {
            by,
            next,
            asked: asked @ None,
            last,
        } = &mut self.confirmation
        else {
            return None;
        };
        *next += 1;
        *asked = Some((*next, covers, now));
        *last = Some(now);
        Some((*by, *next))
    }

    #[must_use]
    pub fn confirmation(&self) -> &Confirmation {
        &self.confirmation
    }

    pub fn confirmation_mut(&mut self) -> &mut Confirmation {
        &mut self.confirmation
    }

    /// Whether another batch may be taken out of a queue.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.ahead < AHEAD && !self.sends_alone()
    }

    /// What may be taken out of the queues of this stream.
    #[must_use]
    pub fn window(&self) -> Window {
        Window {
            is_empty: self.sent.is_empty(),
            takes_errors: self.errors < ERRORS_AHEAD,
        }
    }

    /// Whether what is unconfirmed is to be alone.
    #[must_use]
    pub fn sends_alone(&self) -> bool {
        self.sent.back().is_some_and(|sent| sent.batch.is_suspect)
    }

    /// A batch of `route` goes out on this stream.
    pub fn send(&mut self, route: &Arc<Route>, mut batch: Batch, now: Instant) {
        batch.sendings += 1;
        let bytes = batch.unsettled();
        let errors = if batch.is_reply { bytes.len() } else { 0 };
        self.errors += errors;
        let len = bytes.len();
        self.ahead += len;
        self.pieces.push_back(Piece::Stanzas {
            bytes,
            at: batch.unsettled_from(),
            next: batch.settled(),
            counts: matches!(self.confirmation, Confirmation::Acks { .. }),
        });
        self.sent.push_back(Sent {
            route: Arc::clone(route),
            batch,
            errors,
        });
        self.unwritten += 1;
        self.unasked += len;
        self.last_stanza = Some(now);
    }

    /// Gives back memory that only busy streams need.
    pub fn release(&mut self) {
        self.pieces.shrink_to_fit();
        self.sent.shrink_to_fit();
    }

    /// What to write next; empty where there is nothing.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        match self.pieces.front() {
            Some(Piece::Control(bytes) | Piece::Stanzas { bytes, .. }) => bytes,
            None => &[],
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether all there was has been written and handed to the network.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.is_empty() && self.flush == Flush::Done
    }

    /// What to write next, piece by piece; says how many there are.
    pub fn fronts<'a>(&'a self, pieces: &mut [IoSlice<'a>; FRONTS]) -> usize {
        let fronts = self.pieces.iter().take(FRONTS);
        fronts
            .zip(pieces)
            .map(|(piece, front)| {
                let (Piece::Control(bytes) | Piece::Stanzas { bytes, .. }) = piece;
                *front = IoSlice::new(bytes);
            })
            .count()
    }

    /// The transport took so many bytes, of one or several pieces.
    pub fn wrote_all(&mut self, mut count: usize) {
        while count > 0 && !self.pieces.is_empty() {
            let own = self.front().len().min(count);
            self.wrote(own);
            count -= own;
        }
    }

    /// The transport took `count` bytes of [`Self::front`].
    pub fn wrote(&mut self, count: usize) {
        self.ahead -= count;
        self.flush = Flush::Due;
        let done = match self.pieces.front_mut() {
            Some(Piece::Control(bytes)) => {
                self.own_ahead -= count;
                bytes.advance(count);
                bytes.is_empty()
            }
            Some(Piece::Stanzas {
                bytes,
                at,
                next,
                counts,
            }) => {
                bytes.advance(count);
                *at += count;
                // Only what was written can be acknowledged: a peer that claims more is refused.
                let first_unwritten = self.sent.len() - self.unwritten;
                if *counts
                    && let Confirmation::Acks { acks, .. } = &mut self.confirmation
                    && let Some(Sent { batch, .. }) = self.sent.get(first_unwritten)
                {
                    let whole = batch.ended(*next, *at);
                    *next += whole;
                    acks.sent(whole);
                }
                let done = bytes.is_empty();
                self.unwritten -= usize::from(done);
                done
            }
            None => false,
        };
        if done {
            self.pieces.pop_front();
        }
    }

    /// The transport may hold something back.
    pub fn must_flush(&mut self) {
        self.flush = Flush::Due;
    }

    /// The transport has handed everything so far to the network: settles where nothing better can
    /// be had. Says whether with that all has left that was to be sent, and had not before.
    pub fn flushed(&mut self) -> bool {
        self.settle_written();
        let was_due = std::mem::replace(&mut self.flush, Flush::Done) == Flush::Due;
        was_due && self.is_empty()
    }

    /// Settles what was written, where nothing better can be had.
    pub fn settle_written(&mut self) {
        let due = match self.confirmation {
            Confirmation::Written => self.written(),
            _ => self.uncounted.min(self.written()),
        };
        for _ in 0..due {
            if let Some(Sent { route, batch, .. }) = self.sent.front() {
                self.written.note(route, batch);
            }
            self.settle_front();
        }
    }

    /// The largest stanza of late that nobody confirmed and that is delivered all the same, where the stream's
    /// end may be over its size: with the route that it went.
    #[must_use]
    pub fn too_large_written(&self, blame: Blame, now: Instant) -> Option<(Arc<Route>, usize)> {
        if !blame.may_be_size() {
            return None;
        }
        self.written.suspect(blame, now)
    }

    /// Whether the peer has confirmed anything on this stream.
    #[must_use]
    pub fn has_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Batches that were written whole.
    fn written(&self) -> usize {
        self.sent.len() - self.unwritten
    }

    /// Only for batches that were written whole.
    fn settle_front(&mut self) {
        if let Some(Sent { batch, errors, .. }) = self.sent.pop_front() {
            batch.settle();
            self.errors -= errors;
            self.uncounted = self.uncounted.saturating_sub(1);
        }
    }

    /// The peer has handled `h` stanzas, modulo 2³².
    ///
    /// # Errors
    /// Where it claims more than was written. All of that counts as confirmed: sent again it would come twice,
    /// and end the next stream in the same way.
    pub fn acked(&mut self, h: u32, now: Instant) -> Result<(), Fault> {
        let Confirmation::Acks { acks, asked, again } = &mut self.confirmation else {
            return Ok(());
        };
        let count = match acks.acknowledge(h) {
            Ok(count) => count,
            Err(fault) => {
                let all = acks.acknowledge_beyond(h);
                self.confirmed(all);
                return Err(fault);
            }
        };
        *asked = None;
        *again = (count == 0).then(|| now + PATIENCE);
        self.confirmed(count);
        Ok(())
    }

    /// The peer confirmed the next `count` stanzas, all of them written.
    fn confirmed(&mut self, mut count: u32) {
        self.confirmed |= count > 0;
        // What went before has arrived before.
        while count > 0 && self.uncounted > 0 && self.written() > 0 {
            self.settle_front();
        }
        while count > 0 {
            let Some(front) = self.sent.front_mut() else {
                break;
            };
            let own = front.batch.count();
            if own > count {
                front.batch.settle_first(count);
                break;
            }
            count -= own;
            self.settle_front();
        }
    }

    /// The sign of life number `number` came back: what was sent before it has arrived.
    pub fn probe_answered(&mut self, number: u64) {
        if let Confirmation::Probe { asked, .. } = &mut self.confirmation
            && let Some((own, covers, _)) = *asked
            && own == number
        {
            *asked = None;
            // An answer to a question that was not written yet confirms nothing.
            let arrived = covers.min(self.written());
            self.confirmed |= arrived > 0;
            for _ in 0..arrived {
                self.settle_front();
            }
        }
    }

    /// Batches that were written whole and wait for confirmation.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        match self.confirmation {
            Confirmation::Written => 0,
            _ => self.written(),
        }
    }

    /// All batches that are in custody here.
    #[must_use]
    pub fn in_custody(&self) -> usize {
        self.sent.len()
    }

    /// When the peer may be asked again, where it is not asked for a while.
    #[must_use]
    pub fn asks_again(&self) -> Option<Instant> {
        match &self.confirmation {
            Confirmation::Acks {
                asked: None, again, ..
            } => again.or(self.ask_due),
            _ => None,
        }
    }

    /// Since when a confirmation has been asked for and not come.
    #[must_use]
    pub fn asked_since(&self) -> Option<Instant> {
        match &self.confirmation {
            Confirmation::Written => None,
            Confirmation::Acks { asked, .. } => *asked,
            Confirmation::Probe { asked, .. } => asked.map(|(_, _, since)| since),
        }
    }
}

#[cfg(test)]
mod tests;
