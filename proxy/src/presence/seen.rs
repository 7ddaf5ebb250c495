//! What crossed between the users of the edge and one remote domain: contact, user, device. No locks,
//! no limits but those of a pair; what it costs is told in bytes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

use super::{
    address::split_bare,
    own::{OwnAddress, OwnPresence},
};
use crate::negotiation::{Pair, Side};

/// Devices remembered of one user towards another; the one seen first goes.
pub(super) const DEVICES: usize = 32;
/// Of an allocation and of a map's slack.
const OVERHEAD: usize = 48;

/// Presence between the users of the edge and one remote domain.
#[derive(Debug, Default)]
pub(super) struct DomainPresence {
    /// By the remote user's bare JID.
    contacts: HashMap<Box<str>, SeenContact>,
    /// What [`Self::contacts`] takes, in bytes.
    bytes: usize,
}

/// By the bare JID of a user of the edge.
#[derive(Debug, Default)]
struct SeenContact {
    users: HashMap<Arc<str>, SeenPair>,
}

/// Devices in the order in which they were seen first.
#[derive(Debug, Default)]
struct SeenPair {
    /// The remote user's.
    inbound: Vec<SeenDevice>,
    /// Our user's.
    outbound: Vec<SeenDevice>,
}

/// How a device was seen.
#[derive(Debug)]
struct SeenDevice {
    /// Its resource; empty for a bare JID.
    from: Box<str>,
    /// By the account: each of its devices.
    by_account: bool,
    /// By one device, or by a room under this nickname: the resource that the last such presence went
    /// to. A room does not let go of an occupant whose `unavailable` comes to the room itself.
    by_resource: Option<Box<str>>,
}

/// A presence that passed: bare JIDs prepared, resources empty where there are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting<'a> {
    pub direction: Direction,
    pub user: &'a str,
    pub contact: &'a str,
    pub from_resource: &'a str,
    pub to_resource: &'a str,
}

/// What came of a device that became available.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    /// It is remembered, whether it was before or not.
    pub is_held: bool,
    /// Something else is remembered no longer.
    pub replaces: bool,
    /// Bytes set free.
    pub freed: usize,
}

impl Noted {
    const ADDED: Self = Self {
        is_held: true,
        replaces: false,
        freed: 0,
    };
    const NO_ROOM: Self = Self {
        is_held: false,
        replaces: false,
        freed: 0,
    };
}

/// Bare JIDs of the edge's users, each held once.
#[derive(Debug, Default)]
pub(super) struct Users {
    known: HashSet<Arc<str>>,
}

impl Users {
    fn get(&mut self, user: &str) -> Arc<str> {
        if let Some(known) = self.known.get(user) {
            return Arc::clone(known);
        }
        let user: Arc<str> = user.into();
        self.known.insert(Arc::clone(&user));
        user
    }

