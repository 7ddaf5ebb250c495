//! A place among the connections that one SIP server may have towards the edge.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Connections that one SIP server may have towards the edge. Kamailio opens one for each of its processes that sends.
const MOST: usize = 64;

/// All places of one gateway, whichever link it has.
#[derive(Clone, Debug, Default)]
pub(super) struct AcceptedSlots(Arc<AtomicUsize>);

/// One of them; dropped, it is free.
#[derive(Debug)]
pub(super) struct AcceptedSlot(AcceptedSlots);

impl AcceptedSlots {
    /// One more; `None` where there are too many.
    pub(super) fn take(&self) -> Option<AcceptedSlot> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let slot = AcceptedSlot(self.clone());
        (before < MOST).then_some(slot)
    }
}

impl Drop for AcceptedSlot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
