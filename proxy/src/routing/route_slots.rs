//! The routes that one task carries, by the slots under which they wake it.

use std::{collections::HashMap, sync::Arc};

use super::{
    route::{Queued, Route},
    router::Router,
    wake::{RouteSlot, Wake},
};
use crate::negotiation::Pair;

/// The routes that one task carries: a trunk, or the link to a SIP server.
#[derive(Debug, Default)]
pub struct RouteSlots {
    /// By the slots under which they are attached; one that has left leaves a gap.
    routes: Vec<Option<Arc<Route>>>,
    free: Vec<RouteSlot>,
    slots: HashMap<Pair, RouteSlot>,
}

impl RouteSlots {
    /// The task carries the route from here on. `false` where another stream does.
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

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// Whether the task carries this very route.
    #[must_use]
    pub fn carries(&self, route: &Arc<Route>) -> bool {
        self.slot(route).is_some()
    }

    /// Where this very route is, if the task carries it.
    #[must_use]
    pub fn slot(&self, route: &Arc<Route>) -> Option<RouteSlot> {
        let slot = *self.slots.get(&route.pair)?;
        let own = self.at(slot)?;
        Arc::ptr_eq(own, route).then_some(slot)
    }

    /// The route in this slot; `None` where it has left.
    #[must_use]
    pub fn at(&self, slot: RouteSlot) -> Option<&Arc<Route>> {
        self.routes.get(slot)?.as_ref()
    }

    /// The task carries the route no longer, and has nothing of it: it is put back, so that another
    /// task takes it where something waits. Where it was.
    pub fn leave(
        &mut self,
        router: &Arc<Router>,
        wake: &Arc<Wake>,
        pair: &Pair,
    ) -> Option<RouteSlot> {
        let slot = self.slots.remove(pair)?;
        let route = self.routes.get_mut(slot).and_then(Option::take)?;
        router.detach(&route, wake, Vec::new());
        self.free.push(slot);
        Some(slot)
    }

    /// As [`Self::leave`], of all routes of which nothing waits.
    pub fn leave_idle(&mut self, router: &Arc<Router>, wake: &Arc<Wake>) {
        let idle = self.routes().filter(|route| route.held() == 0);
        let idle: Vec<Pair> = idle.map(|route| route.pair.clone()).collect();
        for pair in idle {
            self.leave(router, wake, &pair);
        }
    }

    /// As [`Self::leave`], of a route that nobody else can carry: what waits there is settled.
    pub fn forget(&mut self, route: &Arc<Route>) -> Option<RouteSlot> {
        let slot = self.slot(route)?;
        self.slots.remove(&route.pair);
        self.routes[slot] = None;
        self.free.push(slot);
        for queued in route.drain() {
            match queued {
                Queued::Stanzas(batch) => batch.settle(),
                Queued::Unanswered(unanswered) => unanswered.batch.settle(),
            }
        }
        Some(slot)
    }

    /// The task is over: each route with what came back of it, and those of which nothing did.
    pub fn end(&mut self) -> Vec<Arc<Route>> {
        self.slots.clear();
        self.free.clear();
        self.routes.drain(..).flatten().collect()
    }

    /// The routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().flatten()
    }
}
