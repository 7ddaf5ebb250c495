//! UnauthenticatedLimiter before authentication: in total and per address. The oldest silent connection makes
//! room for the newest, so that nobody can lock a partner out.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Connections that have not authenticated, of one replica.
pub const TOTAL: usize = 1024;
/// Of one address (IPv6: of one /64).
pub const PER_ADDRESS: usize = 64;

/// The connections that have not authenticated yet.
#[derive(Debug, Default)]
pub struct UnauthenticatedLimiter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By age.
    open: BTreeMap<u64, (IpAddr, CancellationToken)>,
    of_address: HashMap<IpAddr, VecDeque<u64>>,
}

/// A place among the unauthenticated; dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    bounds: Arc<UnauthenticatedLimiter>,
    number: u64,
    /// Cancelled when the place is taken away for a newcomer.
    pub evicted: CancellationToken,
}

impl UnauthenticatedLimiter {
    /// A place for a new connection. Where a bound is reached, the oldest within it loses its own.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> (Place, usize) {
        let key = network(address);
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        let mut evictions = 0;
        if state
            .of_address
            .get(&key)
            .is_some_and(|own| own.len() >= PER_ADDRESS)
        {
            let oldest = state.of_address[&key].front().copied();
            evictions += usize::from(oldest.is_some_and(|oldest| state.evict(oldest)));
        }
        if state.open.len() >= TOTAL {
            let oldest = state.open.keys().next().copied();
            evictions += usize::from(oldest.is_some_and(|oldest| state.evict(oldest)));
        }
        let evicted = CancellationToken::new();
        state.open.insert(number, (key, evicted.clone()));
        state.of_address.entry(key).or_default().push_back(number);
        (
            Place {
                bounds: Arc::clone(self),
                number,
                evicted,
            },
            evictions,
        )
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

impl State {
    fn evict(&mut self, number: u64) -> bool {
        let Some((address, token)) = self.open.remove(&number) else {
            return false;
        };
        token.cancel();
        if let Some(own) = self.of_address.get_mut(&address) {
            own.retain(|other| *other != number);
            if own.is_empty() {
                self.of_address.remove(&address);
            }
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.bounds.state.lock();
        if let Some((address, _)) = state.open.remove(&self.number)
            && let Some(own) = state.of_address.get_mut(&address)
        {
            own.retain(|other| *other != self.number);
            if own.is_empty() {
                state.of_address.remove(&address);
            }
        }
    }
}

/// What counts as one address: an IPv6 host commands its whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_its_own_places_only() {
        let bounds = Arc::new(UnauthenticatedLimiter::default());
        let partner = bounds.enter("192.0.2.9".parse().expect("address")).0;
        let flood: IpAddr = "2001:db8::1".parse().expect("address");
        let neighbour: IpAddr = "2001:db8::2".parse().expect("address");
        let places: Vec<_> = (0..PER_ADDRESS * 2)
            .map(|n| bounds.enter(if n % 2 == 0 { flood } else { neighbour }).0)
            .collect();
        assert_eq!(bounds.len(), PER_ADDRESS + 1);
        assert!(!partner.evicted.is_cancelled());
        assert!(places[0].evicted.is_cancelled());
        assert!(!places[places.len() - 1].evicted.is_cancelled());
        drop(places);
        drop(partner);
        assert!(bounds.is_empty());
        assert!(bounds.state.lock().of_address.is_empty());
    }

    #[test]
    fn the_total_holds_and_the_newest_gets_in() {
        let bounds = Arc::new(UnauthenticatedLimiter::default());
        let places: Vec<_> = (0..TOTAL as u32 + 10)
            .map(|n| {
                bounds
                    .enter(IpAddr::from((0x0a00_0000 + n).to_be_bytes()))
                    .0
            })
            .collect();
        assert_eq!(bounds.len(), TOTAL);
        assert_eq!(
            places
                .iter()
                .filter(|place| place.evicted.is_cancelled())
                .count(),
            10
        );
        assert!(!places[places.len() - 1].evicted.is_cancelled());
    }
}
