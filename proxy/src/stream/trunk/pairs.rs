//! The pairs that the other end of a trunk opens: which it may, and what becomes of those that it may not.

use std::sync::Arc;

use xmpp_edge_crds::{domain::DomainName, negotiation::Method, verdict::Direction};

use crate::{
    config::ActiveConfig,
    negotiation::{Pair, PeerRole, Side},
    policy::{self, Answer},
    routing::{batch::Batch, route::Route, route_slots::RouteSlots, router::Router, wake::Wake},
    stream::{
        carried::Carried,
        context::StreamContext,
        relay::{Owed, Relay},
    },
    telemetry::{
        log_limiter::limited,
        metrics::{ReasonCounters, direction_label},
    },
    tls::{ExcludedNames, TlsFacts},
    xml::rewrite::{self, StanzaStart},
};

/// Memory of the answers to one pair that may not be: they are nobody's business but the peer's, which
/// could open many.
const REFUSALS_HELD: usize = 16 * 1024;
/// Word of the refusals, in metrics and in the log.
const REASON: &str = "PairNotAllowed";

/// For which domains the other end of a trunk speaks, by what it showed in TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// A sidecar: for these own domains, to anybody who is not own.
    Sidecar { domains: Vec<DomainName> },
    /// An edge pod: for anybody who is not own, but for those that its issuers exclude.
    Edge { excluded: ExcludedNames },
}

impl Speaker {
    /// Who `peer` is at the end of a stream that we opened, or that it opened.
    pub(super) fn of(
        config: &ActiveConfig,
        role: PeerRole,
        peer: &DomainName,
        tls: Option<TlsFacts<'_>>,
    ) -> Self {
        let chain = tls.map_or(&[][..], |tls| tls.peer_chain);
        match role {
            PeerRole::Server => Self::Edge {
                excluded: ExcludedNames::of_issuers(chain),
            },
            PeerRole::Client => Self::Sidecar {
                domains: match config.gateway(peer) {
                    None => Vec::new(),
                    Some(gateway) => {
                        let domains = gateway.config.domains.iter();
                        let proved =
                            domains.filter(|domain| gateway.judge_sidecar(domain, chain).is_ok());
                        proved.cloned().collect()
                    }
                },
            },
        }
    }

    /// Whether it may send stanzas of this pair.
    pub(super) fn may_send(&self, config: &ActiveConfig, pair: &Pair) -> bool {
        match self {
            Self::Sidecar { domains } => {
                domains.contains(&pair.from) && !config.is_namespace_domain(&pair.to)
            }
            Self::Edge { excluded } => {
                config.is_own(&pair.to)
                    && !config.is_namespace_domain(&pair.from)
                    && !excluded.contain(&pair.from)
            }
        }
    }
}

/// What is kept of a pair that the peer opened.
#[derive(Debug)]
pub(super) enum TrunkPair {
    /// Its stanzas are judged, and go on.
    Carried(Box<Carried>),
    /// Its stanzas are answered.
    Refused(Box<RefusedPair>),
}

impl TrunkPair {
    /// `is_allowed`: as [`Speaker::may_send`] says.
    pub(super) fn new(
        context: &StreamContext,
        config: &ActiveConfig,
        side: Side,
        pair: Pair,
        is_allowed: bool,
    ) -> Self {
        if is_allowed {
            let (router, metrics) = (&context.router, &context.metrics);
            let carried = Carried::new(router, metrics, config, side, pair, Method::SaslOverTls);
            return Self::Carried(Box::new(carried));
        }
        let direction = match side {
            Side::Partner => Direction::Inbound,
            Side::Gateway => Direction::Outbound,
        };
        Self::Refused(Box::new(RefusedPair {
            back: Some(Arc::new(context.router.apart(side, &pair.reversed()))),
            reasons: ReasonCounters::new(None, direction),
            direction,
        }))
    }

    pub(super) fn is_carried(&self) -> bool {
        matches!(self, Self::Carried(_))
    }
}

/// A pair that the peer may not open.
#[derive(Debug)]
pub(super) struct RefusedPair {
    /// The way of the answers: this trunk's own, for nobody else may get them. None where the trunk carries
    /// the pair's true way.
    back: Option<Arc<Route>>,
    reasons: ReasonCounters,
    direction: Direction,
}

impl RefusedPair {
    /// The trunk carries the answers from here on.
    pub(super) fn attach(&mut self, turns: &mut RouteSlots, router: &Router, wake: &Arc<Wake>) {
        self.back = self
            .back
            .take()
            .filter(|back| turns.attach(router, wake, Arc::clone(back)));
    }

    /// And not any more.
    pub(super) fn detach(&mut self, turns: &mut RouteSlots) {
        if let Some(back) = self.back.take() {
            turns.forget(&back);
        }
    }

    /// Counts a stanza of the pair, and answers it where its like is answered: `not-allowed`.
    pub(super) fn answer(&mut self, relay: &Relay<'_>, start: &StanzaStart<'_>, owed: Owed<'_>) {
        let context = relay.context;
        let lines = self.reasons.refused(&context.metrics, &context.log, REASON);
        limited!(
            info, lines,
            direction = direction_label(self.direction), kind = ?start.kind, reason = REASON,
            from = %start.from.unwrap_or_default().escape_debug(),
            to = %start.to.unwrap_or_default().escape_debug(),
            "refused: the other end of the trunk may not speak for this domain, or not to that one"
        );
        let told = policy::answer(
            self.direction,
            start.kind,
            start.type_,
            policy::Cause::Malformed,
        );
        let whole = relay.config.document.settings.queue_total_bytes;
        let has_room = |back: &Arc<Route>| {
            back.held() <= REFUSALS_HELD && context.router.held() as u64 <= whole
        };
        let back = self
            .back
            .as_ref()
            .filter(|back| told != Answer::Drop && has_room(back));
        let Some(back) = back else {
            return owed.settle();
        };
        let mut out = Vec::with_capacity(512);
        let reply = rewrite::Reply {
            error_type: "cancel",
            condition: "not-allowed",
            text: Some("this trunk does not carry stanzas between these two domains"),
            reason: None,
        };
        rewrite::error_answer(start, reply, &mut out);
        let reply = Batch::reply(out, owed.receipt(), relay.now);
        context.router.enqueue(back, reply);
    }
}
