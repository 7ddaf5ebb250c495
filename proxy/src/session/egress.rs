//! The sending half of a stream: what is written next, and what the peer has not confirmed yet.
//!
//! Stanzas stay in custody here from the moment they leave their route's queue until the peer
//! acknowledged them (XEP-0198), answered a later sign of life, or, where it can do neither, until
//! they were written. Knows no socket: `session` writes what [`Egress::front`] shows.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::{Buf, Bytes};

use crate::{
    route::{
        batch::Batch,
        queue::{Route, Total},
    },
    stream::acks::Acks,
};

/// Bytes that may be taken out of the queues before the socket has taken them.
const AHEAD: usize = 128 * 1024;

/// How the peer confirms what it got.
#[derive(Debug)]
pub enum Confirmation {
    /// Not at all: written is delivered.
    Written,
    /// XEP-0198.
    Acks { acks: Acks, asked: Option<Instant> },
    /// A gateway without XEP-0198 that answers a `db:verify` on the same stream after what came
    /// before it: `asked` is the number of the question in flight and how many it covers.
    Probe {
        next: u64,
        asked: Option<(u64, usize, Instant)>,
        last: Option<Instant>,
    },
}

/// A batch that left its queue.
#[derive(Debug)]
struct Sent {
    route: Arc<Route>,
    batch: Batch,
}

/// What is to be written.
#[derive(Debug)]
enum Piece {
    Control(Bytes),
    Stanzas { bytes: Bytes },
}

#[derive(Debug)]
pub struct Egress {
    pieces: VecDeque<Piece>,
    /// Bytes in `pieces`.
    ahead: usize,
    /// In the order of sending; the last `unwritten` are not written yet.
    sent: VecDeque<Sent>,
    unwritten: usize,
    pub confirmation: Confirmation,
    pub last_stanza: Option<Instant>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            pieces: VecDeque::new(),
            ahead: 0,
            sent: VecDeque::new(),
            unwritten: 0,
            confirmation: Confirmation::Written,
            last_stanza: None,
        }
    }
}

impl Egress {
    /// Bytes of our own: negotiation, acks, keep-alives.
    pub fn control(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.ahead += bytes.len();
            self.pieces.push_back(Piece::Control(bytes));
        }
    }

    /// Whether another batch may be taken out of a queue.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.ahead < AHEAD
    }

    /// A batch of `route` goes out on this stream.
    pub fn send(&mut self, route: &Arc<Route>, mut batch: Batch, now: Instant) {
        batch.sendings += 1;
        let bytes = batch.unsettled();
        self.ahead += bytes.len();
        if let Confirmation::Acks { acks, .. } = &mut self.confirmation {
            acks.sent(batch.count());
        }
        self.pieces.push_back(Piece::Stanzas { bytes });
        self.sent.push_back(Sent {
            route: Arc::clone(route),
            batch,
        });
        self.unwritten += 1;
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
            Some(Piece::Control(bytes) | Piece::Stanzas { bytes }) => bytes,
            None => &[],
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The transport took `count` bytes of [`Self::front`].
    pub fn wrote(&mut self, count: usize) {
        self.ahead -= count;
        let done = match self.pieces.front_mut() {
            Some(Piece::Control(bytes) | Piece::Stanzas { bytes }) => {
                bytes.advance(count);
                bytes.is_empty()
            }
            None => false,
        };
        if done && matches!(self.pieces.pop_front(), Some(Piece::Stanzas { .. })) {
            self.unwritten -= 1;
        }
    }

    /// The transport has handed everything so far to the network: settles where nothing better can
    /// be had.
    pub fn flushed(&mut self, total: &Total) {
        if matches!(self.confirmation, Confirmation::Written) {
            while self.sent.len() > self.unwritten {
                self.settle_front(total);
            }
        }
    }

    fn settle_front(&mut self, total: &Total) {
        if let Some(Sent { route, batch }) = self.sent.pop_front() {
            let held = batch.held();
            batch.settle();
            route.release(held, total);
        }
    }

    /// The peer confirmed the next `count` stanzas.
    pub fn confirmed(&mut self, mut count: u32, total: &Total) {
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
            self.settle_front(total);
        }
    }

    /// The sign of life number `number` came back: what was sent before it has arrived.
    pub fn probe_answered(&mut self, number: u64, total: &Total) {
        if let Confirmation::Probe { asked, .. } = &mut self.confirmation
            && let Some((own, covers, _)) = *asked
            && own == number
        {
            *asked = None;
            for _ in 0..covers {
                self.settle_front(total);
            }
        }
    }

    /// Batches that were written whole and wait for confirmation.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        match self.confirmation {
            Confirmation::Written => 0,
            _ => self.sent.len() - self.unwritten,
        }
    }

    /// All batches that are in custody here.
    #[must_use]
    pub fn in_custody(&self) -> usize {
        self.sent.len()
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

    /// The stream is over: everything in custody, by route, in order.
    pub fn abandon(&mut self) -> Vec<(Arc<Route>, Vec<Batch>)> {
        let mut by_route: Vec<(Arc<Route>, Vec<Batch>)> = Vec::new();
        for Sent { route, batch } in self.sent.drain(..) {
            match by_route
                .iter_mut()
                .find(|(own, _)| Arc::ptr_eq(own, &route))
            {
                Some((_, batches)) => batches.push(batch),
                None => by_route.push((route, vec![batch])),
            }
        }
        self.pieces.clear();
        self.ahead = 0;
        self.unwritten = 0;
        by_route
    }
}
