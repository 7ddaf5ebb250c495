//! Memory of queues, in bytes: what one partner object holds, and all of them together.
//!
//! Nobody is stopped by somebody else: a partner object holds a third of what all leave free at most, so
//! a quarter of the whole where it is alone, less the more others hold. What is left so never runs out:
//! those who hold much are held back, and who holds nothing may always hold something.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Memory of all queues of this replica.
#[derive(Debug, Default)]
pub struct MemoryBudget {
    totals: Arc<Totals>,
    shares: Mutex<HashMap<String, Arc<PartnerShare>>>,
}

#[derive(Debug, Default)]
struct Totals {
    held: AtomicUsize,
}

/// What the queues of one partner object hold, in both directions.
#[derive(Debug)]
pub struct PartnerShare {
    held: AtomicUsize,
    totals: Arc<Totals>,
}

/// What one queue holds: what waits there, what was sent and is not acknowledged, what is to be
/// answered there.
#[derive(Debug, Default)]
pub struct QueueAccount {
    held: AtomicUsize,
    room: Notify,
}

/// Memory that one batch holds; dropped, it is given back.
#[derive(Debug)]
pub struct Charge {
    queue: Arc<QueueAccount>,
    share: Arc<PartnerShare>,
    bytes: usize,
}

impl MemoryBudget {
    #[must_use]
    pub fn held(&self) -> usize {
        self.totals.held.load(Ordering::Relaxed)
    }

    /// The share of the partner object of this name; all who belong to none have one together.
    pub fn share(&self, partner: Option<&str>) -> Arc<PartnerShare> {
        let name = partner.unwrap_or_default();
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(name) {
            return Arc::clone(share);
        }
        let share = Arc::new(PartnerShare {
            held: AtomicUsize::new(0),
            totals: Arc::clone(&self.totals),
        });
        shares.insert(name.to_owned(), Arc::clone(&share));
        share
    }

    /// Forgets the shares that no queue belongs to.
    pub fn forget_idle(&self) {
        self.shares
            .lock()
            .retain(|_, share| Arc::strong_count(share) > 1 || share.held() > 0);
    }
}

impl PartnerShare {
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether this partner object has to wait for room; `whole` is `queueTotalBytes`.
    #[must_use]
    pub fn is_full(&self, whole: usize) -> bool {
        let own = self.held();
        let free = whole.saturating_sub(self.totals.held.load(Ordering::Relaxed));
        own > free / 3
    }

    /// Whether it may not even have answers made: an eighth more is left for those.
    #[must_use]
    pub fn is_overfull(&self, whole: usize) -> bool {
        self.is_full(whole.saturating_add(whole / 8))
    }
}

impl QueueAccount {
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Completes when memory was given back, or at once if it was since the last call.
    pub async fn room(&self) {
        self.room.notified().await;
    }
}

impl Charge {
    #[must_use]
    pub fn new(queue: &Arc<QueueAccount>, share: &Arc<PartnerShare>, bytes: usize) -> Self {
        queue.held.fetch_add(bytes, Ordering::Relaxed);
        share.totals.held.fetch_add(bytes, Ordering::Relaxed);
        share.held.fetch_add(bytes, Ordering::Relaxed);
        Self {
            queue: Arc::clone(queue),
            share: Arc::clone(share),
            bytes,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Self {
            queue,
            share,
            bytes,
        } = self;
        share.held.fetch_sub(*bytes, Ordering::Relaxed);
        share.totals.held.fetch_sub(*bytes, Ordering::Relaxed);
        queue.held.fetch_sub(*bytes, Ordering::Relaxed);
        queue.room.notify_waiters();
        queue.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills one partner's share until it is full, by `step` bytes; says how much it holds.
    fn fill(share: &Arc<PartnerShare>, whole: usize, step: usize, kept: &mut Vec<Charge>) -> usize {
        let queue = Arc::default();
        while !share.is_full(whole) {
            kept.push(Charge::new(&queue, share, step));
        }
        share.held()
    }

    #[test]
    fn one_partner_holds_a_quarter_at_most_and_leaves_room_for_every_other() {
        const WHOLE: usize = 80_000;
        let budget = MemoryBudget::default();
        let mut kept = Vec::new();
        let greedy = budget.share(Some("greedy"));
        let most = fill(&greedy, WHOLE, 100, &mut kept);
        assert!((WHOLE / 4..=WHOLE / 4 + 100).contains(&most), "{most}");
        for (number, least) in [10_000, 8_000, 6_000].into_iter().enumerate() {
            let own = fill(
                &budget.share(Some(&number.to_string())),
                WHOLE,
                100,
                &mut kept,
            );
            assert!(own >= least, "{number} got {own}");
        }
        for number in 3..60 {
            let name = number.to_string();
            let other = budget.share(Some(&name));
            assert!(!other.is_full(WHOLE), "{name} is stopped by others");
            fill(&other, WHOLE, 100, &mut kept);
        }
        assert!(greedy.is_full(WHOLE));
        assert!(budget.held() <= WHOLE + 60 * 100, "{}", budget.held());
        kept.clear();
        assert_eq!((budget.held(), greedy.is_full(WHOLE)), (0, false));
    }

    #[test]
    fn a_dropped_charge_gives_back_what_it_held_and_tells_who_waits() {
        let budget = MemoryBudget::default();
        let (share, queue) = (budget.share(None), Arc::<QueueAccount>::default());
        let charge = Charge::new(&queue, &share, 7);
        assert_eq!((budget.held(), share.held(), queue.held()), (7, 7, 7));
        drop(charge);
        assert_eq!((budget.held(), share.held(), queue.held()), (0, 0, 0));
        let room = futures::FutureExt::now_or_never(queue.room());
        assert!(room.is_some(), "room came before it was asked for");
        drop(share);
        budget.forget_idle();
        assert!(budget.shares.lock().is_empty());
    }
}
