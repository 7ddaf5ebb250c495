//! Bounds on connections that have not authenticated: in total, per address and per network.
//!
//! Where a bound is reached, somebody makes room: one of a crowd first, then who achieved least ([`Rank`]),
//! of those one of the network that has most, of those the oldest. So a flood, from however many addresses, pushes out
//! itself and not a partner who is setting a stream up. A quarter of the places is kept for addresses
//! from which somebody authenticated before, an eighth for servers inside; who has more than what is
//! kept for him competes by rank like all others. A partner object whose server floods has a bounded
//! number of the places kept, and of the addresses known.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::remembered::{Owner, Remembered};

/// Connections that have not authenticated, of one replica.
pub const TOTAL: usize = 1024;
/// Of one address (IPv6: of one /64).
pub const PER_ADDRESS: usize = 64;
/// Of one IPv6 /56. IPv4 networks of many addresses belong to many: they have no bound of their own,
/// only whoever has most of a /24 or /16 makes room first.
pub const PER_SITE: usize = 128;
/// Of one IPv6 /48.
pub const PER_NETWORK: usize = 256;
/// More of one address (/64) are a crowd; of a /56 twice, of a /48 and of an IPv4 /24 four times as many.
const CROWD: usize = PER_ADDRESS / 4;
/// Of one partner object, from addresses that it is known by; what it has beyond counts as a stranger's.
pub const KNOWN_OF_PARTNER: usize = 32;
/// Addresses that one partner object is known by; beyond this many the one longest unused is forgotten.
const ADDRESSES_OF_PARTNER: usize = 64;
/// So long an address is known after the last authentication.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// What an unauthenticated connection has achieved; the lower, the sooner it makes room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    #[default]
    Silent,
    /// It said a byte.
    Spoke,
    /// Its stream header names domains that may talk.
    Admitted,
    /// TLS is done.
    Encrypted,
}

/// The connections that have not authenticated yet.
#[derive(Debug)]
pub struct UnauthenticatedLimiter {
    state: Mutex<LimiterState>,
    /// Connections whose PROXY header is waited for: whose they are is not known yet.
    proxy_headers: Arc<Semaphore>,
}

#[derive(Debug)]
struct LimiterState {
    next: u64,
    /// By age; at most [`TOTAL`] and those that are held.
    open: BTreeMap<u64, Slot>,
    /// How many of them each network has, by the width of the network.
    of_network: HashMap<(usize, IpAddr), usize, RandomState>,
    /// How many of them there are of each kind.
    of_kind: [usize; 3],
    /// How many of the known ones each partner object has.
    of_object: HashMap<Arc<str>, usize>,
    /// Addresses (IPv6: /64) from which somebody authenticated, each with the partner object that did last.
    known: Remembered<IpAddr, ()>,
    /// The same with each partner object that did: several may be behind one address, of a hoster.
    known_to_be: Remembered<(IpAddr, Box<str>), ()>,
}

#[derive(Debug)]
struct Slot {
    networks: Networks,
    kind: SlotKind,
    /// Whose place it is, of the known.
    object: Option<Arc<str>>,
    rank: Rank,
    /// Verifications of ours under way: while there are any, the place is not taken away.
    held: u32,
    evicted: CancellationToken,
}

/// For whom places are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotKind {
    Stranger,
    Known,
    Inside,
}

/// The networks that an address counts in, the narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Networks([IpAddr; 3]);

/// A place among the unauthenticated; dropping it frees the place.
#[derive(Debug)]
pub struct ConnectionSlot {
    rank: SlotRank,
    /// Cancelled when the place is taken away for a newcomer.
    pub evicted: CancellationToken,
}

/// What tells of a place what it has achieved.
#[derive(Clone, Debug)]
pub struct SlotRank {
    limiter: Arc<UnauthenticatedLimiter>,
    number: u64,
}

/// While it lives, the place is not taken away.
#[derive(Debug)]
pub struct SlotHold(SlotRank);

/// The network in which an address is one of many that one hand may have: a /24 in IPv4, a /48 in IPv6.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    let Networks([_, site, network]) = Networks::of(address);
    if network.is_ipv6() { network } else { site }
}

impl Default for UnauthenticatedLimiter {
    fn default() -> Self {
        let state = LimiterState {
            next: 0,
            open: BTreeMap::new(),
            of_network: HashMap::default(),
            of_kind: [0; 3],
            of_object: HashMap::new(),
            known: Remembered::new(KNOWN_FOR, ADDRESSES_OF_PARTNER),
            known_to_be: Remembered::new(KNOWN_FOR, ADDRESSES_OF_PARTNER),
        };
        Self {
            state: Mutex::new(state),
            proxy_headers: Arc::new(Semaphore::new(TOTAL)),
        }
    }
}