    /// A holder lets go of it; where none is left it is forgotten.
    fn release(&mut self, user: Arc<str>) {
        // One here, one in the set.
        if Arc::strong_count(&user) <= 2 {
            self.known.remove(&user);
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl DomainPresence {
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.contacts.is_empty()
    }

    /// A device became available. `charge` is asked for the bytes that it takes, before; where it
    /// refuses nothing is remembered. Of a pair that has more than [`DEVICES`] the oldest goes.
    pub(super) fn available(
        &mut self,
        users: &mut Users,
        seen: Sighting<'_>,
        charge: impl FnOnce(usize) -> bool,
    ) -> Noted {
        let known = devices(&mut self.contacts, seen);
        let known = known.and_then(|devices| {
            let is = |device: &SeenDevice| *device.from == *seen.from_resource;
            devices.iter().position(is).map(|at| &mut devices[at])
        });
        if let Some(device) = known {
            if seen.to_resource.is_empty() {
                device.by_account = true;
                return Noted::ADDED;
            }
            let before = device.by_resource.as_deref();
            if before == Some(seen.to_resource) {
                return Noted::ADDED;
            }
            let replaces = before.is_some();
            let old = before.map_or(0, str::len);
            let new = seen.to_resource.len();
            if new > old && !charge(new - old) {
                return Noted::NO_ROOM;
            }
            device.by_resource = Some(seen.to_resource.into());
            self.bytes = self.bytes + new - old;
            return Noted {
                is_held: true,
                replaces,
                freed: old.saturating_sub(new),
            };
        }
        let device = SeenDevice {
            from: seen.from_resource.into(),
            by_account: seen.to_resource.is_empty(),
            by_resource: (!seen.to_resource.is_empty()).then(|| seen.to_resource.into()),
        };
        let contact = self.contacts.get(seen.contact);
        let pair = contact.and_then(|contact| contact.users.get(seen.user));
        let mut cost = device.bytes();
        if contact.is_none() {
            cost += contact_bytes(seen.contact);
        }
        if pair.is_none() {
            cost += pair_bytes(seen.user);
        }
        if !charge(cost) {
            return Noted::NO_ROOM;
        }
        self.bytes += cost;
        let contact = self.contacts.entry(seen.contact.into()).or_default();
        let pair = contact.users.entry(users.get(seen.user)).or_default();
        let devices = pair.of(seen.direction);
        devices.push(device);
        if devices.len() <= DEVICES {
            return Noted::ADDED;
        }
        let freed = devices.remove(0).bytes();
        self.bytes -= freed;
        Noted {
            is_held: true,
            replaces: true,
            freed,
        }
    }

    /// A device became unavailable. Answers the bytes set free.
    pub(super) fn unavailable(&mut self, users: &mut Users, seen: Sighting<'_>) -> usize {
        let Some(contact) = self.contacts.get_mut(seen.contact) else {
            return 0;
        };
        let Some(pair) = contact.users.get_mut(seen.user) else {
            return 0;
        };
        let devices = pair.of(seen.direction);
        let is = |device: &SeenDevice| *device.from == *seen.from_resource;
        let Some(at) = devices.iter().position(is) else {
            return 0;
        };
        let device = &mut devices[at];
        // The account sees it still.
        if !seen.to_resource.is_empty() && device.by_account {
            let freed = device.by_resource.take().map_or(0, |old| old.len());
            self.bytes -= freed;
            return freed;
        }
        let mut freed = devices.remove(at).bytes();
        if pair.is_empty() {
            if let Some((user, _)) = contact.users.remove_entry(seen.user) {
                users.release(user);
            }
            freed += pair_bytes(seen.user);
        }
        if contact.users.is_empty() {
            self.contacts.remove(seen.contact);
            freed += contact_bytes(seen.contact);
        }
        self.bytes -= freed;
        freed
    }

    /// Takes what `goes` says, of contact, user and direction: hands each pair with its `unavailable`
    /// stanzas to `taken`. Answers the bytes set free.
    pub(super) fn take(
        &mut self,
        domain: &DomainName,
        users: &mut Users,
        mut goes: impl FnMut(&str, Direction) -> bool,
        mut taken: impl FnMut(&str, &str, Direction, Vec<OwnPresence>),
    ) -> usize {
        let before = self.bytes;
        let mut left = Vec::new();
        let bytes = &mut self.bytes;
        self.contacts.retain(|contact, seen| {
            seen.users.retain(|user, pair| {
                for direction in [Direction::Inbound, Direction::Outbound] {
                    if pair.of(direction).is_empty() || !goes(user, direction) {
                        continue;
                    }
                    let devices = std::mem::take(pair.of(direction));
                    *bytes -= devices.iter().map(SeenDevice::bytes).sum::<usize>();
                    let stanzas = withdrawals(domain, contact, user, direction, &devices);
                    taken(contact, user, direction, stanzas);
                }
                if pair.is_empty() {
                    *bytes -= pair_bytes(user);
                    left.push(Arc::clone(user));
                }
                !pair.is_empty()
            });
            if seen.users.is_empty() {
                *bytes -= contact_bytes(contact);
            }
            !seen.users.is_empty()
        });
        for user in left {
            users.release(user);
        }
        before - self.bytes
    }
}

fn devices<'a>(
    contacts: &'a mut HashMap<Box<str>, SeenContact>,
    seen: Sighting<'_>,
) -> Option<&'a mut Vec<SeenDevice>> {
    let contact = contacts.get_mut(seen.contact)?;
    let pair = contact.users.get_mut(seen.user)?;
    Some(pair.of(seen.direction))
}

impl SeenPair {
    fn of(&mut self, direction: Direction) -> &mut Vec<SeenDevice> {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }

    fn is_empty(&self) -> bool {
        self.inbound.is_empty() && self.outbound.is_empty()
    }
}

impl SeenDevice {
    fn bytes(&self) -> usize {
        let to = self.by_resource.as_ref().map_or(0, |to| to.len());
        size_of::<Self>() + OVERHEAD + self.from.len() + to
    }
}

pub(super) fn contact_bytes(contact: &str) -> usize {
    size_of::<(Box<str>, SeenContact)>() + 2 * OVERHEAD + contact.len()
}

pub(super) fn pair_bytes(user: &str) -> usize {
    size_of::<(Arc<str>, SeenPair)>() + 2 * OVERHEAD + user.len()
}

/// `unavailable` from each device to everything that saw it.
fn withdrawals(
    domain: &DomainName,
    contact: &str,
    user: &str,
    direction: Direction,
    devices: &[SeenDevice],
) -> Vec<OwnPresence> {
    let Ok(own) = DomainName::parse(split_bare(user).1) else {
        debug_assert!(false, "it was prepared when it was noted");
        return Vec::new();
    };
    let (side, from, to, pair) = match direction {
        Direction::Inbound => {
            let (from, to) = (domain.clone(), own);
            (Side::Gateway, contact, user, Pair { from, to })
        }
        Direction::Outbound => {
            let (from, to) = (own, domain.clone());
            (Side::Partner, user, contact, Pair { from, to })
        }
    };
    let mut stanzas = Vec::new();
    for device in devices {
        let account = device.by_account.then_some("");
        for resource in account.into_iter().chain(device.by_resource.as_deref()) {
            stanzas.push(OwnPresence {
                side,
                pair: pair.clone(),
                from: OwnAddress::new(from, &device.from),
                to: OwnAddress::new(to, resource),
                type_: "unavailable",
            });
        }
    }
    stanzas
}
