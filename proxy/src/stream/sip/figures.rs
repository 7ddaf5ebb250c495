//! What others may see of a link: its connections, and what it has in work.

use std::net::SocketAddr;

use jiff::Timestamp;
use parking_lot::Mutex;
use xmpp_edge_crds::verdict::Direction;

use crate::{
    telemetry::metrics::SubscriptionCounts,
    tls::{Transport, not_after},
};

/// Connections that are listed; the others are counted.
pub const LISTED_CONNECTIONS: usize = 16;

/// Kept by a link, read by whoever asks.
#[derive(Debug, Default)]
pub(super) struct LinkFigures(Mutex<ShownLink>);

/// A link at one moment.
#[derive(Clone, Debug, Default)]
pub struct ShownLink {
    /// Those that the edge opened first, then as they were opened; at most [`LISTED_CONNECTIONS`].
    pub connections: Vec<ShownConnection>,
    /// Those that the edge opened, for requests to the server.
    pub opened: usize,
    /// Those that the server opened.
    pub accepted: usize,
    pub subscriptions: SubscriptionCounts,
    /// Sessions of messages, of dialect `Lync`.
    pub sessions: usize,
    /// When the server last gave a final answer, whichever.
    pub last_answer: Option<Timestamp>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ShownConnection {
    /// `Inbound`: the edge opened it, for what comes from partners; `Outbound`: the server did.
    pub direction: Direction,
    pub address: Option<SocketAddr>,
    /// None without TLS, as of all that the handshake told.
    pub tls_version: Option<&'static str>,
    pub tls_cipher: Option<&'static str>,
    pub peer_certificate_not_after: Option<Timestamp>,
    pub established: Timestamp,
}

impl ShownConnection {
    pub(super) fn new(
        direction: Direction,
        address: Option<SocketAddr>,
        transport: &Transport,
    ) -> Self {
        let facts = transport.facts();
        let shown = transport.peer_chain().first();
        Self {
            direction,
            address,
            tls_version: facts.as_ref().map(|facts| facts.version),
            tls_cipher: facts.as_ref().map(|facts| facts.cipher),
            peer_certificate_not_after: shown.and_then(|leaf| not_after(leaf).ok()),
            established: Timestamp::now(),
        }
    }
}

impl LinkFigures {
    pub(super) fn shown(&self) -> ShownLink {
        self.0.lock().clone()
    }

    /// These are the connections, as they were opened.
    pub(super) fn show_connections<'a>(&self, all: impl Iterator<Item = &'a ShownConnection>) {
        let (mut listed, accepted): (Vec<_>, Vec<_>) =
            all.partition(|own| own.direction == Direction::Inbound);
        let mut shown = self.0.lock();
        (shown.opened, shown.accepted) = (listed.len(), accepted.len());
        listed.extend(accepted);
        listed.truncate(LISTED_CONNECTIONS);
        shown.connections = listed.into_iter().cloned().collect();
    }

    pub(super) fn show_subscriptions(&self, now: SubscriptionCounts) {
        self.0.lock().subscriptions = now;
    }

    pub(super) fn answered(&self) {
        self.0.lock().last_answer = Some(Timestamp::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(direction: Direction, second: i64) -> ShownConnection {
        ShownConnection {
            direction,
            address: None,
            tls_version: None,
            tls_cipher: None,
            peer_certificate_not_after: None,
            established: Timestamp::from_second(second).expect("in range"),
        }
    }

    #[test]
    fn of_many_connections_the_edge_s_own_is_listed_and_all_are_counted() {
        let figures = LinkFigures::default();
        let mut all: Vec<_> = (0..40)
            .map(|second| connection(Direction::Outbound, second))
            .collect();
        all.push(connection(Direction::Inbound, 40));
        figures.show_connections(all.iter());
        let shown = figures.shown();
        assert_eq!((shown.opened, shown.accepted), (1, 40));
        let listed: Vec<_> = shown
            .connections
            .iter()
            .map(|own| own.established.as_second())
            .collect();
        assert_eq!(listed.len(), LISTED_CONNECTIONS);
        assert_eq!(listed[..3], [40, 0, 1]);
        figures.show_connections(std::iter::empty());
        assert!(figures.shown().connections.is_empty());
    }
}
