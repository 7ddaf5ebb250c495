//! A pair that the peer of a stream may send on it: where its stanzas go, and where they are counted.

use std::sync::Arc;

use xmpp_edge_crds::{domain::DomainName, negotiation::Method, verdict::Direction};

use crate::{
    config::ActiveConfig,
    negotiation::{Pair, Side},
    policy::ResolvedPair,
    routing::{budget::PartnerShare, route::Route, router::Router},
    telemetry::metrics::{Metrics, PairCounters, ReasonCounters, StanzaTally},
    xml::stanza::{Stanza, StanzaKind},
};

/// A pair that the peer may send on this stream.
#[derive(Debug)]
pub struct Carried {
    pub pair: Pair,
    pub method: Method,
    pub route: Arc<Route>,
    /// What the pair's partner object holds in all.
    pub share: Arc<PartnerShare>,
    /// Where answers go: the pair reversed.
    pub back: Arc<Route>,
    /// What the rules say of it, whoever writes.
    pub facts: ResolvedPair,
    /// The peer may send error stanzas of it and nothing else: it answers what it got on this stream.
    pub errors_only: bool,
    /// `pair.to` has two forms.
    pub international: bool,
    pub counters: PairCounters,
    pub reasons: ReasonCounters,
}

impl Carried {
    /// `side` says who the peer is.
    #[must_use]
    pub fn new(
        router: &Router,
        metrics: &Metrics,
        config: &ActiveConfig,
        side: Side,
        pair: Pair,
        method: Method,
    ) -> Self {
        let (peer, direction) = peer_of(side, &pair);
        let partner = config.partner(peer).map(|partner| partner.name.as_str());
        let route = router.route(side.opposite(), &pair);
        Self {
            share: route.share(),
            route,
            back: router.route(side, &pair.reversed()),
            facts: facts_of(config, side, &pair),
            counters: metrics.pair(partner, direction),
            reasons: ReasonCounters::new(partner, direction),
            method,
            international: pair.to.is_international(),
            pair,
            errors_only: false,
        }
    }

    /// Another stanza of the pair was taken in.
    pub fn count(&self, stanza: &Stanza<'_>) {
        let mut tally = StanzaTally::default();
        add_to(&mut tally, stanza);
        self.counters.add(tally);
    }

    /// The configuration changed: the partner may have another name, or be another.
    pub fn relabel(&mut self, metrics: &Metrics, config: &ActiveConfig, side: Side) {
        let (peer, direction) = peer_of(side, &self.pair);
        let partner = config.partner(peer).map(|partner| partner.name.as_str());
        self.counters = metrics.pair(partner, direction);
        self.share = self.route.share();
        self.facts = facts_of(config, side, &self.pair);
        self.reasons = ReasonCounters::new(partner, direction);
    }
}

/// Counts one more.
pub(super) fn add_to(tally: &mut StanzaTally, stanza: &Stanza<'_>) {
    match stanza.kind {
        StanzaKind::Message => tally.messages += 1,
        StanzaKind::Presence => tally.presences += 1,
        StanzaKind::Iq => tally.iqs += 1,
    }
    tally.bytes += stanza.text.len() as u64;
}

fn facts_of(config: &ActiveConfig, side: Side, pair: &Pair) -> ResolvedPair {
    let (own, remote) = match side {
        Side::Partner => (&pair.to, &pair.from),
        Side::Gateway => (&pair.from, &pair.to),
    };
    ResolvedPair::new(&config.policy, own.as_str(), remote.as_str())
}

/// The partner's domain of a pair whose sender is such a peer, and which way its stanzas go.
fn peer_of(side: Side, pair: &Pair) -> (&DomainName, Direction) {
    match side {
        Side::Partner => (&pair.from, Direction::Inbound),
        Side::Gateway => (&pair.to, Direction::Outbound),
    }
}
