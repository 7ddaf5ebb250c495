//! Where a stanza goes once it has passed: the routes of this replica with their queues, and what
//! becomes of what cannot be delivered.
//!
//! Knows no stream: a stream takes what waits for its pairs ([`Router::dequeue`]) and is woken; one that
//! is needed is asked for by a [`DialTicket`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

use super::{
    acknowledgement::AckToken,
    batch::Batch,
    budget::RouteOwner,
    dial_ticket::{DialQueue, DialRequests, DialTicket},
    failure::{Failure, FailureKind},
    route::{AfterFailure, EnqueueOutcome, Queued, Route},
    routes::Routes,
    unanswered::{self, Unanswered},
    wake::{RouteSlot, Wake, Window},
};
use crate::{
    config::ActiveConfig,
    negotiation::{Pair, Side},
    telemetry::{
        attempts::AttemptPeer,
        log_limiter::{LogLimiter, limited},
        metrics::Metrics,
    },
    xml::{Condition, ErrorType, stanza::Stanza},
};

/// All routes with their queues, and the memory that they may hold.
pub struct Router {
    config: Arc<ArcSwap<ActiveConfig>>,
    routes: Routes,
    dials: DialQueue,
    metrics: Arc<Metrics>,
    log: Arc<LogLimiter>,
    /// The process ends: streams acknowledge what was settled until then, and no more.
    is_stopping: AtomicBool,
}

impl Router {
    #[must_use]
    pub fn new(
        config: Arc<ArcSwap<ActiveConfig>>,
        metrics: Arc<Metrics>,
        log: Arc<LogLimiter>,
    ) -> (Arc<Self>, DialRequests) {
        let (dials, requests) = DialQueue::new();
        let router = Self {
            config,
            routes: Routes::default(),
            dials,
            metrics,
            log,
            is_stopping: AtomicBool::new(false),
        };
        (Arc::new(router), requests)
    }

    /// The process ends: what can neither be delivered nor answered from here on is given back to the
    /// senders that count on acknowledgements. They have it still, for another replica.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// The route of a pair; `side` says who the next hop is.
    pub fn route(&self, side: Side, pair: &Pair) -> Arc<Route> {
        let owner = || self.owner(&self.config.load(), side, pair);
        self.routes.of(side, pair, owner)
    }

    /// A route that is not the pair's own: whoever makes it carries it, and nobody else finds it.
    #[must_use]
    pub fn apart(&self, side: Side, pair: &Pair) -> Route {
        let owner = self.owner(&self.config.load(), side, pair);
        Route::new(pair.clone(), side, owner)
    }

    fn owner(&self, config: &ActiveConfig, side: Side, pair: &Pair) -> RouteOwner {
        let is_made_up = side == Side::Partner
            && matches!(
                config.attempt_peer(side, &pair.to),
                AttemptPeer::Partner { listed: false, .. }
            );
        RouteOwner {
            share: self.routes.budget.share(config.share_holder(side, pair)),
            is_made_up,
        }
    }

    /// A sign that the next hop of all these routes is there: pauses are over, what waits is tried at once.
    pub fn signed(&self, is_there: impl Fn(Side, &Pair) -> bool) {
        for route in self.routes.all() {
            if is_there(route.side, &route.pair) {
                route.signed();
            }
        }
    }

    /// The route of a pair, where there is one.
    #[must_use]
    pub fn known(&self, side: Side, pair: &Pair) -> Option<Arc<Route>> {
        self.routes.known(side, pair)
    }

