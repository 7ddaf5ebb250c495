//! The routes that a trunk carries, in turns: one batch of each that has something and whose window is
//! open. Those that are idle cost nothing, those whose window is full wait for an ack of their own.

use std::{
    collections::{HashMap, HashSet, VecDeque},
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
        route::{Queued, Route},
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
    /// By the slots under which they are attached; one that has left leaves a gap.
    routes: Vec<Option<Arc<Route>>>,
    free: Vec<RouteSlot>,
    slots: HashMap<Pair, RouteSlot>,
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
        if self.slots.contains_key(&route.pair) {
            return self.carries(&route);
        }
        let slot = self.free.last().copied().unwrap_or(self.routes.len());
        if router.attach(&route, wake, slot) != Some(slot) {
            return false;
        }
        self.slots.insert(route.pair.clone(), slot);
        if self.free.pop().is_some() {
            self.routes[slot] = Some(route);
        } else {
            self.routes.push(Some(route));
        }
        true
    }

    /// Whether the trunk carries this very route.
    #[must_use]
    pub fn carries(&self, route: &Arc<Route>) -> bool {
        let slot = self.slots.get(&route.pair);
        let own = slot.and_then(|slot| self.routes[*slot].as_ref());
        own.is_some_and(|own| Arc::ptr_eq(own, route))
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
            let Some(Some(route)) = self.routes.get(slot) else {
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
        let slots = leaving.iter().filter(|route| self.carries(route));
        self.leaving = slots
            .filter_map(|route| self.slots.get(&route.pair))
            .copied()
            .collect();
        let leaving = &self.leaving;
        let stay = self.passed_over.extract_if(|slot| !leaving.contains(slot));
        self.resumed.extend(stay);
        if !self.resumed.is_empty() {
            wake.wake();
        }
    }

    /// The trunk carries the route no longer, and has nothing of it: it is put back, so that another
    /// trunk takes it where something waits.
    pub fn leave(&mut self, router: &Arc<Router>, wake: &Arc<Wake>, pair: &Pair) {
        let Some(slot) = self.slots.remove(pair) else {
            return;
        };
        self.leaving.remove(&slot);
        self.passed_over.remove(&slot);
        if let Some(route) = self.routes.get_mut(slot).and_then(Option::take) {
            router.detach(&route, wake, Vec::new());
            self.free.push(slot);
        }
    }

    /// As [`Self::leave`], of a route that nobody else can carry: what waits there is settled.
    pub fn forget(&mut self, route: &Arc<Route>) {
        if !self.carries(route) {
            return;
        }
        if let Some(slot) = self.slots.remove(&route.pair) {
            self.leaving.remove(&slot);
            self.passed_over.remove(&slot);
            self.routes[slot] = None;
            self.free.push(slot);
        }
        for queued in route.drain() {
            match queued {
                Queued::Stanzas(batch) => batch.settle(),
                Queued::Unanswered(unanswered) => unanswered.batch.settle(),
            }
        }
    }

    /// The trunk is over: each route with what came back of it, and those of which nothing did.
    pub fn end(&mut self) -> Vec<Arc<Route>> {
        self.slots.clear();
        self.free.clear();
        self.leaving.clear();
        self.passed_over.clear();
        self.resumed.clear();
        self.routes.drain(..).flatten().collect()
    }

    /// The routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().flatten()
    }
}
