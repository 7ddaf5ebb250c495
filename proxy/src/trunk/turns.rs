//! The routes that a trunk carries, in turns: one batch of each that has something and whose window is
//! open. Those that are idle cost nothing, those whose window is full wait for an ack of their own.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    MOST_PAIRS,
    sending::{PairWindow, TrunkBuffer},
};
use crate::{
    negotiation::Pair,
    routing::{
        batch::Batch,
        failure::{Failure, FailureKind},
        route::Route,
        route_slots::RouteSlots,
        router::Router,
        wake::{RouteSlot, Wake, Window},
    },
};

/// A trunk takes what waits whatever is unacknowledged: no stanza ends it, and each pair has its bound.
const EVERYTHING: Window = Window {
    is_empty: true,
    takes_errors: true,
};

/// Takes out of the queues for one trunk.
#[derive(Debug, Default)]
pub struct TrunkTurns {
    routes: RouteSlots,
    /// Those that are to leave: nothing more of them is sent, so that they can.
    leaving: HashSet<RouteSlot>,
    /// Of these, whose turn it was.
    passed_over: HashSet<RouteSlot>,
    /// Those that stay after all and were passed over.
    resumed: VecDeque<RouteSlot>,
}

impl TrunkTurns {
    /// The trunk carries the route from here on. `false` where another stream does.
    #[must_use]
    pub fn attach(&mut self, router: &Router, wake: &Arc<Wake>, route: Arc<Route>) -> bool {
        self.routes.attach(router, wake, route)
    }

    /// Whether the trunk carries this very route.
    #[must_use]
    pub fn carries(&self, route: &Arc<Route>) -> bool {
        self.routes.carries(route)
    }

    /// Fills the buffer, as far as it takes something. Where a pair has no number left its senders are
    /// told `resource-constraint`, and where a stanza is larger than `largest` bytes, that it is. `sends` sees
    /// each batch before it goes.
    pub fn fill(
        &mut self,
        router: &Arc<Router>,
        wake: &Arc<Wake>,
        buffer: &mut TrunkBuffer,
        largest: Option<u64>,
        now: Instant,
        mut sends: impl FnMut(&Batch),
    ) {
        while buffer.takes_more() {
            let held = self.resumed.pop_front().or_else(|| buffer.released());
            let Some(slot) = held.or_else(|| wake.next(EVERYTHING)) else {
                break;
            };
            if self.leaving.contains(&slot) {
                self.passed_over.insert(slot);
                continue;
            }
            let Some(route) = self.routes.at(slot) else {
                continue;
            };
            let window = buffer.window(&route.pair);
            if window == PairWindow::Full {
                buffer.wait(&route.pair, slot);
                continue;
            }
            let Some(batch) = router.dequeue(route, wake, EVERYTHING) else {
                continue;
            };
            for batch in router.within_limit(route, batch, largest) {
                sends(&batch);
                if let Some(batch) = buffer.send(route, batch, now) {
                    let failure = Failure::new(
                        FailureKind::QueueFull,
                        format!("{MOST_PAIRS} pairs of domains are open on this trunk"),
                    );
                    router.bounce(route, batch, &failure);
                }
            }
        }
    }

    /// These are to leave, and no others: what comes of them waits until they have.
    pub fn are_leaving(&mut self, leaving: &[Arc<Route>], wake: &Wake) {
        let slots = leaving.iter().filter_map(|route| self.routes.slot(route));
        self.leaving = slots.collect();
        let leaving = &self.leaving;
        let stay = self.passed_over.extract_if(|slot| !leaving.contains(slot));
        self.resumed.extend(stay);
        if !self.resumed.is_empty() {
            wake.wake();
        }
    }

    /// As [`RouteSlots::leave`].
    pub fn leave(&mut self, router: &Arc<Router>, wake: &Arc<Wake>, pair: &Pair) {
        let left = self.routes.leave(router, wake, pair);
        self.has_left(left);
    }

    /// As [`RouteSlots::forget`].
    pub fn forget(&mut self, route: &Arc<Route>) {
        let left = self.routes.forget(route);
        self.has_left(left);
    }

    fn has_left(&mut self, slot: Option<RouteSlot>) {
        if let Some(slot) = slot {
            self.leaving.remove(&slot);
            self.passed_over.remove(&slot);
        }
    }

    /// As [`RouteSlots::end`].
    pub fn end(&mut self) -> Vec<Arc<Route>> {
        self.leaving.clear();
        self.passed_over.clear();
        self.resumed.clear();
        self.routes.end()
    }

    /// The routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.routes()
    }
}
