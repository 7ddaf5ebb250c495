//! What partner objects may take of what there is for all, and whose turn is next: none takes the room of the others.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// Of what there is for all one partner object may take so much: a quarter.
pub const SHARES: usize = 4;

/// Whose account something is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SipShare(Arc<str>);

impl SipShare {
    /// The account of a partner object; `None`: of those who are nobody's.
    #[must_use]
    pub fn of(object: Option<&str>) -> Self {
        Self(object.unwrap_or("other").into())
    }
}

/// Places, of which there are so many.
#[derive(Debug)]
pub struct SharedRoom {
    most: usize,
    taken: usize,
    by_share: HashMap<SipShare, usize>,
}

impl SharedRoom {
    /// Of `most` places.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: 0,
            by_share: HashMap::new(),
        }
    }

    /// Whether there is a place for one more of this account.
    #[must_use]
    pub fn has_room(&self, share: &SipShare) -> bool {
        let own = self.by_share.get(share).copied().unwrap_or_default();
        !self.is_full() && own < (self.most / SHARES).max(1)
    }

    /// Whether there is no place for anybody.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.taken >= self.most
    }

    /// One more is taken; whether there [is room](Self::has_room) its caller has looked.
    pub fn take(&mut self, share: &SipShare) {
        self.taken += 1;
        *self.by_share.entry(share.clone()).or_default() += 1;
    }

    /// One that was taken is free again.
    pub fn give_back(&mut self, share: &SipShare) {
        let Some(own) = self.by_share.get_mut(share) else {
            debug_assert!(false, "what is given back was taken");
            return;
        };
        *own -= 1;
        if *own == 0 {
            self.by_share.remove(share);
        }
        self.taken -= 1;
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }
}

/// Accounts of which something is ready, in the order of their turns.
#[derive(Debug, Default)]
pub struct ShareRounds {
    order: VecDeque<SipShare>,
    members: HashSet<SipShare>,
}

impl ShareRounds {
    /// Something of it is ready: it has its turn after those that wait for theirs.
    pub fn join(&mut self, share: &SipShare) {
        if self.members.insert(share.clone()) {
            self.order.push_back(share.clone());
        }
    }

    /// As [`Self::join`], before all others.
    pub fn join_first(&mut self, share: &SipShare) {
        if self.order.front() != Some(share) {
            self.leave(share);
            self.members.insert(share.clone());
            self.order.push_front(share.clone());
        }
    }

    /// Nothing of it is ready any more.
    pub fn leave(&mut self, share: &SipShare) {
        if self.members.remove(share)
            && let Some(at) = self.order.iter().rposition(|own| own == share)
        {
            self.order.remove(at);
        }
    }

    /// Whose turn it is, of those that `may`. It has had it, and joins again where more of it is ready.
    pub fn next(&mut self, may: impl Fn(&SipShare) -> bool) -> Option<SipShare> {
        let at = self.order.iter().position(may)?;
        let share = self.order.remove(at)?;
        self.members.remove(&share);
        Some(share)
    }

    /// As [`Self::next`], which is not taken.
    #[must_use]
    pub fn first(&self, may: impl Fn(&SipShare) -> bool) -> Option<&SipShare> {
        self.order.iter().find(|share| may(share))
    }

    #[must_use]
    pub fn has(&self, share: &SipShare) -> bool {
        self.members.contains(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(name: &str) -> SipShare {
        SipShare::of(Some(name))
    }

    #[test]
    fn one_account_takes_a_quarter_of_the_places_and_all_together_no_more_than_there_are() {
        let mut room = SharedRoom::new(8);
        for name in ["a", "b", "c", "d"] {
            let own = share(name);
            for _ in 0..2 {
                assert!(room.has_room(&own), "{name}");
                room.take(&own);
            }
            assert!(!room.has_room(&own), "{name}");
        }
        assert!(room.is_full() && !room.has_room(&SipShare::of(None)));
        room.give_back(&share("b"));
        assert_eq!(room.taken(), 7);
        assert!(!room.has_room(&share("a")) && room.has_room(&share("b")));
        assert!(room.has_room(&share("e")));
        // Of few each may have one.
        assert!(SharedRoom::new(1).has_room(&share("a")));
    }

    #[test]
    fn accounts_take_turns_and_who_may_not_keeps_its_place() {
        let mut rounds = ShareRounds::default();
        for name in ["a", "b", "c", "b"] {
            rounds.join(&share(name));
        }
        let not_a = |own: &SipShare| *own != share("a");
        assert_eq!(rounds.next(not_a), Some(share("b")));
        rounds.join(&share("b"));
        assert_eq!(rounds.first(|_| true), Some(&share("a")));
        assert_eq!(rounds.next(|_| true), Some(share("a")));
        assert!(!rounds.has(&share("a")) && rounds.has(&share("b")));
        rounds.join_first(&share("b"));
        assert_eq!(rounds.next(|_| true), Some(share("b")));
        rounds.leave(&share("c"));
        assert_eq!(rounds.next(|_| true), None);
    }
}
