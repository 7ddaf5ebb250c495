//! What the tasks of a running proxy share, and how a stanza gets from one to another.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xmpp_edge_crds::{domain::DomainName, negotiation::Method, verdict::Direction};

use crate::{
    config::InForce,
    contacts::Contacts,
    dns::Resolver,
    listen::bounds::Bounds,
    observe::{attempts::Attempts, metrics::Metrics},
    route::{
        batch::Batch,
        crossed::Crossed,
        custody::Receipt,
        failure::{Failure, FailureKind},
        outlet::Outlet,
        queue::{Offered, Route},
        routes::Routes,
    },
    serve::Options,
    session::{Command, dial, registry::Streams, relay::Carried, verify::Verifications},
    stream::{Pair, Side},
    xml::{Item, Limits, Scanner, rewrite, stanza::Stanza, stanza::StanzaKind},
};

/// The running proxy.
pub struct Edge {
    force: ArcSwap<InForce>,
    pub options: Options,
    pub resolver: Resolver,
    pub contacts: Arc<Contacts>,
    pub routes: Routes,
    pub streams: Streams,
    pub verifications: Verifications,
    pub crossed: Crossed,
    pub bounds: Arc<Bounds>,
    pub metrics: Metrics,
    pub attempts: Attempts,
    /// No new streams from here on.
    pub stopping: CancellationToken,
    pub tasks: TaskTracker,
    /// Addresses and ports that are our own listeners: never dialled.
    pub own_listeners: Vec<(IpAddr, u16)>,
}

