//! The sending half of a trunk: what is written next, and what is in custody of each pair until the peer
//! acknowledged it. Knows no socket: the stream writes what [`TrunkBuffer::front`] shows.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::{Buf, Bytes};

use super::{
    MOST_PAIRS, PairIdle, PairNumber,
    fault::{TrunkFault, too_high},
    nonza::{Nonza, OpenedPair, TrunkAck},
};
use crate::{
    negotiation::{Pair, acks::SentCount},
    routing::{batch::Batch, route::Route, wake::RouteSlot},
};

/// Bytes that may be taken out of the queues before the socket has taken them.
const AHEAD: usize = 128 * 1024;
/// Bytes of nonzas that may wait for the socket before no further acks are made: counts tell of what went
/// before, too.
const NONZAS_AHEAD: usize = 64 * 1024;
/// And so many are more than a peer that reads leaves unread.
const MOST_NONZAS: usize = 1024 * 1024;
/// How often a batch may be handed to a stream: once, and once more when that stream died.
const SENDINGS: u8 = 2;
/// As [`SENDINGS`], where the last one fell silent: several edges that are cut off at once are given up one after
/// the other, and what the first had goes out into the silence of the next.
const SENDINGS_INTO_SILENCE: u8 = 3;

/// What is to be written.
#[derive(Debug)]
enum TrunkPiece {
    Nonza(Bytes),
    /// The oldest batch of its pair that is not written whole.
    Stanzas {
        number: PairNumber,
        bytes: Bytes,
        /// Where `bytes` begins in its batch.
        at: usize,
        /// The batch's first stanza that is not written whole.
        next: u32,
    },
}

/// One pair that this side opened, and its ledger.
#[derive(Debug)]
struct SentPair {
    route: Arc<Route>,
    /// In the order of sending; the last `unwritten` are not written whole.
    custody: VecDeque<Batch>,
    unwritten: usize,
    /// Bytes in `custody`.
    bytes: usize,
    count: SentCount,
    /// When a stanza was sent, or acknowledged, last.
    used: Instant,
    /// Who had his turn while the window was full, and has it again with the next ack.
    waits: Option<RouteSlot>,
}

/// Whether something of the first piece has been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FrontPiece {
    #[default]
    Whole,
    Begun,
}

/// What is unacknowledged of all pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrunkCustody {
    pub stanzas: u64,
    pub bytes: usize,
}

/// Whether a pair may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairWindow {
    /// So many bytes more, or one batch where nothing is unacknowledged.
    Open(usize),
    /// The peer's queue of the pair is full, as far as this side knows: it waits for an ack.
    Full,
    /// [`MOST_PAIRS`] are open: what is to go there is answered with `resource-constraint`.
    NoNumber,
}

/// How a trunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkEnd {
    /// Drained by either side: what was not acknowledged was not taken.
    InOrder,
    /// What was written may have been taken.
    OutOfOrder,
    /// The same, and nothing was heard for so long that it was given up.
    Silent,
}

/// Everything of one pair that was in custody of a trunk that has ended.
#[derive(Debug)]
pub struct ReturnedPair {
    pub route: Arc<Route>,
    /// Goes first on the pair's next trunk, in order.
    pub again: Vec<Batch>,
    /// Sent as often as anything is.
    pub lost: Vec<Batch>,
}

/// The sending half of one trunk.
#[derive(Debug, Default)]
pub struct TrunkBuffer {
    pieces: VecDeque<TrunkPiece>,
    /// Bytes in `pieces`.
    ahead: usize,
    /// Of these, in nonzas.
    nonzas: usize,
    front: FrontPiece,
    pairs: HashMap<PairNumber, SentPair>,
    numbers: HashMap<Pair, PairNumber>,
    next: u32,
    /// Most unacknowledged bytes of a pair that the peer takes; until it has said, one batch.
    window: usize,
    custody: TrunkCustody,
    /// Those that waited for an ack, which came.
    released: VecDeque<RouteSlot>,
}

impl TrunkBuffer {
    /// The peer takes so many unacknowledged bytes of a pair.
    pub fn set_window(&mut self, bytes: u64) {
        self.window = usize::try_from(bytes).unwrap_or(usize::MAX);
    }

    /// Something that is no stanza.
    pub fn say(&mut self, nonza: &Nonza) {
        let mut bytes = Vec::new();
        nonza.write(&mut bytes);
        self.raw(bytes);
    }

    /// Bytes of our own: the end of the stream.
    pub fn raw(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.ahead += bytes.len();
        self.nonzas += bytes.len();
        self.pieces.push_back(TrunkPiece::Nonza(bytes));
    }

    /// Whether the peer takes what is said: no further acks are made while it does not.
    #[must_use]
    pub fn nonzas_flow(&self) -> bool {
        self.nonzas < NONZAS_AHEAD
    }

