//! Memory of queues, in bytes: what one partner object holds, and all of them together. And the streams that
//! are set up to names which only its wildcards match: whoever thinks of names makes tasks and DNS questions.
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
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Streams to names under the wildcards of one partner object that are begun to be set up at once.
pub const MADE_UP_DIALS: u32 = 1024;
/// After so many one more each: about a thousand a minute.
pub(super) const MADE_UP_DIAL_EACH: Duration = Duration::from_millis(60);

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
    /// When all that were begun to made-up names count no longer.
    made_up_dials: Mutex<Option<Instant>>,
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

/// Whose memory a route takes, and whose streams those are that are set up for it.
#[derive(Clone, Debug)]
pub struct RouteOwner {
    pub share: Arc<PartnerShare>,
    /// The next hop is one of endlessly many names that the partner object's wildcards match.
    pub is_made_up: bool,
}

impl RouteOwner {
    /// Whether a stream may be set up now; counts it where it may.
    pub(super) fn may_dial(&self, now: Instant) -> bool {
        !self.is_made_up || self.share.begin_made_up_dial(now)
    }
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
            made_up_dials: Mutex::default(),
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

    /// Whether a stream to a name that only a wildcard matches may be set up now; counts it where it may.
    fn begin_made_up_dial(&self, now: Instant) -> bool {
        let mut until = self.made_up_dials.lock();
        let begun = until.map_or(now, |until| until.max(now));
        let is_room = begun.duration_since(now) <= MADE_UP_DIAL_EACH * (MADE_UP_DIALS - 1);
        if is_room {
            *until = Some(begun + MADE_UP_DIAL_EACH);
        }
        is_room
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

impl Charge {
    /// It is so many bytes from here on, where it was less.
    pub(super) fn raise_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.queue.held.fetch_add(more, Ordering::Relaxed);
        self.share.totals.held.fetch_add(more, Ordering::Relaxed);
        self.share.held.fetch_add(more, Ordering::Relaxed);
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
    fn what_is_raised_counts_once_and_is_given_back_whole() {
        let (budget, queue) = (MemoryBudget::default(), Arc::default());
        let share = budget.share(Some("partner"));
        let mut charge = Charge::new(&queue, &share, 7);
        for bytes in [20, 20, 5] {
            charge.raise_to(bytes);
            assert_eq!((queue.held(), share.held(), budget.held()), (20, 20, 20));
        }
        drop(charge);
        assert_eq!((queue.held(), share.held(), budget.held()), (0, 0, 0));
    }

    #[test]
    fn a_partner_object_has_so_many_made_up_names_dialled_and_then_one_by_one() {
        let (budget, now) = (MemoryBudget::default(), Instant::now());
        let share = &budget.share(Some("agency"));
        let begun = |now| (0..3 * MADE_UP_DIALS).filter(move |_| share.begin_made_up_dial(now));
        assert_eq!(begun(now).count(), MADE_UP_DIALS as usize);
        assert_eq!(begun(now + MADE_UP_DIAL_EACH).count(), 1);
        let later = now + 10 * MADE_UP_DIALS * MADE_UP_DIAL_EACH;
        assert_eq!(begun(later).count(), MADE_UP_DIALS as usize);
        assert!(budget.share(Some("other")).begin_made_up_dial(now));
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
