//! What was deleted lately, so that an answer that comes late brings nothing back.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

/// How long the uid of a deleted object is remembered. No call to the API server waits that long for
/// its answer.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(300);
/// Tombstones of one kind, some 100 bytes each. Of more deletions within their time the oldest go, and
/// then no answer that is under way may bring in what the store does not hold.
pub(super) const MAX_TOMBSTONES: usize = 16_384;

/// Moments between which no whole list came and no tombstone was dropped early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// Something happened that answers under way do not know of.
    pub(super) fn end(&mut self) {
        self.0 += 1;
    }
}

/// What was deleted lately.
#[derive(Default)]
pub(super) struct Tombstones {
    pub(super) epoch: Epoch,
    pub(super) uids: HashSet<Arc<str>>,
    pub(super) order: VecDeque<(Instant, Arc<str>)>,
}

impl Tombstones {
    pub(super) fn bury(&mut self, uid: &str) {
        let now = Instant::now();
        while let Some((at, _)) = self.order.front() {
            let expired = now.duration_since(*at) >= TOMBSTONE_TTL;
            if !expired && self.order.len() < MAX_TOMBSTONES {
                break;
            }
            if !expired {
                self.epoch.end();
            }
            if let Some((_, uid)) = self.order.pop_front() {
                self.uids.remove(&uid);
            }
        }
        let uid: Arc<str> = uid.into();
        if self.uids.insert(uid.clone()) {
            self.order.push_back((now, uid));
        }
    }

    pub(super) fn has(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }
}