impl SlotKind {
    const ALL: [Self; 3] = [Self::Stranger, Self::Known, Self::Inside];

    /// Places that no other kind takes away.
    const fn kept(self) -> usize {
        match self {
            Self::Stranger => TOTAL - Self::Known.kept() - Self::Inside.kept(),
            Self::Known => TOTAL / 4,
            Self::Inside => TOTAL / 8,
        }
    }
}

impl UnauthenticatedLimiter {
    /// A place for a new connection, and how many made room for it. `is_inside`: it came to the
    /// internal listener.
    pub fn enter(self: &Arc<Self>, address: IpAddr, is_inside: bool) -> (ConnectionSlot, usize) {
        let networks = Networks::of(address);
        let mut state = self.state.lock();
        let (kind, object) = state.kind_of(networks, is_inside);
        let mut evictions = 0;
        let bounds = [PER_ADDRESS, PER_SITE, PER_NETWORK];
        let bounded = if networks.0[0].is_ipv6() { 3 } else { 1 };
        for (width, most) in bounds.into_iter().enumerate().take(bounded) {
            if state.count(width, networks.0[width]) >= most {
                let made_room = state.make_room_in(width, networks.0[width], most);
                evictions += usize::from(made_room);
            }
        }
        if state.open.len() >= TOTAL {
            evictions += usize::from(state.make_room_for(kind));
        }
        let number = state.next;
        state.next += 1;
        let evicted = CancellationToken::new();
        let slot = Slot {
            networks,
            kind,
            object,
            rank: Rank::default(),
            held: 0,
            evicted: evicted.clone(),
        };
        state.insert(number, slot);
        let rank = SlotRank {
            limiter: Arc::clone(self),
            number,
        };
        (ConnectionSlot { rank, evicted }, evictions)
    }

    /// Whether this partner object authenticated from this address before.
    #[must_use]
    pub fn is_known(&self, address: IpAddr, object: &str) -> bool {
        let Networks([address, ..]) = Networks::of(address);
        let key = (address, object.into());
        let state = self.state.lock();
        state.known_to_be.get(&key, Instant::now()).is_some()
    }

