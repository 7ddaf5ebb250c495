//! Peers that end their streams over XEP-0288: it is not asked of them again for a while.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use xmpp_edge_crds::domain::DomainName;

/// So long bidirectional streams are not asked of such a peer.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Most peers remembered, of at most 253 bytes each; the oldest goes.
const MOST: usize = 1_000;

/// Peers towards which bidirectional streams were given up.
#[derive(Debug, Default)]
pub struct PeersWithoutBidi(Mutex<HashMap<DomainName, Instant>>);

impl PeersWithoutBidi {
    /// The peer ended a stream between `<bidi/>` and its authentication.
    pub fn remember(&self, peer: &DomainName, now: Instant) {
        let mut peers = self.0.lock();
        if peers.len() >= MOST && !peers.contains_key(peer) {
            let oldest = peers
                .iter()
                .min_by_key(|(_, since)| **since)
                .map(|(oldest, _)| oldest.clone());
            if let Some(oldest) = oldest {
                peers.remove(&oldest);
            }
        }
        peers.insert(peer.clone(), now);
    }

    /// Whether it is not asked for.
    #[must_use]
    pub fn contains(&self, peer: &DomainName, now: Instant) -> bool {
        self.0
            .lock()
            .get(peer)
            .is_some_and(|since| now.saturating_duration_since(*since) < REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s4_a_peer_is_remembered_for_a_day_and_their_number_is_bounded() {
        let peers = PeersWithoutBidi::default();
        let now = Instant::now();
        let peer = |number: usize| DomainName::parse(&format!("p{number}.example")).expect("valid");
        peers.remember(&peer(0), now);
        assert!(peers.contains(&peer(0), now) && !peers.contains(&peer(1), now));
        assert!(!peers.contains(&peer(0), now + REMEMBERED));
        for number in 1..=MOST {
            peers.remember(&peer(number), now + Duration::from_secs(1));
        }
        assert_eq!(peers.0.lock().len(), MOST);
        assert!(!peers.contains(&peer(0), now), "the oldest went");
    }
}
