//! Whose message goes next: one at a time for each two people, so that they stay in order, and of many people
//! some beside each other (RFC 3428 section 8, *departs*: it forbids a second to one address; the gateway is
//! the user agent of each who writes).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use xmpp_edge_crds::jid::BareJid;

use super::share::{ShareRounds, SipShare};

/// Who writes to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TwoPeople {
    pub from: BareJid,
    pub to: BareJid,
}

impl TwoPeople {
    /// Memory held beside the value itself, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let len = |jid: &BareJid| jid.local().map_or(0, str::len) + jid.domain().as_str().len();
        len(&self.from) + len(&self.to)
    }

    /// The other way round.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
        }
    }
}

/// Beside the texts of their addresses and the message, roughly what two people take of whom something waits: the
/// addresses, and places in the two indices.
pub const TURN_OVERHEAD: usize = 384;

/// What waits, by who writes to whom. Its memory is the caller's to bound: what waits here is held by the
/// route that it came from; and so is how much may be in work.
#[derive(Debug)]
pub struct MessageTurns<T> {
    /// All of whom something waits or is in work.
    people: HashMap<Arc<TwoPeople>, WaitingMessages<T>>,
    /// Those of whom something waits and nothing is in work, in the order of their turns, by their accounts.
    ready: HashMap<SipShare, VecDeque<Arc<TwoPeople>>>,
    /// Accounts of which somebody is ready.
    rounds: ShareRounds,
}

#[derive(Debug)]
struct WaitingMessages<T> {
    queue: VecDeque<T>,
    turn: MessageTurn,
    share: SipShare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageTurn {
    Ready,
    InWork,
}

/// A message that goes.
#[derive(Debug, PartialEq, Eq)]
pub struct BegunMessage<T> {
    pub people: Arc<TwoPeople>,
    pub share: SipShare,
    pub message: T,
}

impl<T> Default for MessageTurns<T> {
    fn default() -> Self {
        Self {
            people: HashMap::new(),
            ready: HashMap::new(),
            rounds: ShareRounds::default(),
        }
    }
}

impl<T> MessageTurns<T> {
    /// One more, behind what else waits of these two, on this account.
    pub fn push(&mut self, people: Arc<TwoPeople>, share: SipShare, message: T) {
        if let Some(waiting) = self.people.get_mut(&people) {
            waiting.queue.push_back(message);
            return;
        }
        self.is_ready(&share, Arc::clone(&people));
        let waiting = WaitingMessages {
            queue: VecDeque::from([message]),
            turn: MessageTurn::Ready,
            share,
        };
        self.people.insert(people, waiting);
    }

    /// The next that goes, of those accounts that `may`: these take turns, however much waits of each. It is in work until
    /// [`Self::done`] or [`Self::again`].
    pub fn begin_next(&mut self, may: impl Fn(&SipShare) -> bool) -> Option<BegunMessage<T>> {
        let share = self.rounds.next(may)?;
        let ready = self.ready.get_mut(&share)?;
        let people = ready.pop_front();
        if ready.is_empty() {
            self.ready.remove(&share);
        } else {
            self.rounds.join(&share);
        }
        let people = people?;
        let waiting = self.people.get_mut(&people)?;
        let message = waiting.queue.pop_front()?;
        waiting.turn = MessageTurn::InWork;
        Some(BegunMessage {
            people,
            share,
            message,
        })
    }

    /// What was in work of these two is answered; their next waits for its turn behind everybody's.
    pub fn done(&mut self, people: &TwoPeople) {
        let Some((people, waiting)) = self
            .people
            .get_key_value(people)
            .filter(|(_, it)| it.turn == MessageTurn::InWork)
        else {
            return;
        };
        let (people, share) = (Arc::clone(people), waiting.share.clone());
        match self.people.get_mut(&people) {
            Some(waiting) if !waiting.queue.is_empty() => {
                waiting.turn = MessageTurn::Ready;
                self.is_ready(&share, people);
            }
            _ => {
                self.people.remove(&people);
            }
        }
    }

