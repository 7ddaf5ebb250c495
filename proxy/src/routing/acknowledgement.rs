//! Custody: which stanzas of a stream have been taken care of, so that they may be acknowledged.
//!
//! XEP-0198 acknowledges a prefix, while stanzas are settled in any order: a [`AckTracker`] keeps the
//! prefix and the ranges ahead of it. Ranges that touch are one: there are never more of them than
//! stanzas that still wait somewhere, and those are bounded by what queues may hold. A stanza is
//! settled once the next hop acknowledged it, once it was answered, or, where the next hop cannot
//! acknowledge, once it was written.
//!
//! Where neither the stanza arrived nor the error to its sender, nobody has it any more and it is settled too: a stream
//! has no word for that. Who has one for its own sender asks for [`AckTracker::take_fate`].
//!
//! A process that ends can neither deliver nor answer everything that it took. What it cannot is given
//! back: it is never acknowledged, and holds up no end in order, after which its sender has it still.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::wake::Wake;

/// One for each receiving stream whose peer counts on acknowledgements, and for each received pair of a
/// trunk.
#[derive(Debug)]
pub struct AckTracker {
    state: Mutex<TrackerState>,
    owner: AckOwner,
}

/// Who acknowledges.
#[derive(Debug)]
enum AckOwner {
    Stream(Arc<Wake>),
    /// A trunk, which counts for each of its many pairs.
    Trunk {
        moved: Arc<MovedPairs>,
        pair: u32,
    },
}

/// The pairs of one trunk of which something was settled: it asks these, and not all that it carries.
#[derive(Debug, Default)]
pub struct MovedPairs {
    /// Each once.
    pairs: Mutex<Vec<u32>>,
    /// Stanzas of all pairs that were settled or given back.
    done: AtomicU64,
    wake: Arc<Wake>,
}

impl MovedPairs {
    /// `wake` is told when there is a first one.
    #[must_use]
    pub fn new(wake: Arc<Wake>) -> Self {
        Self {
            pairs: Mutex::default(),
            done: AtomicU64::new(0),
            wake,
        }
    }

    /// Stanzas of all pairs, ended ones too, that were settled or given back. What was settled stands in
    /// [`Self::take`] before it counts here.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.lock().is_empty()
    }

    /// At most `most` of them, those that moved first.
    #[must_use]
    pub fn take(&self, most: usize) -> Vec<u32> {
        let mut pairs = self.pairs.lock();
        if pairs.len() <= most {
            return std::mem::take(&mut *pairs);
        }
        pairs.drain(..most).collect()
    }

    fn push(&self, pair: u32) {
        let mut pairs = self.pairs.lock();
        pairs.push(pair);
        if pairs.len() == 1 {
            drop(pairs);
            self.wake.wake();
        }
    }
}

#[derive(Debug, Default)]
struct TrackerState {
    /// A trunk knows that there is news.
    has_moved: bool,
    /// All stanzas before this number are settled.
    settled: u64,
    /// Settled ranges beyond, start to end (exclusive); none touches another.
    ahead: BTreeMap<u64, u64>,
    /// Stanzas that were settled, wherever they stand, or given back.
    done: u64,
    /// Some of them were given back: the prefix grows no more.
    gave_back: bool,
    /// Of some of them nothing came, and their senders were not told.
    has_lost: bool,
}

/// What became of the one stanza of a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StanzaFate {
    /// Somebody holds it.
    Held,
    /// It was delivered or answered.
    Settled,
    /// Neither, and its sender was not told: the error found no room on its way.
    Lost,
    /// Its sender has it still.
    GivenBack,
}

impl AckTracker {
    #[must_use]
    pub fn new(wake: Arc<Wake>) -> Self {
        Self {
            state: Mutex::default(),
            owner: AckOwner::Stream(wake),
        }
    }

    /// Of the pair of this number on a trunk.
    #[must_use]
    pub fn of_pair(moved: Arc<MovedPairs>, pair: u32) -> Self {
        Self {
            state: Mutex::default(),
            owner: AckOwner::Trunk { moved, pair },
        }
    }

