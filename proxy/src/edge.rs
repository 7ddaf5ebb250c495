//! What the tasks of a running proxy share, and how a stanza gets from one to another.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xmpp_edge_crds::{
    domain::DomainName,
    jid::BareJid,
    negotiation::Method,
    verdict::{self, Direction, Explanation, Known},
};

use crate::{
    config::ActiveConfig,
    contacts::Contacts,
    dns::{Dialer, Resolver},
    negotiation::{Pair, Side},
    net::unauthenticated::UnauthenticatedLimiter,
    presence::tracker::{OwnStanza, PresenceTracker, Subscriptions},
    routing::{
        acknowledgement::AckToken,
        batch::Batch,
        failure::{Failure, FailureKind},
        handle::StreamHandle,
        route::{EnqueueOutcome, Route},
        routes::Routes,
    },
    stream::partner_ping::Probes,
    stream::{
        Command, connect, key_verification::KeyVerificationLimiter, pool::StreamPool,
        receiver::Carried, registry::StreamRegistry,
    },
    telemetry::{
        attempts::Attempts,
        config_status::{ConfigStatus, Telemetry},
        log_limiter::LogLimiter,
        metrics::Metrics,
        peer_keys::PeerKey,
    },
    xml::{Item, Limits, Scanner, rewrite, stanza::Stanza, stanza::StanzaKind},
};

/// StreamRegistry at a time that carry errors back inside as domains of no partner (behaviour section 4).
const ANSWER_STREAMS: usize = 100;
/// When every stream has the new rules, and what is forbidden by them is looked for once more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The running proxy.
pub struct Edge {
    /// When this process began to serve: what it remembers is younger.
    pub started: Timestamp,
    config: ArcSwap<ActiveConfig>,
    pub resolver: Resolver,
    pub dialer: Dialer,
    pub contacts: Arc<Contacts>,
    pub routes: Routes,
    pub streams: StreamRegistry,
    pub verifications: KeyVerificationLimiter,
    pub shares: StreamPool,
    pub crossed: PresenceTracker,
    pub bounds: Arc<UnauthenticatedLimiter>,
    pub metrics: Arc<Metrics>,
    pub attempts: Attempts,
    pub probes: Probes,
    pub repeats: LogLimiter,
    pub intake: Arc<ConfigStatus>,
    /// Subscriptions to be probed when a partner is back: user and contact, by partner's domain.
    withdrawn: Mutex<Vec<(DomainName, Subscriptions)>>,
    /// StreamRegistry that only carry errors back inside, as domains of no partner.
    pub answer_streams: Arc<Semaphore>,
    /// Who remembers partners' keys, if anybody does.
    pub peer_keys: Option<mpsc::Sender<PeerKey>>,
    /// No new streams from here on.
    pub stopping: CancellationToken,
    pub tasks: TaskTracker,
}

impl Edge {
    #[must_use]
    pub fn new(
        config: ActiveConfig,
        resolver: Resolver,
        dialer: Dialer,
        contacts: Arc<Contacts>,
        peer_keys: Option<mpsc::Sender<PeerKey>>,
        stopping: CancellationToken,
        observed: &Telemetry,
    ) -> Arc<Self> {
        Arc::new(Self {
            started: Timestamp::now(),
            config: ArcSwap::from_pointee(config),
            resolver,
            dialer,
            contacts,
            routes: Routes::default(),
            streams: StreamRegistry::default(),
            verifications: KeyVerificationLimiter::default(),
            shares: StreamPool::default(),
            crossed: PresenceTracker::default(),
            bounds: Arc::default(),
            metrics: Arc::clone(&observed.metrics),
            attempts: Attempts::default(),
            probes: Probes::default(),
            repeats: LogLimiter::default(),
            intake: Arc::clone(&observed.intake),
            withdrawn: Mutex::default(),
            answer_streams: Arc::new(Semaphore::new(ANSWER_STREAMS)),
            peer_keys,
            stopping,
            tasks: TaskTracker::new(),
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<ActiveConfig> {
        self.config.load_full()
    }

    /// A new configuration comes into force: streams look again at what they carry.
    pub fn swap(self: &Arc<Self>, config: ActiveConfig) {
        let gone: Vec<_> = {
            let old = self.config();
            let stays: BTreeSet<_> = config
                .document
                .partners
                .iter()
                .map(|partner| partner.name.as_str())
                .collect();
            let names = old
                .document
                .partners
                .iter()
                .map(|partner| partner.name.clone());
            names
                .filter(|name| !stays.contains(name.as_str()))
                .collect()
        };
        self.attempts.forget(&config);
        // Those of a partner that is no more are asked for by nobody.
        self.withdrawn
            .lock()
            .retain(|(domain, _)| config.partner(domain).is_some());
        self.config.store(Arc::new(config));
        self.metrics.forget_partners(&gone);
        self.streams.tell_all(|| Command::ConfigChanged);
        self.withdraw();
        // A stream may have been judging by the old rules just now, and have queued or noted what is
        // forbidden after it was looked for.
        let edge = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => edge.withdraw(),
                () = edge.stopping.cancelled() => {}
            }
        });
    }

