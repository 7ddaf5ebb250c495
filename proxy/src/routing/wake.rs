//! What queues and trackers of acknowledgements know of a stream: how to wake it, and how to tell which
//! of its routes have something for it. A stream learns that without asking each: what is idle costs it
//! nothing.

use std::collections::{BTreeSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A route among those of one stream, by the stream's own numbering.
pub type RouteSlot = usize;

/// What the stream that carries a route takes at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Nothing is unconfirmed there: what is suspected of having ended a stream goes alone only.
    pub is_empty: bool,
    /// Few errors of the edge's own are unconfirmed there: more may be made.
    pub takes_errors: bool,
}

/// Wakes the task of one stream, and lists the routes that have something for it. Cheap, never blocks;
/// compared by pointer.
#[derive(Debug, Default)]
pub struct Wake {
    notify: Notify,
    ready: Mutex<ReadyRoutes>,
}

/// Routes of one stream in which something waits.
#[derive(Debug, Default)]
struct ReadyRoutes {
    /// Each once, in the order in which they have their turn.
    listed: VecDeque<RouteSlot>,
    /// Those whose next stanza goes alone.
    alone: HeldRoutes,
    /// Those in which errors wait for room, and nothing else.
    errors: HeldRoutes,
    turn: ReadyTurn,
}

/// Routes in which only that waits what the stream did not take when it looked.
#[derive(Debug, Default)]
struct HeldRoutes {
    slots: BTreeSet<RouteSlot>,
    /// Who had his turn last.
    last: RouteSlot,
}

/// Where the next look goes first: neither those that were held keep the others waiting nor these them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ReadyTurn {
    #[default]
    Listed,
    Held,
}

impl Wake {
    /// Something for this stream has changed: a queue it drains, or what it may acknowledge.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Completes after a wake; a wake before the call counts.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// The route whose turn it is, of those that have something that `window` may take: in turns, one
    /// that always has more keeps no other waiting. It is off the list until it is put there again.
    #[must_use]
    pub fn next(&self, window: Window) -> Option<RouteSlot> {
        let ready = &mut *self.ready.lock();
        let turn = ready.turn;
        ready.turn = match turn {
            ReadyTurn::Listed => ReadyTurn::Held,
            ReadyTurn::Held => ReadyTurn::Listed,
        };
        match turn {
            ReadyTurn::Listed => ready.listed.pop_front().or_else(|| ready.released(window)),
            ReadyTurn::Held => ready.released(window).or_else(|| ready.listed.pop_front()),
        }
    }

    /// Whether no route has anything for the stream.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let ready = self.ready.lock();
        ready.listed.is_empty() && ready.alone.slots.is_empty() && ready.errors.slots.is_empty()
    }

    /// The stream carries no route any more: its numbering begins anew.
    pub fn forget_routes(&self) {
        *self.ready.lock() = ReadyRoutes::default();
    }

    /// Gives back memory that only busy streams need.
    pub fn release(&self) {
        self.ready.lock().listed.shrink_to_fit();
    }

    /// The route in this slot has something. Not for one that is listed already.
    pub(super) fn list(&self, slot: RouteSlot) {
        self.ready.lock().listed.push_back(slot);
    }

    /// The route in this slot has nothing but what goes alone.
    pub(super) fn hold_until_empty(&self, slot: RouteSlot) {
        self.ready.lock().alone.slots.insert(slot);
    }

    /// The route in this slot has nothing but errors for which the window has no room.
    pub(super) fn hold_errors(&self, slot: RouteSlot) {
        self.ready.lock().errors.slots.insert(slot);
    }
}

impl ReadyRoutes {
    /// One that was held and is taken by this window.
    fn released(&mut self, window: Window) -> Option<RouteSlot> {
        let alone = window.is_empty.then(|| self.alone.next()).flatten();
        alone.or_else(|| window.takes_errors.then(|| self.errors.next()).flatten())
    }
}

impl HeldRoutes {
    fn next(&mut self) -> Option<RouteSlot> {
        let mut later = self.slots.range(self.last.saturating_add(1)..);
        let next = *later.next().or_else(|| self.slots.first())?;
        self.slots.remove(&next);
        self.last = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Window = Window {
        is_empty: true,
        takes_errors: true,
    };
    const BUSY: Window = Window {
        is_empty: false,
        takes_errors: true,
    };
    const FULL: Window = Window {
        is_empty: false,
        takes_errors: false,
    };

    fn all(wake: &Wake, window: Window) -> Vec<RouteSlot> {
        std::iter::from_fn(|| wake.next(window)).collect()
    }

    #[test]
    fn routes_have_their_turn_in_the_order_in_which_something_came() {
        let wake = Wake::default();
        for slot in [7, 3, 9_999] {
            wake.list(slot);
        }
        assert_eq!(wake.next(OPEN), Some(7));
        wake.list(7);
        assert_eq!(all(&wake, OPEN), [3, 9_999, 7]);
        assert!(wake.is_idle());
    }

    #[test]
    fn what_the_window_does_not_take_is_not_looked_at_until_it_does() {
        let wake = Wake::default();
        (0..10_000).for_each(|slot| wake.hold_errors(slot));
        wake.hold_until_empty(4);
        assert_eq!(all(&wake, FULL), [0; 0]);
        assert!(!wake.is_idle(), "something waits all the same");
        assert_eq!(all(&wake, BUSY).len(), 10_000);
        assert_eq!(all(&wake, OPEN), [4]);
    }

    #[test]
    fn those_that_were_held_and_those_that_were_not_have_turns_with_each_other() {
        let wake = Wake::default();
        for slot in 0..4 {
            wake.hold_errors(slot);
            wake.list(slot + 10);
        }
        assert_eq!(all(&wake, OPEN), [10, 1, 11, 2, 12, 3, 13, 0]);
    }

    #[test]
    fn of_those_that_are_held_again_and_again_each_has_its_turn() {
        let wake = Wake::default();
        (0..3).for_each(|slot| wake.hold_errors(slot));
        let mut order = Vec::new();
        for _ in 0..6 {
            let slot = wake.next(OPEN).expect("one is held");
            wake.hold_errors(slot);
            order.push(slot);
        }
        assert_eq!(order, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_route_is_held_once_however_often_it_is_looked_at() {
        let wake = Wake::default();
        for _ in 0..3 {
            wake.hold_errors(5);
            wake.hold_until_empty(5);
        }
        assert_eq!(all(&wake, OPEN), [5, 5], "once for each cause");
        wake.hold_errors(5);
        wake.list(1);
        wake.forget_routes();
        assert!(wake.is_idle());
    }
}
