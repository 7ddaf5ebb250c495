//! The stream that carries a route, as the route knows it.

use std::sync::Arc;

use super::wake::{RouteSlot, Wake};

/// Whom a route tells that it has something.
#[derive(Debug)]
pub(super) struct Carrier {
    wake: Arc<Wake>,
    /// What the stream calls the route.
    slot: RouteSlot,
    listing: Listing,
}

/// Whether the stream will look at the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    /// Nothing waits, or nothing that the stream took when it looked.
    Unlisted,
    Listed,
}

impl Carrier {
    pub(super) fn new(wake: &Arc<Wake>, slot: RouteSlot) -> Self {
        Self {
            wake: Arc::clone(wake),
            slot,
            listing: Listing::Unlisted,
        }
    }

    pub(super) fn is(&self, wake: &Arc<Wake>) -> bool {
        Arc::ptr_eq(&self.wake, wake)
    }

    /// Something was put into the queue.
    pub(super) fn has_more(&mut self) {
        self.list();
        self.wake.wake();
    }

    /// The stream will look at the route.
    pub(super) fn list(&mut self) {
        if self.listing == Listing::Unlisted {
            self.listing = Listing::Listed;
            self.wake.list(self.slot);
        }
    }

    /// The stream's look at the route: it is off the list.
    pub(super) fn looked(&mut self) {
        self.listing = Listing::Unlisted;
    }

    /// Nothing is left but what goes alone.
    pub(super) fn hold_until_empty(&self) {
        self.wake.hold_until_empty(self.slot);
    }

    /// Nothing is left but errors for which the stream has no room.
    pub(super) fn hold_errors(&self) {
        self.wake.hold_errors(self.slot);
    }

    pub(super) fn slot(&self) -> RouteSlot {
        self.slot
    }
}
