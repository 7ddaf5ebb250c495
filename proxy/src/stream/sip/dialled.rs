//! The connections that requests go out on, and what is known of each: one, and more while much waits.

use std::time::{Duration, Instant};

use super::silent_servers::SPEAKS_WITHIN;
use crate::sip::transaction::LinkConnection;

/// Most at a time.
const MOST: usize = 4;
/// While more requests than these wait, there is one more.
const MANY: usize = 64;
/// Between two tries to reach the server.
pub(super) const REDIAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct DialledConnections {
    /// The first was opened first.
    all: Vec<(LinkConnection, DialledLife)>,
    next: NextDial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DialledLife {
    /// The server has not answered the first OPTIONS, since then.
    Greeting(Instant),
    Standing,
    /// As before, and the server is asked whether it is still there.
    Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextDial {
    /// Not before this time.
    At(Instant),
    UnderWay,
}

/// What an answer says of the connection that it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignOfLife {
    /// None stood before.
    Reached,
    /// One more stands.
    OneMore,
    /// It stands as before, or is none of these.
    Known,
}

impl DialledConnections {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Vec::new(),
            next: NextDial::At(now),
        }
    }

    /// Whether the edge opened this one.
    pub(super) fn has(&self, id: LinkConnection) -> bool {
        self.all.iter().any(|(own, _)| *own == id)
    }

    /// All of them, whatever is known of the server.
    pub(super) fn ids(&self) -> Vec<LinkConnection> {
        self.all.iter().map(|(id, _)| *id).collect()
    }

    /// Those that requests may go on.
    pub(super) fn standing(&self) -> impl Iterator<Item = LinkConnection> {
        let standing = self
            .all
            .iter()
            .filter(|(_, life)| !matches!(life, DialledLife::Greeting(_)));
        standing.map(|(id, _)| *id)
    }

    /// Those whose server has not answered yet.
    pub(super) fn greeting(&self) -> impl Iterator<Item = LinkConnection> {
        self.greetings().map(|(id, _)| id)
    }

    fn greetings(&self) -> impl Iterator<Item = (LinkConnection, Instant)> {
        self.all.iter().filter_map(|(id, life)| match life {
            DialledLife::Greeting(since) => Some((*id, *since)),
            DialledLife::Standing | DialledLife::Asked => None,
        })
    }

    /// The one that requests without an order among many go on.
    pub(super) fn first(&self) -> Option<LinkConnection> {
        self.standing().next()
    }

    /// Whether requests may go out.
    pub(super) fn is_reached(&self) -> bool {
        self.first().is_some()
    }

    /// Those whose server is not being asked whether it is there.
    pub(super) fn unasked(&self) -> impl Iterator<Item = LinkConnection> {
        let unasked = self
            .all
            .iter()
            .filter(|(_, life)| *life == DialledLife::Standing);
        unasked.map(|(id, _)| *id)
    }

    /// When the next is dialled, where so many requests wait; `None`: none is wanted, or one is under way. Beside those
    /// whose servers say nothing there is soon another.
    pub(super) fn dial_at(&self, waiting: usize) -> Option<Instant> {
        let NextDial::At(at) = self.next else {
            return None;
        };
        let Some(newest) = self.greetings().map(|(_, since)| since).max() else {
            let one_more = waiting > MANY && self.all.len() < MOST;
            return (self.all.is_empty() || one_more).then_some(at);
        };
        let is_wanted = !self.is_reached() && self.all.len() < MOST;
        is_wanted.then_some(at.max(newest + SPEAKS_WITHIN))
    }

    /// One is being dialled.
    pub(super) fn dialling(&mut self) {
        self.next = NextDial::UnderWay;
    }

    /// What was dialled is there; the server has to show that it is, too.
    pub(super) fn opened(&mut self, id: LinkConnection, now: Instant) {
        self.all.push((id, DialledLife::Greeting(now)));
        self.next = NextDial::At(now);
    }

    /// What was dialled gave none: the next is not dialled at once.
    pub(super) fn failed(&mut self, now: Instant) {
        self.next = NextDial::At(now + REDIAL);
    }

    /// One is over: as [`Self::failed`], unless the next is being dialled already.
    pub(super) fn lost(&mut self, now: Instant) {
        if self.next != NextDial::UnderWay {
            self.failed(now);
        }
    }

    /// The server answered on this one.
    pub(super) fn alive(&mut self, id: LinkConnection) -> SignOfLife {
        let was_reached = self.is_reached();
        let Some((_, life)) = self.all.iter_mut().find(|(own, _)| *own == id) else {
            return SignOfLife::Known;
        };
        match std::mem::replace(life, DialledLife::Standing) {
            DialledLife::Greeting(_) if was_reached => SignOfLife::OneMore,
            DialledLife::Greeting(_) => SignOfLife::Reached,
            DialledLife::Standing | DialledLife::Asked => SignOfLife::Known,
        }
    }

    /// The server is asked on this one whether it is there.
    pub(super) fn asked(&mut self, id: LinkConnection) {
        if let Some((_, life)) = self.all.iter_mut().find(|(own, _)| *own == id) {
            *life = DialledLife::Asked;
        }
    }

    /// It is over; `false`: it is none of these.
    pub(super) fn remove(&mut self, id: LinkConnection) -> bool {
        let before = self.all.len();
        self.all.retain(|(own, _)| *own != id);
        before != self.all.len()
    }

    /// Those that stand beside the first and are not needed while so many requests wait.
    pub(super) fn dispensable(&self, waiting: usize) -> Vec<LinkConnection> {
        let beside = self.standing().skip(1);
        beside.filter(|_| waiting <= MANY).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stands_and_while_much_waits_up_to_four() {
        let now = Instant::now();
        let mut dialled = DialledConnections::new(now);
        let id = LinkConnection;
        assert_eq!(dialled.dial_at(0), Some(now));
        dialled.dialling();
        assert_eq!(dialled.dial_at(MANY + 1), None, "one at a time");
        dialled.opened(id(1), now);
        assert!(!dialled.is_reached());
        assert_eq!(
            dialled.dial_at(MANY + 1),
            Some(now + SPEAKS_WITHIN),
            "its server may not be there"
        );
        assert_eq!(dialled.alive(id(1)), SignOfLife::Reached);
        assert_eq!(dialled.dial_at(MANY), None);
        for next in 2..=4 {
            assert_eq!(dialled.dial_at(MANY + 1), Some(now));
            dialled.dialling();
            dialled.opened(id(next), now);
            assert_eq!(dialled.alive(id(next)), SignOfLife::OneMore);
        }
        assert_eq!(dialled.dial_at(1_000), None);
        assert_eq!(dialled.alive(id(4)), SignOfLife::Known);
        assert_eq!(dialled.alive(id(9)), SignOfLife::Known);
        assert_eq!(dialled.dispensable(MANY), [id(2), id(3), id(4)]);
        assert!(dialled.dispensable(MANY + 1).is_empty());
    }

    #[test]
    fn beside_a_server_that_says_nothing_there_is_soon_another() {
        let now = Instant::now();
        let mut dialled = DialledConnections::new(now);
        let id = LinkConnection;
        for next in 0..4 {
            let at = now + SPEAKS_WITHIN * u32::try_from(next).expect("small");
            assert_eq!(dialled.dial_at(0), Some(at), "{next}");
            dialled.dialling();
            dialled.opened(id(next), at);
        }
        assert_eq!(dialled.dial_at(1_000), None, "as many as may be");
        assert_eq!(dialled.greeting().count(), 4);
        assert_eq!(dialled.alive(id(2)), SignOfLife::Reached);
        assert_eq!(dialled.first(), Some(id(2)));
        assert!(dialled.remove(id(0)));
        assert_eq!(dialled.dial_at(0), None, "one stands");
        assert!(dialled.remove(id(2)));
        dialled.lost(now);
        let newest = now + SPEAKS_WITHIN * 3;
        assert_eq!(dialled.dial_at(0), Some(newest + SPEAKS_WITHIN));
        dialled.dialling();
        dialled.lost(now);
        assert_eq!(dialled.dial_at(0), None, "one at a time");
    }

    #[test]
    fn the_next_is_the_first_where_the_first_is_over_and_none_is_dialled_at_once() {
        let now = Instant::now();
        let mut dialled = DialledConnections::new(now);
        let id = LinkConnection;
        for next in 1..=2 {
            dialled.opened(id(next), now);
            dialled.alive(id(next));
        }
        dialled.asked(id(2));
        assert_eq!(dialled.unasked().collect::<Vec<_>>(), [id(1)]);
        assert!(dialled.remove(id(1)) && !dialled.remove(id(1)));
        dialled.failed(now);
        assert_eq!(dialled.first(), Some(id(2)), "it is asked, and stands");
        assert_eq!(dialled.dial_at(MANY + 1), Some(now + REDIAL));
        assert_eq!(dialled.dial_at(0), None);
        assert!(dialled.remove(id(2)));
        assert_eq!(dialled.dial_at(0), Some(now + REDIAL));
    }
}
