//! The index in memory: sharded by user, read under a shared lock, two hashes a look-up.
//!
//! Addresses are bare JIDs as text, prepared ([`crate::policy::Address`] borrows them from the
//! stanza where they already are).

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use foldhash::quality::RandomState;
use parking_lot::RwLock;

use super::{
    Contact, ContactChange, ContactEvent, Transition,
    holders::{ContactHolder, ContactHolders, HeldRoom, HolderId, KnownHolders},
    pending::Pending,
};

/// Most contacts of one user, beside those with partners that need none.
pub const MAX_CONTACTS_PER_USER: usize = 10_000;

/// Most contacts of one user with one partner that needs none: a server of users of SIP lets them be watched.
pub const MAX_CONTACTS_NOT_NEEDED: usize = 1_000;

/// Most contacts in all; of one partner object a quarter.
pub const MAX_CONTACTS: usize = 1_000_000;

/// Most bytes of one user's contacts, as [`CONTACT_OVERHEAD`] counts them.
pub const MAX_CONTACT_BYTES_PER_USER: usize = 2 << 20;

/// Most bytes of contacts in all, shared likewise: room for [`MAX_CONTACTS`] with addresses of usual length, in half of the memory that a
/// pod has beside its queues.
pub const MAX_CONTACT_BYTES: usize = 128 << 20;

/// What a contact takes beside the text of the remote: its share of a table that is partly empty, and of the
/// allocator.
const CONTACT_OVERHEAD: usize = 64;

/// What a user takes beside the text and the contacts.
const USER_OVERHEAD: usize = 192;

const SHARDS: usize = 64;

/// Why a contact was not recorded, or not kept. The stanza passes all the same; the remote stays a stranger, or becomes
/// one with the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error(
        "the user has {MAX_CONTACTS_PER_USER} contacts already, or {MAX_CONTACT_BYTES_PER_USER} bytes of them"
    )]
    UserFull,
    #[error(
        "{MAX_CONTACTS} contacts are known already, or {MAX_CONTACT_BYTES} bytes of them, or the partner has its share of these"
    )]
    Full,
    #[error("too many changes wait for the contacts' store, of all or of this partner")]
    StoreBehind,
    #[error("the contacts' database cannot hold the address")]
    NotStorable,
}

impl RecordError {
    pub const ALL: [Self; 4] = [
        Self::UserFull,
        Self::Full,
        Self::StoreBehind,
        Self::NotStorable,
    ];

    /// A fixed CamelCase word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::UserFull => "UserFull",
            Self::Full => "Full",
            Self::StoreBehind => "StoreBehind",
            Self::NotStorable => "NotStorable",
        }
    }
}

/// A contact, and the load of the store that saw it last.
#[derive(Debug, Clone, Copy)]
struct HeldContact {
    state: Contact,
    load: u32,
    /// On whose account it is.
    holder: Option<HolderId>,
    /// It is none of those that [`MAX_CONTACTS_PER_USER`] bounds.
    is_beside: bool,
}

#[derive(Debug, Default)]
struct OfUser {
    known: HashMap<Box<str>, HeldContact, RandomState>,
    bytes: usize,
    /// Of these: with partners that need no contacts.
    beside: HeldRoom,
}

type Shard = HashMap<Box<str>, OfUser, RandomState>;

/// Who has added whom.
#[derive(Debug)]
pub struct Contacts {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    count: AtomicUsize,
    bytes: AtomicUsize,
    changes: AtomicU64,
    /// Number of the newest load of the store: what an older one saw alone is not there any more.
    load: AtomicU32,
    /// By [`RecordError::ALL`].
    not_recorded: [AtomicU64; RecordError::ALL.len()],
    /// What the store has not taken yet; none: memory only.
    pending: Option<Pending>,
    holders: KnownHolders,
}

impl OfUser {
    fn forget(&mut self, held: HeldContact, cost: usize) {
        self.bytes -= cost;
        if held.is_beside {
            self.beside.remove(cost);
        }
    }