    /// How many stanzas from the stream's first on are settled without a gap.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.state.lock().settled
    }

    /// As [`Self::settled`], for a trunk that took the pair off its [`MovedPairs`]: it is put there again
    /// with the next stanza that is settled.
    #[must_use]
    pub fn take_settled(&self) -> u64 {
        let mut state = self.state.lock();
        state.has_moved = false;
        state.settled
    }

    /// What became of the stanza, where there is no other. As [`Self::take_settled`], for who took it off its
    /// [`MovedPairs`].
    #[must_use]
    pub fn take_fate(&self) -> StanzaFate {
        let mut state = self.state.lock();
        state.has_moved = false;
        if state.has_lost {
            StanzaFate::Lost
        } else if state.settled > 0 {
            StanzaFate::Settled
        } else if state.gave_back {
            StanzaFate::GivenBack
        } else {
            StanzaFate::Held
        }
    }

    /// Memory held beside the tracker itself, in bytes: it grows with the gaps, not with the stanzas.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.lock().ahead.len() * size_of::<(u64, u64)>()
    }

    /// How many stanzas were settled, gaps or not, or given back.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.state.lock().done
    }

    fn settle(&self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.done += count;
        let has_prefix = state.settle(first, count);
        let had_moved = state.has_moved;
        state.has_moved |= has_prefix;
        let wakes = has_prefix || state.gave_back;
        drop(state);
        match &self.owner {
            AckOwner::Stream(wake) if wakes => wake.wake(),
            AckOwner::Stream(_) => {}
            AckOwner::Trunk { moved, pair } => {
                if has_prefix && !had_moved {
                    moved.push(*pair);
                }
                moved.done.fetch_add(count, Ordering::Release);
                if wakes && !has_prefix {
                    moved.wake.wake();
                }
            }
        }
    }

    /// As [`Self::settle`], and remembered.
    fn lose(&self, first: u64, count: u64) {
        self.state.lock().has_lost |= count > 0;
        self.settle(first, count);
    }

    fn give_back(&self, count: u64) {
        if count == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.done += count;
        state.gave_back = true;
        drop(state);
        match &self.owner {
            AckOwner::Stream(wake) => wake.wake(),
            AckOwner::Trunk { moved, .. } => {
                moved.done.fetch_add(count, Ordering::Release);
                moved.wake.wake();
            }
        }
    }
}

impl TrackerState {
    /// Whether the prefix has grown.
    fn settle(&mut self, first: u64, count: u64) -> bool {
        debug_assert!(first >= self.settled, "stanza {first} is settled twice");
        let end = first + count;
        let end = self.ahead.remove(&end).unwrap_or(end);
        if first != self.settled {
            match self.ahead.range_mut(..=first).next_back() {
                Some((_, before)) if *before == first => *before = end,
                before => {
                    debug_assert!(
                        before.is_none_or(|(_, before)| *before < first),
                        "stanza {first} is settled twice"
                    );
                    self.ahead.insert(first, end);
                }
            }
            return false;
        }
        self.settled = end;
        true
    }
}

/// The stanzas `first .. first + count` of one stream: whoever holds it owes them to their sender.
/// Dropping it settles nothing.
#[derive(Clone, Debug)]
pub struct AckToken {
    pub ledger: Arc<AckTracker>,
    pub first: u64,
    pub count: u32,
}

impl AckToken {
    /// All of them are taken care of.
    pub fn settle(self) {
        self.ledger.settle(self.first, u64::from(self.count));
    }

    /// Neither delivered nor answered, and nobody has them: nothing more can be done for them.
    pub fn lose(self) {
        self.ledger.lose(self.first, u64::from(self.count));
    }

    /// Neither delivered nor answered: their sender has them still.
    pub fn give_back(self) {
        self.ledger.give_back(u64::from(self.count));
    }

    /// The first `count` are taken care of; the rest remains.
    pub fn settle_first(&mut self, count: u32) {
        let count = count.min(self.count);
        self.ledger.settle(self.first, u64::from(count));
        self.first += u64::from(count);
        self.count -= count;
    }