    /// Every route, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Route>> {
        self.routes.all()
    }

    /// Memory of all queues, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.routes.budget.held()
    }

    /// Puts a batch on its way.
    pub fn enqueue(self: &Arc<Self>, route: &Arc<Route>, batch: Batch) {
        self.put(route, Queued::Stanzas(batch));
    }

    /// Stanzas that nobody sent but the edge itself: where their queue is full they are dropped and
    /// counted.
    pub fn enqueue_own(self: &Arc<Self>, route: &Arc<Route>, batch: Batch) {
        if route.held() > self.queue_bytes() {
            self.drop_counted(route, batch, "Answer");
        } else {
            self.enqueue(route, batch);
        }
    }

    /// The next for the stream that carries `route`, whose turn it is ([`Wake::next`]); errors that are
    /// due are made here. `None` where the window takes nothing of what waits, and where what was due is
    /// never answered: what is left there has its turn again.
    pub fn dequeue(
        self: &Arc<Self>,
        route: &Arc<Route>,
        wake: &Arc<Wake>,
        window: Window,
    ) -> Option<Batch> {
        let unanswered = match route.dequeue(wake, window)? {
            Queued::Stanzas(batch) => return Some(batch),
            Queued::Unanswered(unanswered) => unanswered,
        };
        let condition = unanswered.failure.kind.condition();
        let arrived = unanswered.batch.arrived;
        let portion = unanswered.portion(arrived);
        let config = self.config.load();
        let direction = sent_back_on(route);
        let partner = config.pair_partner(route.side, &route.pair);
        for (count, outcome) in [(portion.answered, condition), (portion.dropped, "dropped")] {
            if count > 0 {
                let count = u64::from(count);
                self.metrics.bounced(partner, direction, outcome, count);
            }
        }
        let mut replies = portion.replies;
        match &mut replies {
            Some(replies) => route.charge_portion(replies, portion.rest),
            None => debug_assert!(portion.rest.is_none(), "a portion is full or the last"),
        }
        replies
    }

    /// A batch, split where single stanzas are larger than the next hop takes (XEP-0478): those are
    /// answered.
    pub fn within_limit(
        self: &Arc<Self>,
        route: &Arc<Route>,
        batch: Batch,
        limit: Option<u64>,
    ) -> Vec<Batch> {
        let Some(limit) = limit.filter(|limit| batch.largest() as u64 > *limit) else {
            return vec![batch];
        };
        let failure = Failure::new(
            FailureKind::TooLarge,
            format!("{} takes stanzas of {limit} bytes at most", route.pair.to),
        );
        let mut within = Vec::new();
        for part in route.split(batch) {
            if part.largest() as u64 > limit {
                self.bounce(route, part, &failure);
            } else {
                within.push(part);
            }
        }
        within
    }

    /// A stream is ready for this route and calls it `slot`, or goes on with the name that it gave it
    /// first. `None` where another one carries it already.
    #[must_use]
    pub fn attach(
        &self,
        route: &Arc<Route>,
        wake: &Arc<Wake>,
        slot: RouteSlot,
    ) -> Option<RouteSlot> {
        route.attach(wake, slot)
    }

    /// The stream that carried `route` is over; a next one is set up where something waits.
    pub fn detach(self: &Arc<Self>, route: &Arc<Route>, wake: &Arc<Wake>, again: Vec<Batch>) {
        let sent = again.iter().filter(|batch| batch.sendings > 0);
        let sent: u64 = sent.map(|batch| u64::from(batch.count())).sum();
        if sent > 0 {
            self.metrics.resent(towards(route.side), sent);
        }
        if let Some(dial) = route.detach(wake, again) {
            self.routes.busy(route);
            self.dials.ask(route, dial);
        }
    }

    /// The peer has opened a stream of its own for this pair: it is there, and what waits for it is
    /// tried at once.
    pub fn sign_of(&self, side: Side, pair: &Pair) {
        let signed = |from: &DomainName| {
            let back = Pair {
                from: from.clone(),
                to: pair.from.clone(),
            };
            if let Some(route) = self.routes.known(side, &back) {
                route.signed();
            }
        };
        match side {
            Side::Partner => self.config.load().document.domains.iter().for_each(signed),
            // Other partners' domains are many; a server inside is tried every two seconds anyway.
            Side::Gateway => signed(&pair.to),
        }
    }

    /// No stream could be set up: `None` where nothing is left to do, else the ticket and the pause
    /// before the next try. `stopping`: nothing is waited for.
    pub fn failed(
        self: &Arc<Self>,
        ticket: DialTicket,
        failure: &Failure,
        stopping: bool,
    ) -> (Option<(DialTicket, Duration)>, Option<Instant>) {
        let route = Arc::clone(ticket.route());
        let patience = (!stopping).then(|| self.queue_timeout());
        let now = Instant::now();
        let jitter = crate::random::unit();
        match route.failed(ticket.number(), failure, now, patience, jitter) {
            AfterFailure::Retry(pause) => {
                self.routes.busy(&route);
                (Some((ticket, pause)), Some(now + pause))
            }
            AfterFailure::Overtaken => {
                ticket.done();
                (None, None)
            }
            AfterFailure::BackOff { failed, until } => {
                ticket.done();
                for queued in failed {
                    self.fail(&route, queued, failure);
                }
                (None, Some(until))
            }
        }
    }

    /// A batch that a queue or a stream held will not be delivered: its senders are told, as far as
    /// they take it.
    pub fn bounce(self: &Arc<Self>, route: &Arc<Route>, batch: Batch, failure: &Failure) {
        self.fail(route, Queued::Stanzas(batch), failure);
    }

    /// The answer to one stanza that was not taken into a queue; `back` is the route to its sender.
    pub fn answer(
        self: &Arc<Self>,
        back: &Arc<Route>,
        stanza: &Stanza<'_>,
        failure: &Failure,
        receipt: Option<AckToken>,
        now: Instant,
    ) {
        let config = self.config.load();
        let direction = sent_back_on(back);
        let partner = config.pair_partner(back.side, &back.pair);
        if !unanswered::is_answered(stanza) {
            self.metrics.bounced(partner, direction, "dropped", 1);
            if let Some(receipt) = receipt {
                receipt.settle();
            }
            return;
        }
        let condition = failure.kind.condition();
        self.metrics.bounced(partner, direction, condition, 1);
        let mut out = Vec::with_capacity(512);
        unanswered::write_error(stanza, failure, &mut out);
        self.enqueue(back, Batch::reply(out, receipt, now));
    }

    /// What waits for a server inside is given back to the senders that count on acknowledgements: others
    /// reach it, or one of its kind. How many batches that were.
    pub fn give_back_inbound(&self) -> usize {
        let inbound = self.routes.all().into_iter();
        let inbound = inbound.filter(|route| route.side == Side::Gateway);
        let owed = inbound.flat_map(|route| route.take_owed());
        owed.map(Batch::give_back).count()
    }

    /// What waits for, or comes from, a partner that is admitted no more is answered.
    pub fn withdraw_forbidden(self: &Arc<Self>) {
        let config = self.config.load_full();
        for route in self.routes.all() {
            if let Some(failure) = forbidden(&config, &route) {
                for queued in route.take_forbidden() {
                    self.fail(&route, queued, &failure);
                }
            }
        }
    }

    /// The configuration changed: routes may belong to other partner objects.
    pub fn config_changed(&self) {
        let config = self.config.load_full();
        for route in self.routes.all() {
            route.set_owner(self.owner(&config, route.side, &route.pair));
        }
    }

    /// How long a stanza may wait.
    #[must_use]
    pub fn queue_timeout(&self) -> Duration {
        let seconds = self.config.load().document.settings.queue_timeout_seconds;
        Duration::from_secs(u64::from(seconds))
    }

    /// Takes out of the queues what has waited too long, once.
    pub fn expire(self: &Arc<Self>) {
        let now = Instant::now();
        let limit = self.queue_timeout();
        let mut still = Vec::new();
        for route in self.routes.take_busy() {
            let expired = route.expired(now, limit);
            if !expired.is_empty() {
                let cause = route.last_failure();
                let cause = cause
                    .as_ref()
                    .map_or("no stream could be set up in time", |failure| &failure.text);
                let failure = Failure::waited(limit, &route.pair.to, cause);
                for queued in expired {
                    self.fail(&route, queued, &failure);
                }
            }
            if route.keep_sweeping() {
                still.push(route);
            }
        }
        self.routes.still_busy(still);
    }

    /// Forgets routes that nobody uses.
    pub fn forget_idle(&self) {
        self.routes.forget_idle();
    }

    fn put(self: &Arc<Self>, route: &Arc<Route>, queued: Queued) {
        let first = match route.enqueue(queued, Instant::now()) {
            EnqueueOutcome::Queued { first } => first,
            EnqueueOutcome::Dial { first, dial } => {
                self.dials.ask(route, dial);
                first
            }
            EnqueueOutcome::Crowded { queued } => {
                let failure = Failure::new(
                    FailureKind::QueueFull,
                    "too many streams are being set up to names under the partner's wildcards",
                );
                self.fail(route, queued, &failure);
                return;
            }
            EnqueueOutcome::Refused {
                queued,
                failure,
                until,
            } => {
                let wait = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                let after = format!("; next try in {wait} s");
                let failure = Failure::quoting(failure.kind, "", &failure.text, &after);
                self.fail(route, queued, &failure);
                return;
            }
        };
        if first {
            self.routes.newly_busy(route);
        }
    }

    /// Has the senders told, or settles and counts what is never answered.
    fn fail(self: &Arc<Self>, route: &Arc<Route>, queued: Queued, failure: &Failure) {
        let mut batch = match queued {
            Queued::Stanzas(batch) if !batch.is_reply => batch,
            Queued::Stanzas(reply) => return self.drop_counted(route, reply, "Answer"),
            Queued::Unanswered(unanswered) => {
                return self.drop_counted(route, unanswered.batch, "Answer");
            }
        };
        if self.is_stopping() && failure.kind.is_of_the_way() && batch.is_owed() {
            batch.give_back();
            return;
        }
        let back = self.route(route.side.opposite(), &route.pair.reversed());
        // A sender is not read while more than `queueBytes` of errors wait for it; what waited in its
        // queue until then, and what was sent and not acknowledged, comes on top.
        if back.held() > 4 * self.queue_bytes() {
            return self.drop_counted(&back, batch, "Answer");
        }
        batch.arrived = Instant::now();
        let failure = failure.clone();
        self.put(&back, Queued::Unanswered(Unanswered { batch, failure }));
    }

    fn drop_counted(&self, route: &Arc<Route>, batch: Batch, what: &'static str) {
        let count = if self.is_stopping() {
            batch.give_back()
        } else {
            let count = batch.count();
            batch.lose();
            count
        };
        if count == 0 {
            return;
        }
        let config = self.config.load();
        let partner = config.pair_partner(route.side, &route.pair);
        let direction = towards(route.side);
        self.metrics
            .bounced(partner, direction, what, u64::from(count));
        limited!(
            warn,
            self.log.lines("undelivered", partner, direction, what),
            pair = %route.pair, "answers could not be delivered"
        );
    }

    fn queue_bytes(&self) -> usize {
        let bytes = self.config.load().document.settings.queue_bytes;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

/// What becomes of what waits in the route, where its partner may not talk any more.
#[must_use]
pub fn forbidden(config: &ActiveConfig, route: &Route) -> Option<Failure> {
    let (partner, failure) = match route.side {
        Side::Partner => {
            let text = "the policy for this domain has changed";
            (&route.pair.to, Failure::new(FailureKind::Forbidden, text))
        }
        // Partners are not told what a policy says.
        Side::Gateway => {
            let unavailable = FailureKind::Answered {
                condition: Condition::ServiceUnavailable,
                error_type: ErrorType::Cancel,
            };
            (&route.pair.from, Failure::new(unavailable, ""))
        }
    };
    let is_forbidden = config.policy.admit(partner.as_str()).is_err();
    is_forbidden.then_some(failure)
}

/// The direction of what goes to a side.
fn towards(side: Side) -> Direction {
    match side {
        Side::Partner => Direction::Outbound,
        Side::Gateway => Direction::Inbound,
    }
}

/// Which way the stanzas went whose answers go back on this route.
fn sent_back_on(back: &Route) -> Direction {
    match back.side {
        Side::Partner => Direction::Inbound,
        Side::Gateway => Direction::Outbound,
    }
}

#[cfg(test)]
mod tests;
