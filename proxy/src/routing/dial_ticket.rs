//! The right, and the duty, to set a stream up for one route.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::route::{ConnectNumber, Dial, Route};

/// Streams that are to be set up. Bounded by the number of routes: each asks once at a time.
pub type DialRequests = mpsc::UnboundedReceiver<DialTicket>;

/// Where streams are asked for.
#[derive(Debug)]
pub struct DialQueue(mpsc::UnboundedSender<DialTicket>);

impl DialQueue {
    #[must_use]
    pub fn new() -> (Self, DialRequests) {
        let (queue, requests) = mpsc::unbounded_channel();
        (Self(queue), requests)
    }

    /// Has a stream set up for this route.
    pub fn ask(&self, route: &Arc<Route>, dial: Dial) {
        let ticket = DialTicket {
            route: Arc::clone(route),
            number: dial.number,
            not_before: dial.not_before,
            queue: self.0.downgrade(),
            is_done: false,
        };
        if let Err(unsent) = self.0.send(ticket) {
            // Nobody dials any more: the process ends.
            unsent.0.done();
        }
    }
}

/// The task that holds it sets a stream up. Dropped without an outcome (a panic, a task that was
/// cancelled), it gives its route back: where something waits, another task gets its turn.
#[derive(Debug)]
pub struct DialTicket {
    route: Arc<Route>,
    number: ConnectNumber,
    /// Not before this time.
    pub not_before: Option<Instant>,
    queue: mpsc::WeakUnboundedSender<DialTicket>,
    is_done: bool,
}

impl DialTicket {
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
        if let Some(queue) = self.queue.upgrade() {
            DialQueue(queue).ask(&self.route, dial);
        }
    }
}
