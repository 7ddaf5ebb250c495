//! Peers that end their streams over something that nobody needs: it is left out towards them for a while.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use xmpp_edge_crds::domain::DomainName;

use super::peer_memory::{MADE_UP, owner_of};
use crate::{config::ActiveConfig, negotiation::Side, remembered::Remembered};

/// So long it is left out.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// What a stream can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dispensable {
    /// XEP-0288.
    Bidi,
    /// XEP-0198.
    Acks,
}

/// Peers towards which something was given up.
#[derive(Debug)]
pub struct GivenUp(Mutex<Remembered<(Dispensable, DomainName), ()>>);

impl Default for GivenUp {
    fn default() -> Self {
        Self(Mutex::new(Remembered::new(REMEMBERED, MADE_UP)))
    }
}

impl GivenUp {
    /// A stream to or from the peer broke over it.
    pub fn remember(
        &self,
        config: &ActiveConfig,
        (side, peer): (Side, &DomainName),
        what: Dispensable,
        now: Instant,
    ) {
        let owner = owner_of(config, side, peer);
        self.0.lock().note(owner, (what, peer.clone()), (), now);
    }

    /// Whether it is neither asked of the peer nor offered to it.
    #[must_use]
    pub fn contains(&self, peer: &DomainName, what: Dispensable, now: Instant) -> bool {
        self.0.lock().get(&(what, peer.clone()), now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture;

    #[test]
    fn s4_a_peer_is_remembered_for_a_day_and_names_under_a_wildcard_push_out_nobody_else() {
        let config = fixture::active_config(|_| ());
        let peer = |name: &str| DomainName::parse(name).expect("valid");
        for (what, other) in [
            (Dispensable::Bidi, Dispensable::Acks),
            (Dispensable::Acks, Dispensable::Bidi),
        ] {
            let (peers, now) = (GivenUp::default(), Instant::now());
            let remember =
                |name: &str| peers.remember(&config, (Side::Partner, &peer(name)), what, now);
            remember("p.other.example");
            assert!(peers.contains(&peer("p.other.example"), what, now));
            assert!(!peers.contains(&peer("p.other.example"), other, now));
            assert!(!peers.contains(&peer("q.other.example"), what, now));
            assert!(!peers.contains(&peer("p.other.example"), what, now + REMEMBERED));
            for number in 0..=MADE_UP {
                remember(&format!("x{number}.partner.example"));
            }
            assert_eq!(peers.0.lock().len(), 1 + MADE_UP);
            assert!(
                !peers.contains(&peer("x0.partner.example"), what, now),
                "the oldest went"
            );
            assert!(peers.contains(&peer("p.other.example"), what, now));
        }
    }
}
