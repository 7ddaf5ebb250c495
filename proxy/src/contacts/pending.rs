//! Changes on their way to the store: one combined [`Transition`] a pair, bounded.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Transition,
    holders::{HeldRoom, HolderId},
};

/// Most pairs that wait, shared among partner objects as contacts are; more only where the store is away for long.
const MAX_WAITING: usize = 100_000;

/// Most bytes of them, each with [`OVERHEAD`].
const MAX_WAITING_BYTES: usize = 32 << 20;

/// What a pair takes beside its text.
const OVERHEAD: usize = 128;

/// A pair of bare addresses: user, remote.
pub(super) type ContactKey = (Box<str>, Box<str>);

/// What one write takes.
pub(super) type ContactBatch = HashMap<ContactKey, WaitingChange>;

/// What is to be done to a pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingChange {
    pub(super) transition: Transition,
    /// On whose account it waits.
    pub(super) holder: Option<HolderId>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: ContactBatch,
    /// Being written: still on top of what the store holds, until it says so.
    writing: Arc<ContactBatch>,
    /// Of both.
    bytes: usize,
    /// Of both, for each partner object that has any.
    of_holders: HashMap<HolderId, HeldRoom>,
}

impl Waiting {
    fn all(&self) -> HeldRoom {
        HeldRoom {
            count: self.next.len() + self.writing.len(),
            bytes: self.bytes,
        }
    }

    fn is_full(&self, holder: Option<HolderId>, cost: usize) -> bool {
        let all = self.all();
        all.count >= MOST.count
            || all.bytes + cost > MOST.bytes
            || holder.is_some_and(|holder| {
                let own = self.of_holders.get(&holder).copied();
                own.unwrap_or_default().is_full(all, MOST)
            })
    }

    fn add(&mut self, holder: Option<HolderId>, cost: usize) {
        self.bytes += cost;
        if let Some(holder) = holder {
            self.of_holders.entry(holder).or_default().add(cost);
        }
    }

    fn remove(&mut self, holder: Option<HolderId>, cost: usize) {
        self.bytes -= cost;
        if let Some(holder) = holder
            && let Some(own) = self.of_holders.get_mut(&holder)
        {
            own.remove(cost);
            if own.count == 0 {
                self.of_holders.remove(&holder);
            }
        }
    }
}

const MOST: HeldRoom = HeldRoom {
    count: MAX_WAITING,
    bytes: MAX_WAITING_BYTES,
};

fn cost((user, remote): &ContactKey) -> usize {
    user.len() + remote.len() + OVERHEAD
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl Pending {
    /// False where too many wait, of all or of this holder, and the pair is not among them.
    pub(super) fn push(
        &self,
        user: &str,
        remote: &str,
        transition: Transition,
        holder: Option<HolderId>,
    ) -> bool {
        let pair: ContactKey = (user.into(), remote.into());
        let mut waiting = self.waiting.lock();
        let cost = cost(&pair);
        let full = waiting.is_full(holder, cost);
        match waiting.next.get_mut(&pair) {
            Some(before) => before.transition = before.transition.then(transition),
            None if full => return false,
            None => {
                waiting
                    .next
                    .insert(pair, WaitingChange { transition, holder });
                waiting.add(holder, cost);
            }
        }
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// All that the store may not hold yet for a pair.
    pub(super) fn waiting(&self, user: &str, remote: &str) -> Option<Transition> {
        let waiting = self.waiting.lock();
        if waiting.next.is_empty() && waiting.writing.is_empty() {
            return None;
        }
        let pair: ContactKey = (user.into(), remote.into());
        let of = |batch: &ContactBatch| batch.get(&pair).map(|change| change.transition);
        match (of(&waiting.writing), of(&waiting.next)) {
            (Some(first), Some(second)) => Some(first.then(second)),
            (first, second) => first.or(second),
        }
    }

    /// Takes what waits, `most` pairs of it; it still counts as waiting until [`Self::written`] or [`Self::failed`].
    pub(super) fn take(&self, most: usize) -> Arc<ContactBatch> {
        let mut waiting = self.waiting.lock();
        let mut batch = std::mem::take(&mut waiting.next);
        if let Some(rest) = batch.len().checked_sub(most) {
            waiting.next = batch.extract_if(|_, _| true).take(rest).collect();
        }
        waiting.writing = Arc::new(batch);
        Arc::clone(&waiting.writing)
    }

    /// The batch is with the store, or is given up.
    pub(super) fn written(&self) {
        let mut waiting = self.waiting.lock();
        let written = std::mem::take(&mut waiting.writing);
        for (pair, change) in &*written {
            waiting.remove(change.holder, cost(pair));
        }
    }

    /// The batch waits again, before what came meanwhile.
    pub(super) fn failed(&self) {
        let mut waiting = self.waiting.lock();
        let mut batch = Arc::unwrap_or_clone(std::mem::take(&mut waiting.writing));
        for (pair, later) in std::mem::take(&mut waiting.next) {
            match batch.get_mut(&pair) {
                Some(first) => {
                    first.transition = first.transition.then(later.transition);
                    waiting.remove(later.holder, cost(&pair));
                }
                None => {
                    batch.insert(pair, later);
                }
            }
        }
        waiting.next = batch;
    }

    /// Pairs that wait or are being written.
    pub(super) fn len(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.next.len() + waiting.writing.len()
    }

    /// Resolves after a push; one that came before the call counts.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contacts::ContactEvent;

    #[test]
    fn what_waits_for_the_store_is_bounded_in_bytes_and_the_room_comes_back() {
        let pending = Pending::default();
        let follows = Transition::of(ContactEvent::UserFollows);
        let remote = "r".repeat(2000);
        let push = |at: usize| pending.push(&format!("{at:08}{remote}"), &remote, follows, None);
        let taken = (0..MAX_WAITING)
            .find(|at| !push(*at))
            .unwrap_or(MAX_WAITING);
        assert!(taken * 4000 <= MAX_WAITING_BYTES, "{taken}");
        // One that waits already is taken: it needs no room.
        assert!(push(0));
        // The same pair waits and is being written: it counts once again after a failure.
        pending.take(10);
        pending.failed();
        assert_eq!(pending.len(), taken);
        assert!(!push(taken));
        pending.take(usize::MAX);
        pending.written();
        assert_eq!((pending.len(), pending.waiting.lock().bytes), (0, 0));
        assert!(push(taken));
        pending.take(usize::MAX);
        assert!(push(taken));
        pending.failed();
        pending.take(usize::MAX);
        pending.written();
        assert_eq!(pending.waiting.lock().bytes, 0);
    }
}
