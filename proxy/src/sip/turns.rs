//! Whose message goes next: one at a time for each two people, so that they stay in order, and of many people
//! some beside each other (RFC 3428 section 8, *departs*: it forbids a second to one address; the gateway is
//! the user agent of each who writes).

use std::collections::{HashMap, VecDeque};

use xmpp_edge_crds::jid::BareJid;

/// Who writes to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TwoPeople {
    pub from: BareJid,
    pub to: BareJid,
}

impl TwoPeople {
    /// The other way round.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
        }
    }
}

/// What waits, by who writes to whom. Its memory is the caller's to bound: what waits here is held by the
/// route that it came from.
#[derive(Debug)]
pub struct MessageTurns<T> {
    /// How many may be in work.
    most: usize,
    in_work: usize,
    /// All of whom something waits or is in work.
    people: HashMap<TwoPeople, WaitingMessages<T>>,
    /// Those of whom something waits and nothing is in work, in the order of their turns.
    ready: VecDeque<TwoPeople>,
}

#[derive(Debug)]
struct WaitingMessages<T> {
    queue: VecDeque<T>,
    turn: MessageTurn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageTurn {
    Ready,
    InWork,
}

impl<T> MessageTurns<T> {
    /// For at most `most` in work, of as many two people.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            in_work: 0,
            people: HashMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// One more, behind what else waits of these two.
    pub fn push(&mut self, people: TwoPeople, message: T) {
        if let Some(waiting) = self.people.get_mut(&people) {
            waiting.queue.push_back(message);
            return;
        }
        self.ready.push_back(people.clone());
        let waiting = WaitingMessages {
            queue: VecDeque::from([message]),
            turn: MessageTurn::Ready,
        };
        self.people.insert(people, waiting);
    }

    /// The next that goes; it is in work until [`Self::done`] or [`Self::again`].
    pub fn begin_next(&mut self) -> Option<(TwoPeople, T)> {
        if self.in_work == self.most {
            return None;
        }
        let people = self.ready.pop_front()?;
        let waiting = self.people.get_mut(&people)?;
        let message = waiting.queue.pop_front()?;
        waiting.turn = MessageTurn::InWork;
        self.in_work += 1;
        Some((people, message))
    }

    /// What was in work of these two is answered; their next waits for its turn behind everybody's.
    pub fn done(&mut self, people: &TwoPeople) {
        let Some(waiting) = self
            .people
            .get_mut(people)
            .filter(|it| it.turn == MessageTurn::InWork)
        else {
            return;
        };
        self.in_work -= 1;
        if waiting.queue.is_empty() {
            self.people.remove(people);
        } else {
            waiting.turn = MessageTurn::Ready;
            self.ready.push_back(people.clone());
        }
    }

    /// What was in work of these two goes once more, before what else waits of theirs and of anybody's. Of
    /// several the last given back goes first: give them back from the last to the first.
    pub fn again(&mut self, people: TwoPeople, message: T) {
        let Some(waiting) = self
            .people
            .get_mut(&people)
            .filter(|it| it.turn == MessageTurn::InWork)
        else {
            return;
        };
        self.in_work -= 1;
        waiting.queue.push_front(message);
        waiting.turn = MessageTurn::Ready;
        self.ready.push_front(people);
    }

    /// Takes out what waits and `is_over`, in the order in which each two people's waited: what nobody waits
    /// for any more, or may not go. What is in work stays.
    pub fn take(&mut self, mut is_over: impl FnMut(&TwoPeople, &T) -> bool) -> Vec<(TwoPeople, T)> {
        let mut taken = Vec::new();
        for (people, waiting) in &mut self.people {
            let (over, stays) = std::mem::take(&mut waiting.queue)
                .into_iter()
                .partition(|message| is_over(people, message));
            let over: VecDeque<T> = over;
            waiting.queue = stays;
            taken.extend(over.into_iter().map(|message| (people.clone(), message)));
        }
        self.people
            .retain(|_, it| it.turn == MessageTurn::InWork || !it.queue.is_empty());
        self.ready.retain(|people| self.people.contains_key(people));
        taken
    }

