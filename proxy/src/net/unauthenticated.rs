//! Bounds on connections that have not authenticated: in total, per address and per network.
//!
//! Where a bound is reached, somebody makes room: who achieved least ([`Rank`]), of those one of the
//! network that has most, of those the oldest. So a flood, from however many addresses, pushes out
//! itself and not a partner who is setting a stream up. A quarter of the places is kept for addresses
//! from which somebody authenticated before, and for servers inside.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections that have not authenticated, of one replica.
pub const TOTAL: usize = 1024;
/// Of them, from addresses that nobody authenticated from before.
pub const STRANGERS: usize = TOTAL / 4 * 3;
/// Of one address (IPv6: of one /64).
pub const PER_ADDRESS: usize = 64;
/// Of one IPv6 /56. IPv4 networks of many addresses belong to many: they have no bound of their own,
/// only whoever has most of a /24 or /16 makes room first.
pub const PER_SITE: usize = 128;
/// Of one IPv6 /48.
pub const PER_NETWORK: usize = 256;
/// Addresses that somebody authenticated from: beyond this many the one longest unused is forgotten.
const KNOWN: u64 = 4096;
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
    /// Addresses (IPv6: /64) from which somebody authenticated.
    known: Cache<IpAddr, ()>,
    /// Connections whose PROXY header is waited for: whose they are is not known yet.
    proxy_headers: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct LimiterState {
    next: u64,
    /// By age; at most [`TOTAL`] and those that are held.
    open: BTreeMap<u64, Slot>,
    /// How many of them each network has, by the width of the network.
    of_network: HashMap<(usize, IpAddr), usize>,
    /// How many of them are not known.
    strangers: usize,
}

#[derive(Debug)]
struct Slot {
    networks: Networks,
    is_known: bool,
    rank: Rank,
    /// Verifications of ours under way: while there are any, the place is not taken away.
    held: u32,
    evicted: CancellationToken,
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

impl Default for UnauthenticatedLimiter {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            known: Cache::builder()
                .max_capacity(KNOWN)
                .time_to_idle(KNOWN_FOR)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            proxy_headers: Arc::new(Semaphore::new(TOTAL)),
        }
    }
}