    /// A place to wait for a PROXY header in; none while as many wait as may be unauthenticated.
    #[must_use]
    pub fn await_proxy_header(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.proxy_headers).try_acquire_owned().ok()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().open.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl LimiterState {
    fn count(&self, width: usize, network: IpAddr) -> usize {
        let count = self.of_network.get(&(width, network));
        count.copied().unwrap_or_default()
    }

    /// Whose places a newcomer takes.
    fn kind_of(&self, networks: Networks, is_inside: bool) -> (SlotKind, Option<Arc<str>>) {
        if is_inside {
            return (SlotKind::Inside, None);
        }
        let object = self.known.object(&networks.0[0], Instant::now());
        let has_room = |object: &&Arc<str>| {
            let own = self.of_object.get(*object).copied().unwrap_or_default();
            own < KNOWN_OF_PARTNER
        };
        match object.filter(has_room) {
            Some(object) => (SlotKind::Known, Some(Arc::clone(object))),
            None => (SlotKind::Stranger, None),
        }
    }

    /// A network has as many as it may. Its strangers make room before its known ones, while these are
    /// few: sharing a network with strangers is no fault of a partner's.
    fn make_room_in(&mut self, width: usize, network: IpAddr, most: usize) -> bool {
        let is_of = |slot: &Slot| slot.networks.0[width] == network;
        let is_stranger = |slot: &Slot| is_of(slot) && slot.kind == SlotKind::Stranger;
        let all = self.open.values().filter(|slot| is_of(slot));
        let kept = all.filter(|slot| !is_stranger(slot)).count();
        (kept <= most / 4 && self.evict(is_stranger)) || self.evict(is_of)
    }

    /// All places are taken. Those kinds make room that have more than is kept for them, the newcomer
    /// counted: one at least has.
    fn make_room_for(&mut self, newcomer: SlotKind) -> bool {
        let is_over = SlotKind::ALL
            .map(|kind| self.of_kind[kind as usize] + usize::from(kind == newcomer) > kind.kept());
        self.evict(|slot| is_over[slot.kind as usize]) || self.evict(|_| true)
    }

    fn insert(&mut self, number: u64, slot: Slot) {
        for (width, network) in slot.networks.0.into_iter().enumerate() {
            *self.of_network.entry((width, network)).or_default() += 1;
        }
        self.of_kind[slot.kind as usize] += 1;
        if let Some(object) = &slot.object {
            *self.of_object.entry(Arc::clone(object)).or_default() += 1;
        }
        self.open.insert(number, slot);
    }

    fn remove(&mut self, number: u64) -> Option<Slot> {
        let slot = self.open.remove(&number)?;
        for key in slot.networks.0.into_iter().enumerate() {
            let left = self.count(key.0, key.1).saturating_sub(1);
            if left == 0 {
                self.of_network.remove(&key);
            } else {
                self.of_network.insert(key, left);
            }
        }
        self.of_kind[slot.kind as usize] -= 1;
        if let Some(object) = &slot.object
            && let Some(own) = self.of_object.get_mut(object)
        {
            *own -= 1;
            if *own == 0 {
                self.of_object.remove(object);
            }
        }
        Some(slot)
    }

    /// Takes the place of the least of these away, where there is one that is not held: of a crowd before
    /// others, whatever it has achieved; then of the lowest rank, of the network that has most, the oldest.
    /// It walks over [`TOTAL`] at most.
    fn evict(&mut self, of: impl Fn(&Slot) -> bool) -> bool {
        let candidates = self.open.iter();
        let candidates = candidates.filter(|(_, slot)| slot.held == 0 && of(slot));
        let least = candidates.min_by_key(|(_, slot)| {
            let counts = [0, 1, 2].map(|width| self.count(width, slot.networks.0[width]));
            let is_crowd = slot.networks.is_crowd(counts);
            let [address, site, network] = counts;
            // The wide network first; of equals the first is taken, which is the oldest.
            (!is_crowd, slot.rank, Reverse((network, site, address)))
        });
        let number = least.map(|(number, _)| *number);
        let slot = number.and_then(|number| self.remove(number));
        if let Some(slot) = &slot {
            slot.evicted.cancel();
        }
        slot.is_some()
    }
}

impl Networks {
    fn of(address: IpAddr) -> Self {
        let widths = match address.to_canonical() {
            IpAddr::V4(_) => [4, 3, 2],
            IpAddr::V6(_) => [8, 7, 6],
        };
        Self(widths.map(|octets| match address.to_canonical() {
            IpAddr::V4(v4) => {
                let mut kept = v4.octets();
                kept[octets..].fill(0);
                kept.into()
            }
            IpAddr::V6(v6) => {
                let mut kept = v6.octets();
                kept[octets..].fill(0);
                kept.into()
            }
        }))
    }
}

impl Networks {
    /// Whether one hand has so many that it may lose some of them whatever it achieves: who finishes TLS a
    /// thousand times from few networks must not keep out who has not come so far.
    fn is_crowd(&self, [address, site, network]: [usize; 3]) -> bool {
        let is_v6 = self.0[0].is_ipv6();
        let network = if is_v6 { network } else { 0 };
        let most_of_site = if is_v6 { 2 * CROWD } else { 4 * CROWD };
        address > CROWD || site > most_of_site || network > 4 * CROWD
    }
}

impl ConnectionSlot {
    /// What raises the rank, and holds the place.
    #[must_use]
    pub fn rank(&self) -> &SlotRank {
        &self.rank
    }

    /// Somebody authenticated here: the place is free, and a partner object is known by the address from
    /// now on.
    pub fn authenticated(self, object: Option<&str>) {
        let state = &mut *self.rank.limiter.state.lock();
        if let Some(object) = object
            && let Some(slot) = state.open.get(&self.rank.number)
            && slot.kind != SlotKind::Inside
        {
            let Networks([address, ..]) = slot.networks;
            let owner = Owner::Object(object);
            let now = Instant::now();
            state.known.note(owner, address, (), now);
            let key = (address, object.into());
            state.known_to_be.note(owner, key, (), now);
        }
    }
}

impl SlotRank {
    /// The connection has achieved this; never less than before.
    pub fn raise(&self, rank: Rank) {
        if let Some(slot) = self.limiter.state.lock().open.get_mut(&self.number) {
            slot.rank = slot.rank.max(rank);
        }
    }

    /// A verification of ours is under way for it.
    #[must_use]
    pub fn hold(&self) -> SlotHold {
        if let Some(slot) = self.limiter.state.lock().open.get_mut(&self.number) {
            slot.held += 1;
        }
        SlotHold(self.clone())
    }
}

impl Drop for SlotHold {
    fn drop(&mut self) {
        if let Some(slot) = self.0.limiter.state.lock().open.get_mut(&self.0.number) {
            slot.held = slot.held.saturating_sub(1);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.rank.limiter.state.lock().remove(self.rank.number);
    }
}

#[cfg(test)]
mod tests;