    /// Whether so much is left unread that the peer does not mean to read.
    #[must_use]
    pub fn is_overfull(&self) -> bool {
        self.nonzas >= MOST_NONZAS
    }

    /// Whether the socket has a part of an element, whose rest comes before anything else may.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.front == FrontPiece::Begun
    }

    /// Whether another batch may be taken out of a queue.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.ahead < AHEAD
    }

    /// Whether something of this pair may be sent.
    #[must_use]
    pub fn window(&self, pair: &Pair) -> PairWindow {
        match self.known(pair) {
            None if self.pairs.len() >= MOST_PAIRS => PairWindow::NoNumber,
            None => PairWindow::Open(self.window),
            Some(own) => match self.window.saturating_sub(own.bytes) {
                0 if own.bytes > 0 => PairWindow::Full,
                room => PairWindow::Open(room),
            },
        }
    }

    /// The window of this pair is full: `slot` is released with its next ack.
    pub fn wait(&mut self, pair: &Pair, slot: RouteSlot) {
        let number = self.numbers.get(pair);
        if let Some(own) = number.and_then(|number| self.pairs.get_mut(number)) {
            own.waits = Some(slot);
        }
    }

    /// The next that waited for an ack which has come.
    pub fn released(&mut self) -> Option<RouteSlot> {
        self.released.pop_front()
    }

    /// A batch of `route` goes out on this trunk, behind its `<pair/>` where it is the first. The caller
    /// has asked [`Self::window`]. Gives the batch back where there is no number for its pair.
    #[must_use]
    pub fn send(&mut self, route: &Arc<Route>, mut batch: Batch, now: Instant) -> Option<Batch> {
        let Some(number) = self.number(route, now) else {
            return Some(batch);
        };
        let Some(own) = self.pairs.get_mut(&number) else {
            return Some(batch);
        };
        batch.sendings += 1;
        let bytes = batch.unsettled();
        self.ahead += bytes.len();
        self.custody.bytes += bytes.len();
        self.custody.stanzas += u64::from(batch.count());
        own.bytes += bytes.len();
        own.used = now;
        self.pieces.push_back(TrunkPiece::Stanzas {
            number,
            bytes,
            at: batch.unsettled_from(),
            next: batch.settled(),
        });
        own.custody.push_back(batch);
        own.unwritten += 1;
        None
    }

    /// The pair's number; a new one is told first.
    fn number(&mut self, route: &Arc<Route>, now: Instant) -> Option<PairNumber> {
        if let Some(number) = self.numbers.get(&route.pair) {
            return Some(*number);
        }
        if self.pairs.len() >= MOST_PAIRS {
            return None;
        }
        let number = PairNumber(self.next);
        // Numbers are not given twice: after 2³² of them the trunk takes no new pair, until it is renewed.
        self.next = self.next.checked_add(1)?;
        self.say(&Nonza::Pair(OpenedPair {
            number,
            pair: route.pair.clone(),
        }));
        self.numbers.insert(route.pair.clone(), number);
        self.pairs.insert(
            number,
            SentPair {
                route: Arc::clone(route),
                custody: VecDeque::new(),
                unwritten: 0,
                bytes: 0,
                count: SentCount::default(),
                used: now,
                waits: None,
            },
        );
        Some(number)
    }

    fn known(&self, pair: &Pair) -> Option<&SentPair> {
        self.pairs.get(self.numbers.get(pair)?)
    }

    /// When the oldest stanza came in that is in custody. Looks at each pair.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        if self.custody.stanzas == 0 {
            return None;
        }
        let pairs = self.pairs.values();
        let first = pairs.filter_map(|own| own.custody.front());
        first.map(|batch| batch.arrived).min()
    }

    /// What to write next; empty where there is nothing.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        match self.pieces.front() {
            Some(TrunkPiece::Nonza(bytes) | TrunkPiece::Stanzas { bytes, .. }) => bytes,
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
            Some(TrunkPiece::Nonza(bytes)) => {
                self.nonzas -= count;
                bytes.advance(count);
                bytes.is_empty()
            }
            Some(TrunkPiece::Stanzas {
                number,
                bytes,
                at,
                next,
            }) => {
                bytes.advance(count);
                *at += count;
                let done = bytes.is_empty();
                if let Some(own) = self.pairs.get_mut(number) {
                    let first_unwritten = own.custody.len() - own.unwritten;
                    if let Some(batch) = own.custody.get(first_unwritten) {
                        // Only what was written can be acknowledged: a peer that claims more is refused.
                        let whole = batch.ended(*next, *at);
                        *next += whole;
                        own.count.sent(whole);
                    }
                    own.unwritten -= usize::from(done);
                }
                done
            }
            None => false,
        };
        self.front = FrontPiece::Begun;
        if done {
            self.front = FrontPiece::Whole;
            self.pieces.pop_front();
        }
    }

    /// The peer has settled so much of these pairs.
    ///
    /// # Errors
    /// [`TrunkFault`] where it names a pair that is not open, or claims more than was written.
    pub fn acked(&mut self, ack: &TrunkAck, now: Instant) -> Result<(), TrunkFault> {
        for count in &ack.counts {
            let number = count.number;
            let own = self
                .pairs
                .get_mut(&number)
                .ok_or(TrunkFault::UnknownPair(number))?;
            let fresh = own.count.acknowledge(count.h);
            let fresh = fresh.map_err(|fault| too_high(number, &fault))?;
            let before = own.bytes;
            own.settle(fresh);
            own.used = now;
            self.released.extend(own.waits.take());
            self.custody.stanzas -= u64::from(fresh);
            self.custody.bytes -= before - own.bytes;
        }
        Ok(())
    }

    /// Nothing of this pair is unacknowledged: it may move to another trunk without loss of order.
    #[must_use]
    pub fn is_settled(&self, pair: &Pair) -> bool {
        self.known(pair).is_none_or(|own| own.custody.is_empty())
    }

    /// The pair moves to another trunk: its number is given back. `false` where something is
    /// unacknowledged.
    #[must_use]
    pub fn leave(&mut self, pair: &Pair) -> bool {
        if !self.is_settled(pair) {
            return false;
        }
        if let Some(number) = self.numbers.remove(pair) {
            self.pairs.remove(&number);
            self.say(&Nonza::End(number));
        }
        true
    }

    /// Gives back the numbers of the pairs that were not used for long, and answers whose they were. To be
    /// called now and then: it looks at each pair.
    pub fn end_idle(&mut self, idle: PairIdle, now: Instant) -> Vec<Arc<Route>> {
        let after = idle.of(self.pairs.len());
        let idle = self.pairs.extract_if(|_, own| {
            own.custody.is_empty() && now.saturating_duration_since(own.used) >= after
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable_by_key(|(number, _)| *number);
        for (number, own) in &idle {
            self.numbers.remove(&own.route.pair);
            self.say(&Nonza::End(*number));
        }
        if !idle.is_empty() {
            self.pairs.shrink_to_fit();
            self.numbers.shrink_to_fit();
        }
        idle.into_iter().map(|(_, own)| own.route).collect()
    }

    /// What is unacknowledged of all pairs.
    #[must_use]
    pub fn custody(&self) -> TrunkCustody {
        self.custody
    }

    /// Whether the pair has a number.
    #[must_use]
    pub fn knows(&self, pair: &Pair) -> bool {
        self.numbers.contains_key(pair)
    }

    /// How many pairs are open.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// The trunk is over: everything in custody, by pair in the order of their numbers. It goes out once
    /// more, unless this was its second trunk that died over it.
    pub fn hand_back(&mut self, end: TrunkEnd, now: Instant) -> Vec<ReturnedPair> {
        let mut pairs: Vec<_> = self.pairs.drain().collect();
        pairs.sort_unstable_by_key(|(number, _)| *number);
        self.numbers.clear();
        self.released.clear();
        self.pieces.clear();
        self.ahead = 0;
        self.nonzas = 0;
        self.front = FrontPiece::Whole;
        self.custody = TrunkCustody::default();
        let pairs = pairs.into_iter().map(|(_, own)| own);
        pairs.map(|own| own.hand_back(end, now)).collect()
    }
}

impl SentPair {
    /// The next `count` stanzas, all of them written, are settled.
    fn settle(&mut self, mut count: u32) {
        while count > 0 {
            let Some(front) = self.custody.front_mut() else {
                break;
            };
            let before = front.unsettled().len();
            let settled = count.min(front.count());
            front.settle_first(settled);
            count -= settled;
            self.bytes -= before - front.unsettled().len();
            if front.count() == 0 {
                self.custody.pop_front();
            }
        }
    }

    fn hand_back(self, end: TrunkEnd, now: Instant) -> ReturnedPair {
        // The first that is not written whole may have been read in part.
        let read = self.custody.len() - self.unwritten + 1;
        let most = match end {
            TrunkEnd::InOrder | TrunkEnd::OutOfOrder => SENDINGS,
            TrunkEnd::Silent => SENDINGS_INTO_SILENCE,
        };
        let (mut again, mut lost) = (Vec::new(), Vec::new());
        for (index, mut batch) in self.custody.into_iter().enumerate() {
            batch.arrived = now;
            let was_not_taken = end == TrunkEnd::InOrder || index >= read;
            if was_not_taken {
                batch.sendings -= 1;
            }
            if was_not_taken || batch.sendings < most {
                again.push(batch);
            } else {
                lost.push(batch);
            }
        }
        ReturnedPair {
            route: self.route,
            again,
            lost,
        }
    }
}
