//! Changes on their way to the store: one combined [`Transition`] a pair, bounded.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Transition;

/// Most pairs that wait; more only where the store is away for long.
const MAX_WAITING: usize = 100_000;

/// A pair of bare addresses: user, remote.
pub(super) type ContactKey = (Box<str>, Box<str>);

/// What one write takes.
pub(super) type ContactBatch = HashMap<ContactKey, Transition>;

#[derive(Debug, Default)]
struct Waiting {
    next: ContactBatch,
    /// Being written: still on top of what the store holds, until it says so.
    writing: ContactBatch,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl Pending {
    /// False where too many wait and the pair is not among them.
    pub(super) fn push(&self, user: &str, remote: &str, transition: Transition) -> bool {
        let pair: ContactKey = (user.into(), remote.into());
        let mut waiting = self.waiting.lock();
        let full = waiting.next.len() + waiting.writing.len() >= MAX_WAITING;
        match waiting.next.get_mut(&pair) {
            Some(before) => *before = before.then(transition),
            None if full => return false,
            None => {
                waiting.next.insert(pair, transition);
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
        match (waiting.writing.get(&pair), waiting.next.get(&pair)) {
            (Some(first), Some(second)) => Some(first.then(*second)),
            (first, second) => first.or(second).copied(),
        }
    }

    /// Takes what waits, `most` pairs of it; it still counts as waiting until [`Self::written`] or [`Self::failed`].
    pub(super) fn take(&self, most: usize) -> ContactBatch {
        let mut waiting = self.waiting.lock();
        let mut batch = std::mem::take(&mut waiting.next);
        if let Some(rest) = batch.len().checked_sub(most) {
            waiting.next = batch.extract_if(|_, _| true).take(rest).collect();
        }
        waiting.writing = batch;
        waiting.writing.clone()
    }

    pub(super) fn written(&self) {
        self.waiting.lock().writing = ContactBatch::new();
    }

    /// The batch waits again, before what came meanwhile.
    pub(super) fn failed(&self) {
        let mut waiting = self.waiting.lock();
        let mut batch = std::mem::take(&mut waiting.writing);
        for (pair, later) in std::mem::take(&mut waiting.next) {
            batch
                .entry(pair)
                .and_modify(|first| *first = first.then(later))
                .or_insert(later);
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