    /// What was in work of these two goes once more, before what else waits of theirs and of anybody's. Of
    /// several the last given back goes first: give them back from the last to the first.
    pub fn again(&mut self, people: Arc<TwoPeople>, message: T) {
        let Some(waiting) = self
            .people
            .get_mut(&people)
            .filter(|it| it.turn == MessageTurn::InWork)
        else {
            return;
        };
        waiting.queue.push_front(message);
        waiting.turn = MessageTurn::Ready;
        let share = &waiting.share;
        self.rounds.join_first(share);
        let ready = self.ready.entry(share.clone()).or_default();
        ready.push_front(people);
    }

    /// Takes out what waits and `is_over`, in the order in which each two people's waited: what nobody waits
    /// for any more, or may not go. What is in work stays.
    pub fn take(
        &mut self,
        mut is_over: impl FnMut(&TwoPeople, &T) -> bool,
    ) -> Vec<(Arc<TwoPeople>, T)> {
        let mut taken = Vec::new();
        for (people, waiting) in &mut self.people {
            let (over, stays) = std::mem::take(&mut waiting.queue)
                .into_iter()
                .partition(|message| is_over(people, message));
            let over: VecDeque<T> = over;
            waiting.queue = stays;
            taken.extend(
                over.into_iter()
                    .map(|message| (Arc::clone(people), message)),
            );
        }
        self.people
            .retain(|_, it| it.turn == MessageTurn::InWork || !it.queue.is_empty());
        let Self {
            people,
            ready,
            rounds,
        } = self;
        ready.retain(|share, of_share| {
            of_share.retain(|it| people.contains_key(it));
            if of_share.is_empty() {
                rounds.leave(share);
            }
            !of_share.is_empty()
        });
        taken
    }

    fn is_ready(&mut self, share: &SipShare, people: Arc<TwoPeople>) {
        self.rounds.join(share);
        let ready = self.ready.entry(share.clone()).or_default();
        ready.push_back(people);
    }

    /// All that waits, in no order of people; what is in work is its caller's.
    pub fn into_waiting(self) -> impl Iterator<Item = T> {
        self.people.into_values().flat_map(|waiting| waiting.queue)
    }

    /// How many could go at once: what waits behind something of the same two people is not counted.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.values().map(VecDeque::len).sum()
    }

