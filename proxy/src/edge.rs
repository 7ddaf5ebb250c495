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
        batch::Batch,
        router::{DialRequests, Router},
    },
    stream::partner_ping::Probes,
    stream::{
        Command, key_verification::KeyVerificationLimiter, pool::StreamPool, receiver::Carried,
        registry::StreamRegistry,
    },
    telemetry::{
        attempts::Attempts,
        config_status::{ConfigStatus, Telemetry},
        log_limiter::LogLimiter,
        metrics::Metrics,
        peer_keys::PeerKey,
    },
    xml::rewrite,
};

/// StreamRegistry at a time that carry errors back inside as domains of no partner (behaviour section 4).
const ANSWER_STREAMS: usize = 100;
/// When every stream has the new rules, and what is forbidden by them is looked for once more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The running proxy.
pub struct Edge {
    /// When this process began to serve: what it remembers is younger.
    pub started: Timestamp,
    config: Arc<ArcSwap<ActiveConfig>>,
    pub resolver: Resolver,
    pub dialer: Dialer,
    pub contacts: Arc<Contacts>,
    pub router: Arc<Router>,
    pub streams: StreamRegistry,
    pub verifications: Arc<KeyVerificationLimiter>,
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
    ) -> (Arc<Self>, DialRequests) {
        let config = Arc::new(ArcSwap::from_pointee(config));
        let (router, dials) = Router::new(Arc::clone(&config), Arc::clone(&observed.metrics));
        let edge = Arc::new(Self {
            started: Timestamp::now(),
            config,
            resolver,
            dialer,
            contacts,
            router,
            streams: StreamRegistry::default(),
            verifications: Arc::default(),
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
        });
        (edge, dials)
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
            if old.document.partners != config.document.partners {
                // Whoever edits a partner has often mended its records just now.
                self.resolver.forget_all();
            }
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
        self.router.config_changed();
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
        self.router.withdraw_forbidden();
    }

    fn send_own(self: &Arc<Self>, stanzas: Vec<OwnStanza>) {
        for (side, pair, bytes) in stanzas {
            let route = self.router.route(side, &pair);
            let batch = Batch::reply(bytes, None, Instant::now());
            self.router.enqueue_own(&route, batch);
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

    /// A pair that a peer on `side` may send: where its stanzas go.
    #[must_use]
    pub fn carry(&self, side: Side, config: &ActiveConfig, pair: Pair, method: Method) -> Carried {
        let (peer, direction) = match side {
            Side::Partner => (&pair.from, Direction::Inbound),
            Side::Gateway => (&pair.to, Direction::Outbound),
        };
        let partner = config.partner(peer).map(|partner| partner.name.as_str());
        let route = self.router.route(side.opposite(), &pair);
        Carried {
            share: route.share(),
            route,
            back: self.router.route(side, &pair.reversed()),
            counters: self.metrics.pair(partner, direction),
            method,
            pair,
        }
    }
}