    /// What crossed and is now forbidden is taken back; what waits and is now forbidden is answered.
    fn withdraw(self: &Arc<Self>) {
        let config = self.config();
        self.send_own(self.crossed.forbidden(&config));
        let failure = Failure::new(
            FailureKind::Forbidden,
            "the policy for this domain has changed",
        );
        for route in self.routes.all() {
            if route.side == Side::Partner && config.policy.admit(route.pair.to.as_str()).is_err() {
                for batch in route.drain() {
                    self.fail(&route, batch, &failure);
                }
            }
        }
    }

    fn send_own(self: &Arc<Self>, stanzas: Vec<OwnStanza>) {
        for (side, pair, bytes) in stanzas {
            let route = self.routes.of(side, &pair);
            self.forward(&route, Batch::answer(bytes, None, Instant::now()));
        }
    }

    /// A partner's domain has had no stream since a failed attempt: those inside who saw somebody
    /// there see him leave.
    pub fn partner_gone(self: &Arc<Self>, domain: &DomainName) {
        let config = self.config();
        let connected = self.streams.all().iter().any(|entry| {
            let facts = entry.facts();
            entry.side == Side::Partner
                && (facts.receives.iter().any(|pair| pair.from == *domain)
                    || facts.sends.iter().any(|pair| pair.to == *domain))
        });
        if connected {
            self.attempts.connected(&config, Side::Partner, domain);
            return;
        }
        let (stanzas, pairs) = self.crossed.gone(domain);
        if !pairs.is_empty() {
            tracing::info!(%domain, contacts = pairs.len(), "partner gone, presence taken back");
            self.withdrawn.lock().push((domain.clone(), pairs));
        }
        self.send_own(stanzas);
    }

    /// It is back: its presence is asked for again.
    pub fn partner_back(self: &Arc<Self>, domain: &DomainName) {
        let mut pairs = BTreeSet::new();
        self.withdrawn.lock().retain_mut(|(own, waiting)| {
            let is = own == domain;
            if is {
                pairs.append(waiting);
            }
            !is
        });
        let probes = pairs.iter().filter_map(|(user, contact)| {
            let from = BareJid::parse(user).ok()?.domain().clone();
            let mut bytes = Vec::new();
            rewrite::presence(user, contact, Some("probe"), &mut bytes);
            Some((
                Side::Partner,
                Pair {
                    from,
                    to: domain.clone(),
                },
                bytes,
            ))
        });
        self.send_own(probes.collect());
    }

    /// What keeps the pod from being ready, named.
    #[must_use]
    pub fn waits_for(&self) -> Vec<String> {
        let config = self.config.load();
        let mut waits = self.intake.waits_for();
        if config.identity.is_none() {
            waits.push("the pool's certificate".to_owned());
        }
        if config.leaves.is_none() {
            waits.push("the internal issuer".to_owned());
        }
        if self.stopping.is_cancelled() {
            waits.push("the end: it drains".to_owned());
        }
        waits
    }

    /// The verdict for a chat message with the rules that led to it, contacts known.
    ///
    /// # Errors
    /// Where an address is none, or neither or both are own.
    pub fn explain(&self, from: &str, to: &str) -> Result<Explanation, String> {
        let config = self.config();
        let jid = |text: &str| {
            BareJid::of_full(text).map_err(|error| format!("{text:?} is no address: {error}"))
        };
        let (from, to) = (jid(from)?, jid(to)?);
        let (user, remote) = if config.is_own(from.domain()) {
            (&from, &to)
        } else {
            (&to, &from)
        };
        let added = self
            .contacts
            .has_added(&user.to_string(), &remote.to_string());
        verdict::explain(
            &config.document,
            &from,
            &to,
            Known {
                contact: Some(added),
            },
        )
        .map_err(|error| error.to_string())
    }