    /// Whether nothing waits and nothing is in work.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.people.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn people(number: usize) -> Arc<TwoPeople> {
        let jid = |text: String| BareJid::parse(&text).expect("a JID");
        Arc::new(TwoPeople {
            from: jid(format!("r{number}@partner.example")),
            to: jid("u@org.example".to_owned()),
        })
    }

    fn share(name: &str) -> SipShare {
        SipShare::of(Some(name))
    }

    impl<T> MessageTurns<T> {
        /// Of one account.
        fn of_one(&mut self, number: usize, message: T) {
            self.push(people(number), share("partner"), message);
        }

        /// The next, whoever's.
        fn next(&mut self) -> Option<(Arc<TwoPeople>, T)> {
            let begun = self.begin_next(|_| true)?;
            Some((begun.people, begun.message))
        }
    }

    #[test]
    fn sip_10_two_people_s_messages_go_one_at_a_time_and_others_beside_them() {
        let mut turns = MessageTurns::default();
        for (number, message) in [(1, 'a'), (1, 'b'), (2, 'c'), (3, 'd'), (3, 'e')] {
            turns.of_one(number, message);
        }
        assert_eq!(turns.ready(), 3);
        assert_eq!(turns.next(), Some((people(1), 'a')));
        assert_eq!(turns.next(), Some((people(2), 'c')));
        assert_eq!(turns.ready(), 1, "b waits for a");
        assert!(turns.begin_next(|_| false).is_none(), "as many as may");
        turns.done(&people(1));
        assert_eq!(turns.next(), Some((people(3), 'd')), "who waited longer");
        turns.done(&people(2));
        assert_eq!(turns.next(), Some((people(1), 'b')));
        turns.done(&people(3));
        turns.done(&people(3));
        assert_eq!(turns.next(), Some((people(3), 'e')));
        turns.done(&people(1));
        turns.done(&people(3));
        assert!(turns.is_idle() && turns.next().is_none());
    }

    #[test]
    fn one_partner_of_whom_much_waits_keeps_no_other_waiting() {
        let mut turns = MessageTurns::default();
        for number in 0..100 {
            turns.push(people(number), share("much"), number);
        }
        turns.push(people(100), share("little"), 100);
        turns.push(people(101), share("other"), 101);
        let order: Vec<usize> = std::iter::from_fn(|| turns.next())
            .map(|(_, message)| message)
            .take(5)
            .collect();
        assert_eq!(order, [0, 100, 101, 1, 2]);
        // Who has as much in work as may be waits, and the others do not wait behind.
        turns.push(people(102), share("little"), 102);
        let not_much = |own: &SipShare| *own != share("much");
        let begun = turns.begin_next(not_much).expect("the other");
        assert_eq!((begun.message, begun.share), (102, share("little")));
        assert!(turns.begin_next(not_much).is_none());
        assert_eq!(turns.ready(), 97);
        let taken = turns.take(|_, message| *message > 2);
        assert_eq!(taken.len(), 97);
        assert!(turns.next().is_none());
    }

    #[test]
    fn sip_40_what_was_in_work_goes_once_more_before_all_others() {
        let mut turns = MessageTurns::default();
        for (number, message) in [(1, 'a'), (1, 'b'), (2, 'c'), (3, 'd')] {
            turns.of_one(number, message);
        }
        let (first, second) = (turns.next().expect("one"), turns.next().expect("one"));
        turns.again(second.0, second.1);
        turns.again(first.0, first.1);
        // Twice is once.
        turns.again(people(1), 'x');
        let order: Vec<char> = std::iter::from_fn(|| turns.next())
            .map(|(_, it)| it)
            .collect();
        assert_eq!(order, ['a', 'c', 'd']);
        turns.done(&people(1));
        assert_eq!(turns.next(), Some((people(1), 'b')));
    }

    #[test]
    fn what_nobody_waits_for_is_taken_out_and_what_is_in_work_is_not() {
        let mut turns = MessageTurns::default();
        for (number, message) in [(1, 'a'), (1, 'b'), (1, 'c'), (2, 'a'), (3, 'd')] {
            turns.of_one(number, message);
        }
        let _ = turns.next();
        let mut taken = turns.take(|_, message| matches!(message, 'a' | 'b'));
        taken.sort_by_key(|(_, message)| *message);
        assert_eq!(taken, [(people(2), 'a'), (people(1), 'b')]);
        assert_eq!(turns.next(), Some((people(3), 'd')));
        assert_eq!(turns.next(), None);
        turns.done(&people(1));
        assert_eq!(turns.next(), Some((people(1), 'c')));
    }

    proptest! {
        /// Whatever happens, each message goes once and each two people's in their order.
        #[test]
        fn each_two_people_stay_in_order(steps in proptest::collection::vec((0_usize..4, 0_u8..4), 1..200)) {
            let mut turns = MessageTurns::default();
            let mut pushed = 0;
            let mut in_work: Vec<(Arc<TwoPeople>, usize)> = Vec::new();
            let mut went: HashMap<Arc<TwoPeople>, Vec<usize>> = HashMap::new();
            for (who, what) in steps {
                match what {
                    0 | 1 => {
                        turns.push(people(who), share(["a", "b"][who % 2]), pushed);
                        pushed += 1;
                    }
                    2 if in_work.len() < 2 => in_work.extend(turns.next()),
                    _ if in_work.is_empty() => {}
                    _ if who == 0 => {
                        let (people, message) = in_work.remove(0);
                        turns.again(people, message);
                    }
                    _ => {
                        let (people, message) = in_work.remove(who % in_work.len());
                        turns.done(&people);
                        went.entry(people).or_default().push(message);
                    }
                }
                prop_assert!(in_work.len() <= 2);
            }
            for (people, message) in in_work {
                turns.done(&people);
                went.entry(people).or_default().push(message);
            }
            while let Some((people, message)) = turns.next() {
                turns.done(&people);
                went.entry(people).or_default().push(message);
            }
            prop_assert!(turns.is_idle());
            prop_assert_eq!(went.values().map(Vec::len).sum::<usize>(), pushed);
            for order in went.values() {
                prop_assert!(order.is_sorted());
            }
        }
    }
}