    /// Whether there is no room for one more of this cost.
    fn is_full(&self, holder: Option<ContactHolder>, cost: usize) -> bool {
        match holder {
            Some(holder) if !holder.needs_contacts => {
                let own = self.known.values();
                let own = own.filter(|held| held.holder == Some(holder.id));
                own.count() >= MAX_CONTACTS_NOT_NEEDED
            }
            _ => {
                self.known.len() - self.beside.count >= MAX_CONTACTS_PER_USER
                    || self.bytes - self.beside.bytes + cost > MAX_CONTACT_BYTES_PER_USER
            }
        }
    }
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
            bytes: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            load: AtomicU32::new(0),
            not_recorded: Default::default(),
            pending,
            holders: KnownHolders::default(),
        }
    }

    /// Domains belong to these partner objects from here on: what each holds is counted anew where that is another one
    /// than before. Looks at all contacts: not for the path of a stanza.
    pub fn follow_holders(&self, holders: Arc<dyn ContactHolders>) {
        self.holders.follow(holders);
        let belongs = |remote: &str, held: &HeldContact| {
            let holder = self.holders.find(remote);
            let is_beside = holder.is_some_and(|holder| !holder.needs_contacts);
            (holder.map(|own| own.id), is_beside) == (held.holder, held.is_beside)
        };
        for shard in &self.shards {
            // Who reads is held up only where there is something to change.
            let all_belong = shard.read().values().all(|of_user| {
                let mut known = of_user.known.iter();
                known.all(|(remote, held)| belongs(remote, held))
            });
            if all_belong {
                continue;
            }
            for of_user in shard.write().values_mut() {
                of_user.beside = HeldRoom::default();
                for (remote, held) in &mut of_user.known {
                    let cost = contact_cost(remote);
                    self.holders.remove(held.holder, cost);
                    held.belongs_to(self.holders.find(remote));
                    self.holders.add(held.holder, cost);
                    if held.is_beside {
                        of_user.beside.add(cost);
                    }
                }
            }
        }
    }

    /// How often a contact of anybody has changed: while it is the same, all that is asked here has the same answer.
    /// To be read before what it is to stand for.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether `user` has added `remote`.
    #[must_use]
    pub fn has_added(&self, user: &str, remote: &str) -> bool {
        self.state(user, remote).is_some()
    }

    #[must_use]
    pub fn state(&self, user: &str, remote: &str) -> Option<Contact> {
        let held = *self.shard(user).read().get(user)?.known.get(remote)?;
        Some(held.state)
    }

    /// Whether `event` may change what is known or stored of them: [`Self::record`] is to be told.
    #[must_use]
    pub fn may_change(&self, user: &str, remote: &str, event: ContactEvent) -> bool {
        let before = self.state(user, remote);
        Contact::after(before, event) != before || self.may_end_unknown(event)
    }

    /// The store may hold who is not known here: while it was not read, for want of room, and for as long as what
    /// another replica wrote was not asked for.
    fn may_end_unknown(&self, event: ContactEvent) -> bool {
        event.ends() && self.pending.is_some()
    }

    /// Users of whom `is_wanted` says so, each with a remote that may follow them. Looks at all contacts: not for the
    /// path of a stanza.
    pub fn followed(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<(Box<str>, Box<str>)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            for (user, of_user) in shard.iter().filter(|(user, _)| is_wanted(user)) {
                let followers = of_user
                    .known
                    .iter()
                    .filter(|(_, held)| matches!(held.state, Contact::From | Contact::Both));
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

    /// Memory that contacts take, in bytes, as [`MAX_CONTACT_BYTES`] counts them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Changes that the store has not taken yet; 0 without one.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.as_ref().map_or(0, Pending::len)
    }

    /// How often a contact was not recorded or not kept, by cause.
    pub fn not_recorded(&self) -> impl Iterator<Item = (RecordError, u64)> {
        let counts = RecordError::ALL.into_iter().zip(&self.not_recorded);
        counts.map(|(error, count)| (error, count.load(Ordering::Relaxed)))
    }

    /// Counts one that was not recorded.
    pub(super) fn count_not_recorded(&self, error: RecordError) {
        for (other, count) in RecordError::ALL.into_iter().zip(&self.not_recorded) {
            if other == error {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes a change at once; the store gets it within 50 ms.
    ///
    /// # Errors
    /// [`RecordError`] where a bound is reached; what ends a contact always counts here and now.
    pub fn record(&self, change: &ContactChange) -> Result<(), RecordError> {
        let recorded = self.take(change);
        if let Err(error) = recorded {
            self.count_not_recorded(error);
        }
        recorded
    }

    fn take(&self, change: &ContactChange) -> Result<(), RecordError> {
        let mut shard = self.shard(&change.user).write();
        let of_user = shard.get(&*change.user);
        let before = of_user
            .and_then(|of_user| of_user.known.get(&*change.remote))
            .map(|held| held.state);
        let after = Contact::after(before, change.event);
        if after == before && !self.may_end_unknown(change.event) {
            return Ok(());
        }
        let holder = self.holders.find(&change.remote);
        if before.is_none() && after.is_some() {
            let cost = contact_cost(&change.remote);
            if of_user.is_some_and(|of_user| of_user.is_full(holder, cost)) {
                return Err(RecordError::UserFull);
            }
            let has_share = holder.is_none_or(|holder| {
                let held = self.holders.held(holder.id);
                !held.is_full(self.room(), MOST)
            });
            if !has_share || !self.has_room(&change.user, &change.remote) {
                return Err(RecordError::Full);
            }
        }
        // Under the shard's lock, so that the store sees a pair's changes in their order.
        let queued = match &self.pending {
            Some(pending) => {
                let holder = holder.map(|holder| holder.id);
                let transition = Transition::of(change.event);
                pending.push(&change.user, &change.remote, transition, holder)
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

    /// What all hold.
    fn room(&self) -> HeldRoom {
        HeldRoom {
            count: self.len(),
            bytes: self.bytes(),
        }
    }

    /// Whether there is room for one more, of a user who may be new.
    fn has_room(&self, user: &str, remote: &str) -> bool {
        let cost = contact_cost(remote) + user_cost(user);
        self.len() < MAX_CONTACTS && self.bytes() + cost <= MAX_CONTACT_BYTES
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
            .is_some_and(|of_user| of_user.known.contains_key(remote));
        if state.is_some() && !known && !self.has_room(user, remote) {
            self.count_not_recorded(RecordError::Full);
            return;
        }
        self.set(&mut shard, user, remote, state);
    }

    /// From now on the store is read as a whole: [`Self::end_load`] drops what that did not see.
    pub(super) fn begin_load(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops what was neither adopted nor recorded since [`Self::begin_load`], but for what is on its way to the
    /// store.
    pub(super) fn end_load(&self) {
        let load = self.load.load(Ordering::Relaxed);
        for shard in &self.shards {
            let (mut gone, mut freed) = (0, 0);
            shard.write().retain(|user, of_user| {
                let mut of_this = 0;
                let before = of_user.known.len();
                of_user.known.retain(|remote, held| {
                    let waits = |pending: &Pending| pending.waiting(user, remote).is_some();
                    let stays = held.load == load || self.pending.as_ref().is_some_and(waits);
                    if !stays {
                        let cost = contact_cost(remote);
                        of_this += cost;
                        if held.is_beside {
                            of_user.beside.remove(cost);
                        }
                        self.holders.remove(held.holder, cost);
                    }
                    stays
                });
                gone += before - of_user.known.len();
                of_user.bytes -= of_this;
                freed += of_this;
                if of_user.known.is_empty() {
                    freed += user_cost(user);
                }
                !of_user.known.is_empty()
            });
            self.changes.fetch_add(1, Ordering::Release);
            self.count.fetch_sub(gone, Ordering::Relaxed);
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// Under the shard's lock; counted behind the change, so that who read the count before it looks again.
    fn set(&self, shard: &mut Shard, user: &str, remote: &str, state: Option<Contact>) {
        let is_another = match state {
            Some(state) => {
                let load = self.load.load(Ordering::Relaxed);
                let of_user = match shard.get_mut(user) {
                    Some(of_user) => of_user,
                    None => {
                        self.bytes.fetch_add(user_cost(user), Ordering::Relaxed);
                        shard.entry(user.into()).or_default()
                    }
                };
                match of_user.known.entry(remote.into()) {
                    Entry::Occupied(mut slot) => {
                        let held = slot.get_mut();
                        let before = std::mem::replace(&mut held.state, state);
                        held.load = load;
                        before != state
                    }
                    Entry::Vacant(slot) => {
                        let mut held = HeldContact {
                            state,
                            load,
                            holder: None,
                            is_beside: false,
                        };
                        held.belongs_to(self.holders.find(remote));
                        slot.insert(held);
                        let cost = contact_cost(remote);
                        of_user.bytes += cost;
                        if held.is_beside {
                            of_user.beside.add(cost);
                        }
                        self.holders.add(held.holder, cost);
                        self.bytes.fetch_add(cost, Ordering::Relaxed);
                        self.count.fetch_add(1, Ordering::Relaxed);
                        true
                    }
                }
            }
            None => {
                let Some(of_user) = shard.get_mut(user) else {
                    return;
                };
                let known = of_user.known.remove(remote);
                if let Some(held) = known {
                    let cost = contact_cost(remote);
                    of_user.forget(held, cost);
                    self.holders.remove(held.holder, cost);
                    self.bytes.fetch_sub(cost, Ordering::Relaxed);
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
                if of_user.known.is_empty() {
                    shard.remove(user);
                    self.bytes.fetch_sub(user_cost(user), Ordering::Relaxed);
                }
                known.is_some()
            }
        };
        if is_another {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    fn shard(&self, user: &str) -> &RwLock<Shard> {
        // The low bits choose the bucket inside a map of another key; any bits do here.
        let hash = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64);
        // Below SHARDS.
        &self.shards[hash.unwrap_or(0)]
    }
}

impl HeldContact {
    fn belongs_to(&mut self, holder: Option<ContactHolder>) {
        self.holder = holder.map(|holder| holder.id);
        self.is_beside = holder.is_some_and(|holder| !holder.needs_contacts);
    }
}

/// [`MAX_CONTACTS`] and [`MAX_CONTACT_BYTES`].
const MOST: HeldRoom = HeldRoom {
    count: MAX_CONTACTS,
    bytes: MAX_CONTACT_BYTES,
};

fn contact_cost(remote: &str) -> usize {
    remote.len() + CONTACT_OVERHEAD
}

fn user_cost(user: &str) -> usize {
    user.len() + USER_OVERHEAD
}

#[cfg(test)]
mod tests;
