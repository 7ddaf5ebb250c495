//! Numbers of the connections of one gateway, whichever link it has: what is known of one is so after it was handed over.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::sip::transaction::LinkConnection;

#[derive(Clone, Debug, Default)]
pub(super) struct LinkNumbers(Arc<AtomicU64>);

impl LinkNumbers {
    /// One that no connection had.
    pub(super) fn next(&self) -> LinkConnection {
        LinkConnection(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
