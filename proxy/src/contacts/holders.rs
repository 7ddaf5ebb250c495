//! Which partner object a contact's remote belongs to, and how much of the room each takes.
//!
//! The rule is that of the queues' memory: who holds a third of what all leave free gets no more, so a quarter of the
//! whole where it is alone. What is of no partner object, or came before there was a configuration to ask, has the
//! bounds of all alone.

use std::{collections::HashMap, fmt, num::NonZeroU32, sync::Arc};

use parking_lot::{Mutex, RwLock};

/// Says which partner object a domain belongs to.
pub trait ContactHolders: fmt::Debug + Send + Sync {
    /// Its name, and whether its type needs contacts; none: it belongs to nobody.
    fn holder<'a>(&'a self, domain: &'a str) -> Option<(&'a str, bool)>;
}

/// A partner object, in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HolderId(NonZeroU32);

/// Whose a remote is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContactHolder {
    pub(super) id: HolderId,
    /// Whether its type needs contacts.
    pub(super) needs_contacts: bool,
}

/// What is held for one partner object, or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldRoom {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct KnownHolders {
    of: RwLock<Option<Arc<dyn ContactHolders>>>,
    rooms: Mutex<HolderRooms>,
}

#[derive(Debug, Default)]
struct HolderRooms {
    /// One for each object that ever had a contact.
    ids: HashMap<Box<str>, HolderId>,
    held: HashMap<HolderId, HeldRoom>,
}

impl HeldRoom {
    /// Whether who holds this may hold no more where all together hold `all` of `most`.
    pub(super) fn is_full(self, all: Self, most: Self) -> bool {
        let is_third = |own: usize, all: usize, most: usize| own > most.saturating_sub(all) / 3;
        is_third(self.count, all.count, most.count) || is_third(self.bytes, all.bytes, most.bytes)
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl KnownHolders {
    /// They are asked from here on.
    pub(super) fn follow(&self, holders: Arc<dyn ContactHolders>) {
        *self.of.write() = Some(holders);
    }

    /// Whose a bare address is.
    pub(super) fn find(&self, remote: &str) -> Option<ContactHolder> {
        let of = self.of.read();
        let domain = remote.rsplit_once('@').map_or(remote, |(_, domain)| domain);
        let (name, needs_contacts) = of.as_ref()?.holder(domain)?;
        let mut rooms = self.rooms.lock();
        let id = match rooms.ids.get(name) {
            Some(id) => *id,
            None => {
                let next = u32::try_from(rooms.ids.len()).ok()?.checked_add(1)?;
                let id = HolderId(NonZeroU32::new(next)?);
                rooms.ids.insert(name.into(), id);
                id
            }
        };
        Some(ContactHolder { id, needs_contacts })
    }

    /// What it holds.
    pub(super) fn held(&self, id: HolderId) -> HeldRoom {
        self.rooms.lock().held.get(&id).copied().unwrap_or_default()
    }

    /// It holds one more.
    pub(super) fn add(&self, id: Option<HolderId>, bytes: usize) {
        if let Some(id) = id {
            self.rooms.lock().held.entry(id).or_default().add(bytes);
        }
    }

    /// It holds one less.
    pub(super) fn remove(&self, id: Option<HolderId>, bytes: usize) {
        if let Some(id) = id
            && let Some(held) = self.rooms.lock().held.get_mut(&id)
        {
            held.remove(bytes);
        }
    }
}
