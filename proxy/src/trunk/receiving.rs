//! The pairs that the peer opened on a trunk: by number, by domains, and what was settled of each.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Instant,
};

use xmpp_edge_crds::domain::DomainName;

use super::{
    MOST_PAIRS, PairNumber,
    fault::TrunkFault,
    nonza::{OpenedPair, PairCount},
};
use crate::{
    negotiation::Pair,
    routing::acknowledgement::{AckTracker, MovedPairs},
};

/// All of them; `T` is what the stream keeps of each.
#[derive(Debug)]
pub struct ReceivedPairs<T> {
    pairs: HashMap<PairNumber, ReceivedPair<T>>,
    /// By `from`, then by `to`: a stanza's domains are looked up as they stand in it.
    numbers: HashMap<DomainName, HashMap<DomainName, PairNumber>>,
    moved: Arc<MovedPairs>,
    /// Stanzas that were taken in, of all pairs there ever were.
    received: u64,
    /// Of these, how many were not counted in an `<a/>` yet.
    unacknowledged: u64,
}

/// One of them.
#[derive(Debug)]
pub struct ReceivedPair<T> {
    pub pair: Pair,
    pub what: T,
    tracker: Arc<AckTracker>,
    /// Stanzas taken in.
    received: u64,
    /// Of these, how many the peer was told of.
    told: u64,
    /// How many that was when first it was seen not to move, and when.
    standstill: Option<(u64, Instant)>,
}

impl<T> ReceivedPair<T> {
    /// Who is told that a stanza of the pair needs nothing more.
    #[must_use]
    pub fn tracker(&self) -> &Arc<AckTracker> {
        &self.tracker
    }

    /// What is kept of it, and as [`Self::tracker`].
    pub fn parts(&mut self) -> (&mut T, &Arc<AckTracker>) {
        (&mut self.what, &self.tracker)
    }
}

impl<T> ReceivedPairs<T> {
    /// `moved` is told of pairs of which something was settled.
    #[must_use]
    pub fn new(moved: Arc<MovedPairs>) -> Self {
        Self {
            pairs: HashMap::new(),
            numbers: HashMap::new(),
            moved,
            received: 0,
            unacknowledged: 0,
        }
    }

    /// A `<pair/>` came.
    ///
    /// # Errors
    /// [`TrunkFault`] where its number or its domains are in use, or where [`MOST_PAIRS`] are open.
    pub fn open(&mut self, opened: OpenedPair, what: T) -> Result<(), TrunkFault> {
        let OpenedPair { number, pair } = opened;
        let is_full = self.pairs.len() >= MOST_PAIRS;
        let Entry::Vacant(entry) = self.pairs.entry(number) else {
            return Err(TrunkFault::NumberInUse(number));
        };
        if is_full {
            return Err(TrunkFault::TooManyPairs);
        }
        let to = self.numbers.entry(pair.from.clone()).or_default();
        if let Some(old) = to.get(&pair.to) {
            return Err(TrunkFault::PairInUse {
                new: number,
                old: *old,
            });
        }
        to.insert(pair.to.clone(), number);
        entry.insert(ReceivedPair {
            pair,
            what,
            tracker: Arc::new(AckTracker::of_pair(Arc::clone(&self.moved), number.0)),
            received: 0,
            told: 0,
            standstill: None,
        });
        Ok(())
    }

    /// The number of the pair of these domains, in canonical form.
    #[must_use]
    pub fn number(&self, from: &str, to: &str) -> Option<PairNumber> {
        self.numbers.get(from)?.get(to).copied()
    }

    #[must_use]
    pub fn get(&self, number: PairNumber) -> Option<&ReceivedPair<T>> {
        self.pairs.get(&number)
    }

    #[must_use]
    pub fn get_mut(&mut self, number: PairNumber) -> Option<&mut ReceivedPair<T>> {
        self.pairs.get_mut(&number)
    }

    /// A stanza of the pair is taken in: its number among them, from 0 on. `None` where the pair is not
    /// open.
    pub fn receive(&mut self, number: PairNumber) -> Option<u64> {
        let pair = self.pairs.get_mut(&number)?;
        let stanza = pair.received;
        pair.received += 1;
        self.received += 1;
        self.unacknowledged += 1;
        Some(stanza)
    }

    /// An `<end/>` came.
    ///
    /// # Errors
    /// [`TrunkFault`] where the pair is not open, or where the peer does not know yet that all its
    /// stanzas were settled.
    pub fn end(&mut self, number: PairNumber) -> Result<T, TrunkFault> {
        let Entry::Occupied(entry) = self.pairs.entry(number) else {
            return Err(TrunkFault::UnknownPair(number));
        };
        if entry.get().told != entry.get().received {
            return Err(TrunkFault::EndedTooEarly(number));
        }
        let ReceivedPair { pair, what, .. } = entry.remove();
        if let Entry::Occupied(mut to) = self.numbers.entry(pair.from) {
            to.get_mut().remove(&pair.to);
            if to.get().is_empty() {
                to.remove();
            }
        }
        Ok(what)
    }

    /// What is to be told of the pairs that moved, of `most` at most.
    pub fn counts(&mut self, most: usize) -> Vec<PairCount> {
        let moved = self.moved.take(most);
        let mut counts = Vec::with_capacity(moved.len());
        for number in moved.into_iter().map(PairNumber) {
            let Some(pair) = self.pairs.get_mut(&number) else {
                continue;
            };
            let settled = pair.tracker.take_settled();
            self.unacknowledged -= settled - pair.told;
            pair.told = settled;
            // Modulo 2³²: the cast is the count.
            #[allow(clippy::cast_possible_truncation)]
            let h = settled as u32;
            counts.push(PairCount { number, h });
        }
        counts
    }

    /// Whether [`Self::counts`] has something to tell.
    #[must_use]
    pub fn have_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// Whether a stanza is neither settled nor given back, or the peer was not told of one that is settled.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        // In this order: what is done has moved before.
        self.moved.done() != self.received || self.have_moved()
    }

    /// Stanzas that were taken in and of which the peer does not know that they were settled.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.unacknowledged
    }

    /// Since when nothing was settled of the pair that waits longest, as far as this was asked before. Looks at
    /// each pair.
    pub fn oldest_unsettled(&mut self, now: Instant) -> Option<Instant> {
        if self.unacknowledged == 0 {
            // What stands still begins anew then.
            return None;
        }
        let mut oldest = None;
        for pair in self.pairs.values_mut() {
            pair.standstill = match pair.standstill {
                _ if pair.told == pair.received => None,
                Some((told, since)) if told == pair.told => Some((told, since)),
                _ => Some((pair.told, now)),
            };
            let since = pair.standstill.map(|(_, since)| since);
            oldest = oldest.into_iter().chain(since).min();
        }
        oldest
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// All of them, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut ReceivedPair<T>> {
        self.pairs.values_mut()
    }
}
