//! All routes of this replica, by side and pair.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    budget::{MemoryBudget, RouteOwner},
    route::Route,
};
use crate::negotiation::{Pair, Side};

/// Routes that exist, and those whose queues the sweeper watches.
#[derive(Debug, Default)]
pub struct Routes {
    map: Mutex<HashMap<(Side, Pair), Arc<Route>>>,
    busy: Mutex<Vec<Weak<Route>>>,
    pub budget: MemoryBudget,
}

impl Routes {
    /// The route of a pair; `side` says who the next hop is, `owner` whose memory it takes.
    pub fn of(&self, side: Side, pair: &Pair, owner: impl FnOnce() -> RouteOwner) -> Arc<Route> {
        let mut map = self.map.lock();
        if let Some(route) = map.get(&(side, pair.clone())) {
            return Arc::clone(route);
        }
        let route = Arc::new(Route::new(pair.clone(), side, owner()));
        map.insert((side, pair.clone()), Arc::clone(&route));
        route
    }

    /// The route of a pair, where there is one.
    #[must_use]
    pub fn known(&self, side: Side, pair: &Pair) -> Option<Arc<Route>> {
        self.map.lock().get(&(side, pair.clone())).cloned()
    }

    /// Something waits there now.
    pub fn busy(&self, route: &Arc<Route>) {
        if route.mark_swept() {
            self.newly_busy(route);
        }
    }

    /// The route was marked a moment ago.
    pub fn newly_busy(&self, route: &Arc<Route>) {
        self.busy.lock().push(Arc::downgrade(route));
    }

    /// The routes in whose queues something waited since the last call.
    pub fn take_busy(&self) -> Vec<Arc<Route>> {
        std::mem::take(&mut *self.busy.lock())
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Puts back what is still busy.
    pub fn still_busy(&self, routes: Vec<Arc<Route>>) {
        self.busy.lock().extend(routes.iter().map(Arc::downgrade));
    }

    /// Forgets routes that nobody uses.
    pub fn forget_idle(&self) {
        let now = Instant::now();
        self.map
            .lock()
            .retain(|_, route| Arc::strong_count(route) > 1 || !route.is_idle(now));
        self.budget.forget_idle();
    }

    /// Every route, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Route>> {
        self.map.lock().values().cloned().collect()
    }
}
