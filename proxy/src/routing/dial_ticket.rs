//! The right, and the duty, to set a stream up for one route.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use super::{
    route::{ConnectNumber, Dial, Route},
    router::Router,
};

/// The task that holds it sets a stream up. Dropped without an outcome (a panic, a task that was
/// cancelled), it gives its route back: where something waits, another task gets its turn.
#[derive(Debug)]
pub struct DialTicket {
    route: Arc<Route>,
    number: ConnectNumber,
    /// Not before this time.
    pub not_before: Option<Instant>,
    router: Weak<Router>,
    is_done: bool,
}

impl DialTicket {
    pub(super) fn new(route: Arc<Route>, dial: Dial, router: Weak<Router>) -> Self {
        Self {
            route,
            number: dial.number,
            not_before: dial.not_before,
            router,
            is_done: false,
        }
    }

    #[must_use]
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    #[must_use]
    pub fn number(&self) -> ConnectNumber {
        self.number
    }

    /// Whether the stream is still wanted: no other carries the pair.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.route.is_dialling(self.number)
    }

    /// Nothing is left to do: a stream stands, or nobody waits for one.
    pub fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for DialTicket {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let Some(dial) = self.route.abandoned(self.number, Instant::now()) else {
            return;
        };
        if let Some(router) = self.router.upgrade() {
            router.dial(&self.route, dial);
        }
    }
}
