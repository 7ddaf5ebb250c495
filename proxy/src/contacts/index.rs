//! The index in memory: sharded by user, read under a shared lock, two hashes a look-up.
//!
//! Addresses are bare JIDs as text, prepared ([`crate::policy::Address`] borrows them from the
//! stanza where they already are).

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::BuildHasher,
    sync::atomic::{AtomicUsize, Ordering},
};

use foldhash::quality::RandomState;
use parking_lot::RwLock;

use super::{Contact, ContactChange, Transition, pending::Pending};

/// Most contacts of one user.
pub const MAX_CONTACTS_PER_USER: usize = 10_000;

/// Most contacts in all: about 200 MiB.
pub const MAX_CONTACTS: usize = 1_000_000;

const SHARDS: usize = 64;

/// Why a contact was not recorded. The stanza passes all the same; the remote stays a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the user has {MAX_CONTACTS_PER_USER} contacts already")]
    UserFull,
    #[error("{MAX_CONTACTS} contacts are known already")]
    Full,
    #[error("too many changes wait for the contacts' store")]
    StoreBehind,
}

impl RecordError {
    /// A fixed CamelCase word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::UserFull => "UserFull",
            Self::Full => "Full",
            Self::StoreBehind => "StoreBehind",
        }
    }
}

type OfUser = HashMap<Box<str>, Contact, RandomState>;
type Shard = HashMap<Box<str>, OfUser, RandomState>;

/// Who has added whom.
#[derive(Debug)]
pub struct Contacts {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    count: AtomicUsize,
    /// What the store has not taken yet; none: memory only.
    pending: Option<Pending>,
}

impl Contacts {
    /// An index without a store: it forgets at the end of the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with(None)
    }

    pub(super) fn stored() -> Self {
        Self::with(Some(Pending::default()))
    }

    fn with(pending: Option<Pending>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::default(),
            count: AtomicUsize::new(0),
            pending,
        }
    }

    /// Whether `user` has added `remote`.
    #[must_use]
    pub fn has_added(&self, user: &str, remote: &str) -> bool {
        self.state(user, remote).is_some()
    }

    #[must_use]
    pub fn state(&self, user: &str, remote: &str) -> Option<Contact> {
        self.shard(user).read().get(user)?.get(remote).copied()
    }

    /// Users of whom `is_wanted` says so, each with a remote that may follow them. Looks at all contacts: not for the
    /// path of a stanza.
    pub fn followed(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<(Box<str>, Box<str>)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            for (user, known) in shard.iter().filter(|(user, _)| is_wanted(user)) {
                let followers = known
                    .iter()
                    .filter(|(_, state)| matches!(state, Contact::From | Contact::Both));
                found.extend(followers.map(|(remote, _)| (user.clone(), remote.clone())));
            }
        }
        found
    }

    /// Contacts in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a change at once; the store gets it within 50 ms.
    ///
    /// # Errors
    /// [`RecordError`] where a bound is reached; what ends a contact always counts here and now.
    pub fn record(&self, change: &ContactChange) -> Result<(), RecordError> {
        let mut shard = self.shard(&change.user).write();
        let of_user = shard.get(&*change.user);
        let before = of_user
            .and_then(|known| known.get(&*change.remote))
            .copied();
        let after = Contact::after(before, change.event);
        if after == before {
            return Ok(());
        }
        if before.is_none() {
            if of_user.is_some_and(|known| known.len() >= MAX_CONTACTS_PER_USER) {
                return Err(RecordError::UserFull);
            }
            if self.len() >= MAX_CONTACTS {
                return Err(RecordError::Full);
            }
        }
        // Under the shard's lock, so that the store sees a pair's changes in their order.
        let queued = match &self.pending {
            Some(pending) => {
                pending.push(&change.user, &change.remote, Transition::of(change.event))
            }
            None => true,
        };
        if !queued && after.is_some() {
            return Err(RecordError::StoreBehind);
        }
        self.set(&mut shard, &change.user, &change.remote, after);
        if queued {
            Ok(())
        } else {
            Err(RecordError::StoreBehind)
        }
    }

    /// Takes what the store holds for a pair; changes still on their way to it are done on top.
    pub(super) fn adopt(&self, user: &str, remote: &str, stored: Option<Contact>) {
        let mut shard = self.shard(user).write();
        let waiting = self
            .pending
            .as_ref()
            .and_then(|pending| pending.waiting(user, remote));
        let state = waiting.map_or(stored, |transition| transition.apply(stored));
        let known = shard
            .get(user)
            .is_some_and(|known| known.contains_key(remote));
        if state.is_some() && !known && self.len() >= MAX_CONTACTS {
            return;
        }
        self.set(&mut shard, user, remote, state);
    }

    /// Drops what `keep` does not hold, but for what is on its way to the store.
    pub(super) fn retain(&self, keep: impl Fn(&str, &str) -> bool) {
        for shard in &self.shards {
            let mut gone = 0;
            shard.write().retain(|user, known| {
                let before = known.len();
                known.retain(|remote, _| {
                    keep(user, remote)
                        || self
                            .pending
                            .as_ref()
                            .is_some_and(|p| p.waiting(user, remote).is_some())
                });
                gone += before - known.len();
                !known.is_empty()
            });
            self.count.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    fn set(&self, shard: &mut Shard, user: &str, remote: &str, state: Option<Contact>) {
        match state {
            Some(state) => {
                let known = match shard.get_mut(user) {
                    Some(known) => known,
                    None => shard.entry(user.into()).or_default(),
                };
                match known.entry(remote.into()) {
                    Entry::Occupied(mut slot) => {
                        slot.insert(state);
                    }
                    Entry::Vacant(slot) => {
                        slot.insert(state);
                        self.count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            None => {
                let Some(known) = shard.get_mut(user) else {
                    return;
                };
                if known.remove(remote).is_some() {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
                if known.is_empty() {
                    shard.remove(user);
                }
            }
        }
    }

    fn shard(&self, user: &str) -> &RwLock<Shard> {
        // The low bits choose the bucket inside a map of another key; any bits do here.
        let hash = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64);
        // Below SHARDS.
        &self.shards[hash.unwrap_or(0)]
    }
}
