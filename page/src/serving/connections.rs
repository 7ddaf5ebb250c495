//! Who is connected. A new connection is never refused for others that ask nothing: of these, the one that has
//! waited longest goes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::ServingBounds;

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Connections {
    bounds: ServingBounds,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// By number, in the order of their begin.
    connections: BTreeMap<u64, Connection>,
    /// Of the newest connection.
    number: u64,
    /// How often a connection began to wait.
    turn: u64,
}

#[derive(Debug)]
struct Connection {
    neighbours: IpAddr,
    /// When it began to wait for a request; none while one is answered.
    waits_since: Option<u64>,
    evicted: CancellationToken,
}

/// A connection's place, given back with its end.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    evicted: CancellationToken,
}

/// A request is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Connections {
    pub(super) fn new(bounds: ServingBounds) -> Self {
        Self {
            bounds,
            held: Mutex::default(),
        }
    }

    /// A place for a new connection; none where each that would have to go is being answered.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let neighbours = neighbours(from);
        let mut held = self.held.lock();
        let beside = held.connections.values();
        let beside = beside.filter(|own| own.neighbours == neighbours).count();
        let has_room = (neighbours.is_loopback() || beside < self.bounds.of_address)
            || held.evict_of(neighbours);
        let has_room =
            has_room && (held.connections.len() < self.bounds.all || held.evict_of_most());
        if !has_room {
            return None;
        }
        let evicted = CancellationToken::new();
        held.turn += 1;
        held.number += 1;
        let (number, turn) = (held.number, held.turn);
        held.connections.insert(
            number,
            Connection {
                neighbours,
                waits_since: Some(turn),
                evicted: evicted.clone(),
            },
        );
        Some(Place {
            connections: Arc::clone(self),
            number,
            evicted,
        })
    }
}

impl Held {
    /// Ends the connection of these that has waited longest; `false` where none waits.
    fn evict_of(&mut self, neighbours: IpAddr) -> bool {
        let waiting = self.waiting().filter(|(_, at, _)| *at == neighbours);
        let oldest = waiting.min_by_key(|(since, ..)| *since);
        self.evict(oldest.map(|(.., number)| number))
    }

    /// As [`Self::evict_of`], of who has most connections.
    fn evict_of_most(&mut self) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for connection in self.connections.values() {
            *counts.entry(connection.neighbours).or_default() += 1;
        }
        let oldest = self
            .waiting()
            .min_by_key(|(since, at, _)| (Reverse(counts.get(at).copied()), *since));
        self.evict(oldest.map(|(.., number)| number))
    }

    /// Those that wait: since when, where from, and under which number.
    fn waiting(&self) -> impl Iterator<Item = (u64, IpAddr, u64)> {
        let all = self.connections.iter();
        all.filter_map(|(number, own)| Some((own.waits_since?, own.neighbours, *number)))
    }

    fn evict(&mut self, number: Option<u64>) -> bool {
        let evicted = number.and_then(|number| self.connections.remove(&number));
        let evicted = evicted.inspect(|connection| connection.evicted.cancel());
        evicted.is_some()
    }
}

impl Place {
    /// Ends once another connection needs the place.
    pub(super) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.evicted.cancelled()
    }

    /// A request has come. Its connection keeps its place until the end of what is returned.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        let mut held = self.connections.held.lock();
        if let Some(connection) = held.connections.get_mut(&self.number) {
            connection.waits_since = None;
        }
        Busy(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.connections.held.lock();
        held.connections.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Place {
            connections,
            number,
            ..
        } = &*self.0;
        let mut held = connections.held.lock();
        held.turn += 1;
        let turn = held.turn;
        if let Some(connection) = held.connections.get_mut(number) {
            connection.waits_since = Some(turn);
        }
    }
}

/// Whom an address is counted with: in IPv6, whoever has one has a /64.
fn neighbours(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(all: usize, of_address: usize) -> Arc<Connections> {
        Arc::new(Connections::new(ServingBounds {
            all,
            of_address,
            ..ServingBounds::default()
        }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn of_one_address_the_connection_that_has_waited_longest_goes() {
        let connections = connections(100, 3);
        let enter = || connections.enter(ip("192.0.2.1")).map(Arc::new);
        let places = [(); 3].map(|()| enter().unwrap());
        let other = connections.enter(ip("192.0.2.2")).unwrap();
        // The first has been answered since: the second has waited longest by now.
        drop(places[0].busy());
        let _fourth = enter().unwrap();
        let gone: Vec<bool> = places.iter().map(|it| it.evicted.is_cancelled()).collect();
        assert_eq!(gone, [false, true, false]);
        assert!(!other.evicted.is_cancelled());
    }

    #[test]
    fn a_connection_that_is_being_answered_keeps_its_place() {
        let connections = connections(100, 2);
        let enter = || connections.enter(ip("192.0.2.1")).map(Arc::new);
        let places = [(); 2].map(|()| enter().unwrap());
        let answers = [places[0].busy(), places[1].busy()];
        assert!(enter().is_none());
        drop(answers);
        assert!(enter().is_some());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_loopback_apart() {
        let connections = connections(100, 2);
        let enter = |text: &str| connections.enter(ip(text)).unwrap();
        let first = enter("2001:db8::1");
        let _others = [enter("2001:db8::2:0:0:1"), enter("2001:db8:0:1::1")];
        assert!(!first.evicted.is_cancelled());
        let _third = enter("2001:db8::3");
        assert!(first.evicted.is_cancelled());
        let local: Vec<Place> = ["127.0.0.1", "::1", "::ffff:127.0.0.1"]
            .iter()
            .flat_map(|text| [enter(text), enter(text), enter(text)])
            .collect();
        assert!(local.iter().all(|own| !own.evicted.is_cancelled()));
    }

    #[test]
    fn in_all_who_has_most_gives_way_and_who_ends_makes_room() {
        let connections = connections(5, 3);
        let enter = |text: &str| connections.enter(ip(text)).unwrap();
        let quiet = enter("192.0.2.9");
        let greedy: Vec<Place> = (0..3).map(|_| enter("192.0.2.1")).collect();
        let other = enter("192.0.2.2");
        let _new = enter("192.0.2.3");
        assert!(greedy[0].evicted.is_cancelled());
        assert!(!quiet.evicted.is_cancelled() && !other.evicted.is_cancelled());
        drop(other);
        let _another = enter("192.0.2.4");
        assert!(!greedy[1].evicted.is_cancelled());
        assert_eq!(connections.held.lock().connections.len(), 5);
    }
}
