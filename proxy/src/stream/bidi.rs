//! Peers that end their streams over XEP-0288: it is not asked of them again for a while.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use xmpp_edge_crds::domain::DomainName;

use super::peer_memory::{MADE_UP, owner_of};
use crate::{config::ActiveConfig, negotiation::Side, remembered::Remembered};

/// So long bidirectional streams are not asked of such a peer.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Peers towards which bidirectional streams were given up.
#[derive(Debug)]
pub struct PeersWithoutBidi(Mutex<Remembered<DomainName, ()>>);

impl Default for PeersWithoutBidi {
    fn default() -> Self {
        Self(Mutex::new(Remembered::new(REMEMBERED, MADE_UP)))
    }
}

impl PeersWithoutBidi {
    /// The peer ended a stream between `<bidi/>` and its authentication.
    pub fn remember(&self, config: &ActiveConfig, side: Side, peer: &DomainName, now: Instant) {
        let owner = owner_of(config, side, peer);
        self.0.lock().note(owner, peer.clone(), (), now);
    }

    /// Whether it is not asked for.
    #[must_use]
    pub fn contains(&self, peer: &DomainName, now: Instant) -> bool {
        self.0.lock().get(peer, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture;

    #[test]
    fn s4_a_peer_is_remembered_for_a_day_and_names_under_a_wildcard_push_out_nobody_else() {
        let (peers, now) = (PeersWithoutBidi::default(), Instant::now());
        let config = fixture::active_config(|_| ());
        let peer = |name: &str| DomainName::parse(name).expect("valid");
        let remember = |name: &str| peers.remember(&config, Side::Partner, &peer(name), now);
        remember("p.other.example");
        assert!(peers.contains(&peer("p.other.example"), now));
        assert!(!peers.contains(&peer("q.other.example"), now));
        assert!(!peers.contains(&peer("p.other.example"), now + REMEMBERED));
        for number in 0..=MADE_UP {
            remember(&format!("x{number}.partner.example"));
        }
        assert_eq!(peers.0.lock().len(), 1 + MADE_UP);
        assert!(
            !peers.contains(&peer("x0.partner.example"), now),
            "the oldest went"
        );
        assert!(peers.contains(&peer("p.other.example"), now));
    }
}