impl UnauthenticatedLimiter {
    /// A place for a new connection, and how many made room for it. `is_inside`: it came to the
    /// internal listener.
    pub fn enter(self: &Arc<Self>, address: IpAddr, is_inside: bool) -> (ConnectionSlot, usize) {
        let networks = Networks::of(address);
        let is_known = is_inside || self.known.contains_key(&networks.0[0]);
        let mut state = self.state.lock();
        let mut evictions = 0;
        let bounds = [PER_ADDRESS, PER_SITE, PER_NETWORK];
        let bounded = if networks.0[0].is_ipv6() { 3 } else { 1 };
        for (width, most) in bounds.into_iter().enumerate().take(bounded) {
            let own = networks.0[width];
            // Known ones of a network are not held to what strangers of it do.
            if !is_known && state.count(width, own) >= most {
                let made_room = state.evict(|slot| slot.networks.0[width] == own && !slot.is_known);
                evictions += usize::from(made_room);
            }
        }
        let address = networks.0[0];
        if is_known && state.count(0, address) >= PER_ADDRESS {
            evictions += usize::from(state.evict(|slot| slot.networks.0[0] == address));
        }
        let is_full = state.open.len() >= TOTAL;
        if is_full || (!is_known && state.strangers >= STRANGERS) {
            let made_room =
                state.evict(|slot| !slot.is_known) || (is_full && state.evict(|_| true));
            evictions += usize::from(made_room);
        }
        let number = state.next;
        state.next += 1;
        let evicted = CancellationToken::new();
        let slot = Slot {
            networks,
            is_known,
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

    fn insert(&mut self, number: u64, slot: Slot) {
        for (width, network) in slot.networks.0.into_iter().enumerate() {
            *self.of_network.entry((width, network)).or_default() += 1;
        }
        self.strangers += usize::from(!slot.is_known);
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
        self.strangers -= usize::from(!slot.is_known);
        Some(slot)
    }

    /// Takes the place of the least of these away, where there is one that is not held: of the lowest
    /// rank, of the network that has most, the oldest. It walks over [`TOTAL`] at most.
    fn evict(&mut self, of: impl Fn(&Slot) -> bool) -> bool {
        let candidates = self.open.iter();
        let candidates = candidates.filter(|(_, slot)| slot.held == 0 && of(slot));
        let Some(lowest) = candidates.clone().map(|(_, slot)| slot.rank).min() else {
            return false;
        };
        let mut worst: Option<(u64, [usize; 3])> = None;
        for (number, slot) in candidates.filter(|(_, slot)| slot.rank == lowest) {
            // The wide network first.
            let crowd = [2, 1, 0].map(|width| self.count(width, slot.networks.0[width]));
            if worst.is_none_or(|(_, most)| crowd > most) {
                worst = Some((*number, crowd));
            }
        }
        let slot = worst.and_then(|(number, _)| self.remove(number));
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

impl ConnectionSlot {
    /// What raises the rank, and holds the place.
    #[must_use]
    pub fn rank(&self) -> &SlotRank {
        &self.rank
    }

    /// Somebody authenticated here: the address is known from now on, and the place free.
    pub fn authenticated(self) {
        let state = self.rank.limiter.state.lock();
        let address = state
            .open
            .get(&self.rank.number)
            .map(|slot| slot.networks.0[0]);
        drop(state);
        if let Some(address) = address {
            self.rank.limiter.known.insert(address, ());
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
mod tests {
    use super::*;

    fn v4(number: u32) -> IpAddr {
        number.to_be_bytes().into()
    }

    fn v6(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// So many newcomers from addresses that `address` makes of a number.
    fn flood(
        limiter: &Arc<UnauthenticatedLimiter>,
        count: u32,
        address: impl Fn(u32) -> IpAddr,
    ) -> Vec<ConnectionSlot> {
        (0..count)
            .map(|number| limiter.enter(address(number), false).0)
            .collect()
    }

    fn left(slots: &[ConnectionSlot]) -> usize {
        slots
            .iter()
            .filter(|slot| !slot.evicted.is_cancelled())
            .count()
    }

    #[test]
    fn one_address_takes_its_own_places_only() {
        let limiter = Arc::new(UnauthenticatedLimiter::default());
        let partner = limiter.enter(v4(0xc000_0209), false).0;
        let slots = flood(&limiter, 200, |number| v6(&format!("2001:db8::{number:x}")));
        assert_eq!(left(&slots), PER_ADDRESS);
        assert!(!partner.evicted.is_cancelled());
        assert!(slots[0].evicted.is_cancelled(), "the oldest first");
        assert!(!slots[199].evicted.is_cancelled());
        drop((slots, partner));
        assert!(limiter.is_empty());
        let state = limiter.state.lock();
        assert!(state.of_network.is_empty() && state.strangers == 0);
    }

    #[test]
    fn networks_have_bounds_at_each_width() {
        type Addresses = fn(u32) -> IpAddr;
        let cases: [(_, _, Addresses); 3] = [
            ("/56", PER_SITE, |n| {
                v6(&format!("2001:db8:1:{:x}::1", n % 256))
            }),
            ("/48", PER_NETWORK, |n| {
                v6(&format!("2001:db8:1:{:x}::1", n * 7 % 65_536))
            }),
            ("an IPv4 network", STRANGERS, |n| {
                v4(0x0a00_0000 + n * 7 % 65_536)
            }),
        ];
        for (what, most, address) in cases {
            let limiter = Arc::new(UnauthenticatedLimiter::default());
            let slots = flood(&limiter, 1500, address);
            assert_eq!(left(&slots), most, "{what}");
            assert_eq!(limiter.len(), most, "{what}");
        }
    }

    #[test]
    fn the_total_holds_and_the_newest_gets_in() {
        let limiter = Arc::new(UnauthenticatedLimiter::default());
        let slots = flood(
            &limiter,
            1500,
            |number| v4(number.wrapping_mul(0x9e37_79b1)),
        );
        assert_eq!(limiter.len(), STRANGERS);
        assert!(!slots[1499].evicted.is_cancelled());
    }

    #[test]
    fn who_achieved_something_is_not_pushed_out_by_those_who_did_not() {
        for rank in [Rank::Spoke, Rank::Admitted, Rank::Encrypted] {
            let limiter = Arc::new(UnauthenticatedLimiter::default());
            let partner = limiter.enter(v4(0xc000_0209), false).0;
            partner.rank().raise(rank);
            partner.rank().raise(Rank::Silent);
            let slots = flood(&limiter, 1100, |number| v4(0x0a00_0000 + number));
            assert!(!partner.evicted.is_cancelled(), "{rank:?}");
            if rank == Rank::Encrypted {
                // Those who go as far push themselves out, being more of one network.
                for slot in &slots {
                    slot.rank().raise(Rank::Encrypted);
                }
                let _more = flood(&limiter, 300, |number| v4(number.wrapping_mul(0x9e37_79b1)));
                assert!(!partner.evicted.is_cancelled());
            }
        }
    }

    #[test]
    fn a_place_is_never_taken_while_a_verification_is_under_way() {
        let limiter = Arc::new(UnauthenticatedLimiter::default());
        let partner = limiter.enter(v4(1), false).0;
        let held = partner.rank().hold();
        let slots = flood(
            &limiter,
            5000,
            |number| v4(number.wrapping_mul(0x9e37_79b1)),
        );
        for slot in &slots {
            slot.rank().raise(Rank::Encrypted);
        }
        let more = flood(
            &limiter,
            5000,
            |number| v4(number.wrapping_mul(0x85eb_ca6b)),
        );
        assert!(!partner.evicted.is_cancelled());
        let count = || limiter.state.lock().open[&partner.rank().number].held;
        assert_eq!(count(), 1);
        drop(held);
        assert_eq!(count(), 0);
        drop((slots, more));
    }

    #[test]
    fn a_quarter_is_kept_for_those_who_are_known() {
        let limiter = Arc::new(UnauthenticatedLimiter::default());
        limiter.enter(v6("2001:db8::1"), false).0.authenticated();
        let strangers = flood(
            &limiter,
            5000,
            |number| v4(number.wrapping_mul(0x9e37_79b1)),
        );
        strangers
            .iter()
            .for_each(|slot| slot.rank().raise(Rank::Encrypted));
        let known = limiter.enter(v6("2001:db8::2"), false).0;
        let inside = limiter.enter(v4(0x0a00_0001), true).0;
        let more = flood(
            &limiter,
            5000,
            |number| v4(number.wrapping_mul(0x85eb_ca6b)),
        );
        assert!(!known.evicted.is_cancelled() && !inside.evicted.is_cancelled());
        assert!(limiter.len() <= TOTAL);
        drop((strangers, more));
        // What is known is bounded itself.
        for number in 0..2 * KNOWN as u32 {
            limiter.enter(v4(number), false).0.authenticated();
        }
        limiter.known.run_pending_tasks();
        assert!(limiter.known.entry_count() <= KNOWN);
    }
}