    /// A batch, cut where single stanzas are larger than the next hop takes (XEP-0478): those are
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
        for part in route.cut(batch, &self.routes.total) {
            if part.largest() as u64 > limit {
                self.fail(route, part, &failure);
            } else {
                within.push(part);
            }
        }
        within
    }

    /// A pair that a peer on `side` may send: where its stanzas go.
    #[must_use]
    pub fn carry(&self, side: Side, config: &ActiveConfig, pair: Pair, method: Method) -> Carried {
        let (next, back) = match side {
            Side::Partner => (Side::Gateway, Side::Partner),
            Side::Gateway => (Side::Partner, Side::Gateway),
        };
        let (peer, direction) = match side {
            Side::Partner => (&pair.from, Direction::Inbound),
            Side::Gateway => (&pair.to, Direction::Outbound),
        };
        let partner = config.partner(peer).map(|partner| partner.name.as_str());
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
        let first = match route.offer(batch, &self.routes.total, Instant::now()) {
            EnqueueOutcome::Queued { first } => first,
            EnqueueOutcome::Dial { first, number } => {
                connect::start(self, route, number);
                first
            }
            EnqueueOutcome::Resting {
                batch,
                failure,
                until,
            } => {
                let wait = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                let text = format!("{}; next try in {wait} s", failure.text);
                self.answer(route, batch, &Failure::new(failure.kind, text));
                return;
            }
        };
        if first {
            self.routes.newly_busy(route);
        }
    }

    /// The stream that carried `route` is over; a next one is set up where something waits.
    pub fn recarry(
        self: &Arc<Self>,
        route: &Arc<Route>,
        handle: &Arc<StreamHandle>,
        again: Vec<Batch>,
    ) {
        if let Some(number) = route.unbind(handle, again) {
            self.routes.busy(route);
            connect::start(self, route, number);
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
            self.metrics
                .dropped(&self.config(), route, "Answer", u64::from(batch.count()));
            batch.settle();
            return;
        }
        let back = self.routes.of(back_side, &route.pair.reversed());
        let now = Instant::now();
        // What waits was checked by a scanner; this one only finds the attributes again.
        let mut scanner = scanner_of_our_own();
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
        receipt: Option<AckToken>,
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
        let config = self.config();
        if !answered {
            self.metrics.bounced(&config, back, direction, "dropped");
            if let Some(receipt) = receipt {
                receipt.settle();
            }
            return;
        }
        self.metrics
            .bounced(&config, back, direction, failure.kind.condition());
        let mut out = Vec::with_capacity(512);
        rewrite::error_reply(
            stanza,
            rewrite::Reply {
                error_type: failure.kind.error_type(),
                condition: failure.kind.condition(),
                text: Some(&failure.text),
                reason: None,
                extra: None,
            },
            &mut out,
        );
        self.forward(back, Batch::answer(out, receipt, now));
    }

    /// How long a stanza may wait.
    #[must_use]
    pub fn queue_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(
            self.config.load().document.settings.queue_timeout_seconds,
        ))
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
                    .last_failure(route.side, &route.pair.to)
                    .unwrap_or_else(|| "no stream could be set up in time".to_owned());
                let failure = Failure::new(
                    FailureKind::TimedOut,
                    format!(
                        "waited {} s for {}: {cause}",
                        limit.as_secs(),
                        route.pair.to
                    ),
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
}

/// A scanner within a stream as ours are: what stands in a queue stands in one of those.
fn scanner_of_our_own() -> Scanner {
    const HEADER: &[u8] = b"<stream:stream xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams' version='1.0' xml:lang='en'>";
    let mut scanner = Scanner::new(Limits::with_stanza_bytes(u32::MAX as usize));
    let header = scanner.next(HEADER);
    debug_assert!(
        matches!(header, Ok(Some(Item::Header { .. }))),
        "a header of our own"
    );
    scanner
}
