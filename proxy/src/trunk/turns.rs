//! The routes that a trunk carries, in turns: one batch of each that has something and whose window is
//! open. Those that are idle cost nothing, those whose window is full wait for an ack of their own.

use std::{sync::Arc, time::Instant};

use super::{
    MOST_PAIRS,
    sending::{PairWindow, TrunkBuffer},
};
use crate::routing::{
    batch::Batch,
    failure::{Failure, FailureKind},
    route_slots::RouteSlots,
    router::Router,
    wake::{Wake, Window},
};

/// A trunk takes what waits whatever is unacknowledged: no stanza ends it, and each pair has its bound.
const EVERYTHING: Window = Window {
    is_empty: true,
    takes_errors: true,
};

/// Fills the buffer, as far as it takes something. Where a pair has no number left its senders are
/// told `resource-constraint`, and where a stanza is larger than `largest` bytes, that it is. `sends` sees
/// each batch before it goes.
pub fn fill(
    routes: &RouteSlots,
    router: &Arc<Router>,
    wake: &Arc<Wake>,
    buffer: &mut TrunkBuffer,
    largest: Option<u64>,
    now: Instant,
    mut sends: impl FnMut(&Batch),
) {
    while buffer.takes_more() {
        let Some(slot) = buffer.released().or_else(|| wake.next(EVERYTHING)) else {
            break;
        };
        let Some(route) = routes.at(slot) else {
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
