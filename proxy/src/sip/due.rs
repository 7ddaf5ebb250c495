//! Who is due when: times in order, each with whose it is.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use super::share::{ShareRounds, SipShare};

/// In place of `before` the time of `whose` is `now`; none: nothing is due.
pub(super) fn move_due<N: Copy + Ord>(
    times: &mut BTreeSet<(Instant, N)>,
    whose: N,
    before: Option<Instant>,
    now: Option<Instant>,
) {
    if before == now {
        return;
    }
    if let Some(at) = before {
        times.remove(&(at, whose));
    }
    if let Some(at) = now {
        times.insert((at, whose));
    }
}

/// As times in order, on the accounts of partner objects: those of which something is due take turns, however long what
/// others have has been due.
#[derive(Debug)]
pub(super) struct SharedDue<N> {
    by_share: HashMap<SipShare, BTreeSet<(Instant, N)>>,
    /// The first time of each account that waits for it.
    waiting: BTreeSet<(Instant, SipShare)>,
    /// Accounts of which something was due when that was asked last.
    rounds: ShareRounds,
}

impl<N> Default for SharedDue<N> {
    fn default() -> Self {
        Self {
            by_share: HashMap::new(),
            waiting: BTreeSet::new(),
            rounds: ShareRounds::default(),
        }
    }
}

impl<N: Copy + Ord> SharedDue<N> {
    /// As [`move_due`].
    pub(super) fn set(
        &mut self,
        share: &SipShare,
        whose: N,
        before: Option<Instant>,
        now: Option<Instant>,
    ) {
        let own = self.by_share.entry(share.clone()).or_default();
        let first = |own: &BTreeSet<(Instant, N)>| own.first().map(|(at, _)| *at);
        let old = first(own);
        move_due(own, whose, before, now);
        let new = first(own);
        if own.is_empty() {
            self.by_share.remove(share);
        }
        if old == new {
            return;
        }
        if self.rounds.has(share) {
            if new.is_some() && new < old {
                return;
            }
            // What is left may not be due.
            self.rounds.leave(share);
        }
        if let Some(at) = old {
            self.waiting.remove(&(at, share.clone()));
        }
        if let Some(at) = new {
            self.waiting.insert((at, share.clone()));
        }
    }

    /// What is due, of the account whose turn it is among those that `may`. It stays due until its time is another one.
    pub(super) fn next(&mut self, now: Instant, may: impl Fn(&SipShare) -> bool) -> Option<N> {
        while let Some((_, share)) = self.waiting.first().filter(|(at, _)| *at <= now).cloned() {
            self.waiting.pop_first();
            self.rounds.join(&share);
        }
        let share = self.rounds.next(may)?;
        let (_, whose) = self.by_share.get(&share)?.first().copied()?;
        self.rounds.join(&share);
        Some(whose)
    }

    /// When [`Self::next`] has something to give.
    pub(super) fn next_at(&self, may: impl Fn(&SipShare) -> bool) -> Option<Instant> {
        let ready = self.rounds.first(may);
        let ready = ready.and_then(|share| self.by_share.get(share)?.first());
        let waiting = self.waiting.first().map(|(at, _)| *at);
        ready.map(|(at, _)| *at).into_iter().chain(waiting).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn share(name: &str) -> SipShare {
        SipShare::of(Some(name))
    }

    /// What is due at this second, each taken as it comes.
    fn taken(
        due: &mut SharedDue<u32>,
        times: &[(&str, u32, u64)],
        start: Instant,
        second: u64,
    ) -> Vec<u32> {
        let at = |second| start + Duration::from_secs(second);
        let mut taken = Vec::new();
        while let Some(whose) = due.next(at(second), |_| true) {
            taken.push(whose);
            let (name, _, second) = times.iter().find(|it| it.1 == whose).expect("its time");
            due.set(&share(name), whose, Some(at(*second)), None);
        }
        taken
    }

    #[test]
    fn who_has_much_to_do_keeps_nobody_waiting() {
        let (mut due, start) = (SharedDue::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let times = [
            ("much", 1, 0),
            ("much", 2, 0),
            ("much", 3, 1),
            ("little", 4, 2),
            ("other", 5, 2),
            ("much", 6, 9),
        ];
        for (name, whose, second) in times {
            due.set(&share(name), whose, None, Some(at(second)));
        }
        assert_eq!(due.next_at(|_| true), Some(at(0)));
        assert_eq!(taken(&mut due, &times, start, 2), [1, 4, 5, 2, 3]);
        assert_eq!(due.next_at(|_| true), Some(at(9)));
        assert_eq!(taken(&mut due, &times, start, 9), [6]);
        assert_eq!(due.next_at(|_| true), None);
    }

    #[test]
    fn who_may_not_go_is_asked_for_no_more_until_it_may() {
        let (mut due, start) = (SharedDue::default(), Instant::now());
        let later = start + Duration::from_secs(5);
        due.set(&share("full"), 1, None, Some(start));
        due.set(&share("free"), 2, None, Some(later));
        let may = |own: &SipShare| *own != share("full");
        assert_eq!(due.next(start, may), None);
        assert_eq!(due.next_at(may), Some(later), "it would be asked for ever");
        assert_eq!(due.next(later, may), Some(2));
        assert_eq!(due.next(later, |_| true), Some(1));
        // What was due is put off.
        due.set(
            &share("full"),
            1,
            Some(start),
            Some(later + Duration::from_secs(1)),
        );
        due.set(&share("free"), 2, Some(later), None);
        assert_eq!(due.next(later, |_| true), None);
        assert_eq!(due.next_at(|_| true), Some(later + Duration::from_secs(1)));
    }
}