    /// All that waits, in no order of people; what is in work is its caller's.
    pub fn into_waiting(self) -> impl Iterator<Item = T> {
        self.people.into_values().flat_map(|waiting| waiting.queue)
    }

    /// How many could go at once: what waits behind something of the same two people is not counted.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
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

    fn people(number: usize) -> TwoPeople {
        let jid = |text: String| BareJid::parse(&text).expect("a JID");
        TwoPeople {
            from: jid(format!("r{number}@partner.example")),
            to: jid("u@org.example".to_owned()),
        }
    }

    #[test]
    fn sip_10_two_people_s_messages_go_one_at_a_time_and_others_beside_them() {
        let mut turns = MessageTurns::new(2);
        for (number, message) in [(1, 'a'), (1, 'b'), (2, 'c'), (3, 'd'), (3, 'e')] {
            turns.push(people(number), message);
        }
        assert_eq!(turns.ready(), 3);
        assert_eq!(turns.begin_next(), Some((people(1), 'a')));
        assert_eq!(turns.begin_next(), Some((people(2), 'c')));
        assert_eq!(turns.ready(), 1, "b waits for a");
        assert_eq!(turns.begin_next(), None, "as many as may");
        turns.done(&people(1));
        assert_eq!(
            turns.begin_next(),
            Some((people(3), 'd')),
            "who waited longer"
        );
        turns.done(&people(2));
        assert_eq!(turns.begin_next(), Some((people(1), 'b')));
        turns.done(&people(3));
        turns.done(&people(3));
        assert_eq!(turns.begin_next(), Some((people(3), 'e')));
        turns.done(&people(1));
        turns.done(&people(3));
        assert!(turns.is_idle() && turns.begin_next().is_none());
    }

    #[test]
    fn sip_40_what_was_in_work_goes_once_more_before_all_others() {
        let mut turns = MessageTurns::new(10);
        for (number, message) in [(1, 'a'), (1, 'b'), (2, 'c'), (3, 'd')] {
            turns.push(people(number), message);
        }
        let (first, second) = (
            turns.begin_next().expect("one"),
            turns.begin_next().expect("one"),
        );
        turns.again(second.0, second.1);
        turns.again(first.0, first.1);
        // Twice is once.
        turns.again(people(1), 'x');
        let order: Vec<char> = std::iter::from_fn(|| turns.begin_next())
            .map(|(_, it)| it)
            .collect();
        assert_eq!(order, ['a', 'c', 'd']);
        turns.done(&people(1));
        assert_eq!(turns.begin_next(), Some((people(1), 'b')));
    }

    #[test]
    fn what_nobody_waits_for_is_taken_out_and_what_is_in_work_is_not() {
        let mut turns = MessageTurns::new(10);
        for (number, message) in [(1, 'a'), (1, 'b'), (1, 'c'), (2, 'a'), (3, 'd')] {
            turns.push(people(number), message);
        }
        let _ = turns.begin_next();
        let mut taken = turns.take(|_, message| matches!(message, 'a' | 'b'));
        taken.sort_by_key(|(_, message)| *message);
        assert_eq!(taken, [(people(2), 'a'), (people(1), 'b')]);
        assert_eq!(turns.begin_next(), Some((people(3), 'd')));
        assert_eq!(turns.begin_next(), None);
        turns.done(&people(1));
        assert_eq!(turns.begin_next(), Some((people(1), 'c')));
    }

    proptest! {
        /// Whatever happens, each message goes once and each two people's in their order.
        #[test]
        fn each_two_people_stay_in_order(steps in proptest::collection::vec((0_usize..4, 0_u8..4), 1..200)) {
            let mut turns = MessageTurns::new(2);
            let mut pushed = 0;
            let mut in_work: Vec<(TwoPeople, usize)> = Vec::new();
            let mut went: HashMap<TwoPeople, Vec<usize>> = HashMap::new();
            for (who, what) in steps {
                match what {
                    0 | 1 => {
                        turns.push(people(who), pushed);
                        pushed += 1;
                    }
                    2 => in_work.extend(turns.begin_next()),
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
            while let Some((people, message)) = turns.begin_next() {
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