impl Edge {
    #[must_use]
    #[allow(clippy::too_many_arguments)] // Made once, in one place.
    pub fn new(
        force: InForce,
        options: Options,
        resolver: Resolver,
        contacts: Arc<Contacts>,
        stopping: CancellationToken,
        own_listeners: Vec<(IpAddr, u16)>,
    ) -> Arc<Self> {
        let metrics = Metrics::new();
        Arc::new(Self {
            force: ArcSwap::from_pointee(force),
            options,
            resolver,
            contacts,
            routes: Routes::default(),
            streams: Streams::default(),
            verifications: Verifications::default(),
            crossed: Crossed::default(),
            bounds: Arc::default(),
            metrics,
            attempts: Attempts::default(),
            stopping,
            tasks: TaskTracker::new(),
            own_listeners,
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn force(&self) -> Arc<InForce> {
        self.force.load_full()
    }

    /// A new configuration comes into force: streams look again at what they carry.
    pub fn swap(self: &Arc<Self>, force: InForce) {
        self.force.store(Arc::new(force));
        self.streams.tell_all(|| Command::RealmChanged);
        self.withdraw();
    }

    /// What crossed and is now forbidden is taken back; what waits and is now forbidden is answered.
    fn withdraw(self: &Arc<Self>) {
        let force = self.force();
        for (side, pair, bytes) in self.crossed.forbidden(&force) {
            let route = self.routes.of(side, &pair);
            self.forward(&route, Batch::answer(bytes, None, Instant::now()));
        }
        let failure = Failure::new(FailureKind::Forbidden, "the policy for this domain has changed");
        for route in self.routes.all() {
            if route.side == Side::Partner && force.policy.admit(route.pair.to.as_str()).is_err() {
                for batch in route.drain() {
                    self.fail(&route, batch, &failure);
                }
            }
        }
    }

    /// A pair that a peer on `side` may send: where its stanzas go.
    #[must_use]
    pub fn carry(&self, side: Side, force: &InForce, pair: Pair, method: Method) -> Carried {
        let (next, back) = match side {
            Side::Partner => (Side::Gateway, Side::Partner),
            Side::Gateway => (Side::Partner, Side::Gateway),
        };
        let (peer, direction) = match side {
            Side::Partner => (&pair.from, Direction::Inbound),
            Side::Gateway => (&pair.to, Direction::Outbound),
        };
        let partner = force.partner(peer).map(|partner| partner.name.as_str());
        Carried {
            route: self.routes.of(next, &pair),
            back: self.routes.of(back, &pair.reversed()),
            counters: self.metrics.pair(partner, direction),
            method,
            pair,
        }
    }

    /// Puts a batch on its way.
    pub fn forward(self: &Arc<Self>, route: &Arc<Route>, batch: Batch) {
        match route.offer(batch, &self.routes.total, Instant::now()) {
            Offered::Queued => {}
            Offered::Dial => dial::start(self, route),
            Offered::Resting { batch, failure, until } => {
                let wait = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                let text = format!("{}; next try in {wait} s", failure.text);
                self.answer(route, batch, &Failure::new(failure.kind, text));
                return;
            }
        }
        if !route.is_carried() {
            self.routes.busy(route);
        }
    }

    /// The stream that carried `route` is over; a next one is set up where something waits.
    pub fn recarry(self: &Arc<Self>, route: &Arc<Route>, outlet: &Arc<Outlet>, again: Vec<Batch>) {
        if route.unbind(outlet, again) {
            self.routes.busy(route);
            dial::start(self, route);
        }
    }

    /// A batch that a queue or a stream held will not be delivered.
    pub fn fail(self: &Arc<Self>, route: &Arc<Route>, batch: Batch, failure: &Failure) {
        route.release(batch.held(), &self.routes.total);
        self.answer(route, batch, failure);
    }

    /// Tells the sender of each stanza its fate, or settles and counts what is never answered.
    fn answer(self: &Arc<Self>, route: &Arc<Route>, batch: Batch, failure: &Failure) {
        let direction = match route.side {
            Side::Partner => Direction::Outbound,
            Side::Gateway => Direction::Inbound,
        };
        let back_side = match route.side {
            Side::Partner => Side::Gateway,
            Side::Gateway => Side::Partner,
        };
        if batch.answer {
            self.metrics.dropped(&self.force(), route, "Answer", u64::from(batch.count()));
            batch.settle();
            return;
        }
        let back = self.routes.of(back_side, &route.pair.reversed());
        let now = Instant::now();
        // What waits was checked by a scanner; this one only finds the attributes again.
        let mut scanner = Scanner::in_stream(Limits::with_stanza_bytes(usize::MAX));
        for (bytes, receipt) in batch.into_stanzas() {
            match scanner.next(&bytes) {
                Ok(Some(Item::Stanza(stanza))) => {
                    self.answer_stanza(&back, direction, &stanza, failure, receipt, now);
                }
                _ => {
                    debug_assert!(false, "a queued stanza is one stanza");
                    if let Some(receipt) = receipt {
                        receipt.settle();
                    }
                }
            }
        }
    }

    /// One stanza with its fate; `back` is the route to its sender.
    pub fn answer_stanza(
        self: &Arc<Self>,
        back: &Arc<Route>,
        direction: Direction,
        stanza: &Stanza<'_>,
        failure: &Failure,
        receipt: Option<Receipt>,
        now: Instant,
    ) {
        let answered = match (stanza.kind, stanza.type_.as_deref()) {
            (StanzaKind::Message, Some("error" | "headline")) => false,
            (StanzaKind::Message, _)
            | (StanzaKind::Iq, Some("get" | "set"))
            | (
                StanzaKind::Presence,
                Some("subscribe" | "subscribed" | "unsubscribe" | "unsubscribed"),
            ) => true,
            _ => false,
        };
        let force = self.force();
        if !answered {
            self.metrics.bounced(&force, back, direction, "dropped");
            if let Some(receipt) = receipt {
                receipt.settle();
            }
            return;
        }
        self.metrics.bounced(&force, back, direction, failure.kind.condition());
        let mut out = Vec::with_capacity(512);
        rewrite::error_reply(
            stanza,
            &rewrite::Reply {
                error_type: failure.kind.error_type(),
                condition: failure.kind.condition(),
                text: Some(&failure.text),
                reason: None,
            },
            &mut out,
        );
        self.forward(back, Batch::answer(out, receipt, now));
    }

    /// How long a stanza may wait.
    #[must_use]
    pub fn queue_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.force.load().config.settings.queue_timeout_seconds))
    }

    /// Takes out of the queues what has waited too long, once.
    pub fn sweep(self: &Arc<Self>) {
        let now = Instant::now();
        let limit = self.queue_timeout();
        let mut still = Vec::new();
        for route in self.routes.take_busy() {
            let expired = route.expired(now, limit);
            if !expired.is_empty() {
                let cause = self
                    .attempts
                    .last_failure(route.side, self.peer_of(&route))
                    .unwrap_or_else(|| "no stream could be set up in time".to_owned());
                let failure = Failure::new(
                    FailureKind::TimedOut,
                    format!("waited {} s for {}: {cause}", limit.as_secs(), self.peer_of(&route)),
                );
                for batch in expired {
                    self.fail(&route, batch, &failure);
                }
            }
            if route.keep_sweeping() {
                still.push(route);
            }
        }
        self.routes.still_busy(still);
    }

    /// The domain behind the next hop: the partner's, or the own one.
    #[must_use]
    pub fn peer_of<'r>(&self, route: &'r Route) -> &'r DomainName {
        &route.pair.to
    }
}