    /// The first of them, owed apart from the rest; `None` where none is left.
    pub fn take_first(&mut self) -> Option<Self> {
        self.count = self.count.checked_sub(1)?;
        self.first += 1;
        Some(Self {
            ledger: Arc::clone(&self.ledger),
            first: self.first - 1,
            count: 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_prefix_without_gap_counts_as_settled() {
        let ledger = Arc::new(AckTracker::new(Arc::default()));
        let of = |first, count| AckToken {
            ledger: Arc::clone(&ledger),
            first,
            count,
        };
        of(2, 3).settle();
        assert_eq!(ledger.settled(), 0);
        of(0, 1).settle();
        assert_eq!(ledger.settled(), 1);
        of(1, 1).settle();
        assert_eq!(ledger.settled(), 5);
        let mut rest = of(5, 4);
        rest.settle_first(3);
        assert_eq!((ledger.settled(), rest.first, rest.count), (8, 8, 1));
    }

    #[test]
    fn a_flood_that_is_settled_at_once_costs_a_constant_while_one_stanza_waits() {
        let ledger = Arc::new(AckTracker::new(Arc::default()));
        let of = |first| AckToken {
            ledger: Arc::clone(&ledger),
            first,
            count: 1,
        };
        let mut most = 0;
        // In bursts that come back to front too: the order of settling is anybody's.
        for burst in 0..10_000_u64 {
            let first = 1 + burst * 10;
            for at in 0..10 {
                let at = if burst % 2 == 0 { at } else { 9 - at };
                of(first + at).settle();
            }
            most = most.max(ledger.held());
        }
        assert_eq!(ledger.settled(), 0, "the first stanza waits");
        assert!(most <= 2 * size_of::<(u64, u64)>(), "{most} bytes");
        of(0).settle();
        assert_eq!((ledger.settled(), ledger.held()), (100_001, 0));
    }

    #[test]
    fn what_is_given_back_is_never_acknowledged_and_nothing_waits_for_it() {
        let moved = Arc::new(MovedPairs::default());
        for owner in [
            AckTracker::new(Arc::default()),
            AckTracker::of_pair(Arc::clone(&moved), 0),
        ] {
            let ledger = Arc::new(owner);
            let of = |first, count| AckToken {
                ledger: Arc::clone(&ledger),
                first,
                count,
            };
            of(0, 2).settle();
            of(2, 1).give_back();
            of(3, 2).settle();
            assert_eq!((ledger.settled(), ledger.done()), (2, 5));
        }
        assert_eq!(moved.done(), 5);
    }

    #[test]
    fn what_was_lost_is_acknowledged_and_not_taken_for_delivered() {
        let moved = Arc::new(MovedPairs::default());
        let fate = |end: fn(AckToken)| {
            let ledger = Arc::new(AckTracker::of_pair(Arc::clone(&moved), 0));
            end(AckToken {
                ledger: Arc::clone(&ledger),
                first: 0,
                count: 1,
            });
            (ledger.take_fate(), ledger.settled())
        };
        assert_eq!(fate(drop), (StanzaFate::Held, 0));
        assert_eq!(fate(AckToken::settle), (StanzaFate::Settled, 1));
        assert_eq!(fate(AckToken::lose), (StanzaFate::Lost, 1));
        assert_eq!(fate(AckToken::give_back), (StanzaFate::GivenBack, 0));
    }

    #[test]
    fn a_trunk_learns_once_of_each_pair_that_moved() {
        let moved = Arc::new(MovedPairs::default());
        let ledgers: Vec<_> = (0..3)
            .map(|pair| Arc::new(AckTracker::of_pair(Arc::clone(&moved), pair)))
            .collect();
        let settle = |pair: usize, first| {
            AckToken {
                ledger: Arc::clone(&ledgers[pair]),
                first,
                count: 1,
            }
            .settle();
        };
        settle(2, 0);
        settle(2, 1);
        settle(0, 1);
        settle(1, 0);
        assert_eq!(moved.take(1), [2]);
        assert_eq!(ledgers[2].take_settled(), 2);
        settle(2, 2);
        assert_eq!(moved.take(9), [1, 2], "of 0 the first stanza waits");
        assert!(moved.is_empty());
    }

    proptest! {
        #[test]
        fn settling_in_any_order_ends_at_the_same_count(
            cuts in prop::collection::vec(1_u32..9, 1..40),
            keys in prop::collection::vec(any::<u64>(), 40),
        ) {
            let ledger = Arc::new(AckTracker::new(Arc::default()));
            let mut first = 0_u64;
            let mut receipts = Vec::new();
            for (cut, key) in cuts.iter().zip(keys) {
                receipts.push((key, AckToken { ledger: Arc::clone(&ledger), first, count: *cut }));
                first += u64::from(*cut);
            }
            receipts.sort_by_key(|(key, _)| *key);
            for (_, receipt) in receipts {
                receipt.settle();
            }
            prop_assert_eq!(ledger.settled(), first);
        }
    }
}
