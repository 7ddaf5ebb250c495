//! What the tasks of a running proxy share, and how a stanza gets from one to another.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xmpp_edge_crds::{domain::DomainName, negotiation::Method, verdict::Direction};

use crate::{
    config::{ActiveConfig, peer_keys::PeerKey},
    contacts::Contacts,
    dns::{Dialer, Resolver},
    negotiation::{Pair, Side},
    net::unauthenticated::UnauthenticatedLimiter,
    presence::tracker::{Attendance, OwnStanza, PresenceTracker},
    routing::{
        batch::Batch,
        router::{DialRequests, Router},
    },
    stream::partner_ping::Probes,
    stream::{
        Command, bidi::PeersWithoutBidi, key_verification::KeyVerificationLimiter,
        peer_memory::PeerMemory, pool::StreamPool, receiver::Carried, registry::StreamRegistry,
    },
    telemetry::{
        attempts::Attempts,
        config_status::{ConfigStatus, Telemetry},
        log_limiter::{LogLimiter, limited},
        metrics::{Metrics, ReasonCounters},
    },
};

/// Streams at a time that carry errors back inside as domains of no partner (behaviour section 4).
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
    pub peers: PeerMemory,
    pub without_bidi: PeersWithoutBidi,
    pub crossed: Arc<PresenceTracker>,
    pub bounds: Arc<UnauthenticatedLimiter>,
    pub metrics: Arc<Metrics>,
    pub attempts: Attempts,
    pub probes: Probes,
    pub log: Arc<LogLimiter>,
    pub intake: Arc<ConfigStatus>,
    /// Streams that only carry errors back inside, as domains of no partner.
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
        let (router, dials) = Router::new(
            Arc::clone(&config),
            Arc::clone(&observed.metrics),
            Arc::clone(&observed.log),
        );
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
            peers: PeerMemory::default(),
            without_bidi: PeersWithoutBidi::default(),
            crossed: Arc::default(),
            bounds: Arc::default(),
            metrics: Arc::clone(&observed.metrics),
            attempts: Attempts::new(Arc::clone(&observed.metrics), Arc::clone(&observed.log)),
            probes: Probes::default(),
            log: Arc::clone(&observed.log),
            intake: Arc::clone(&observed.intake),
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
        self.attempts.reassign(|gateway, domain| {
            let side = if gateway {
                Side::Gateway
            } else {
                Side::Partner
            };
            config.attempt_peer(side, domain)
        });
        self.config.store(Arc::new(config));
        self.router.config_changed();
        for partner in &gone {
            self.metrics.forget_partner(partner);
        }
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
        let edge = Arc::clone(self);
        // Everybody who was seen is looked at: beside the streams, one domain after the other.
        self.tasks.spawn_blocking(move || {
            for domain in edge.crossed.domains() {
                let config = edge.config();
                edge.send_own(edge.crossed.take_forbidden(&domain, &config));
            }
        });
        self.router.withdraw_forbidden();
    }

    fn send_own(self: &Arc<Self>, stanzas: Vec<OwnStanza>) {
        for (side, pair, bytes) in stanzas {
            let route = self.router.route(side, &pair);
            let batch = Batch::reply(bytes, None, Instant::now());
            self.router.enqueue_own(&route, batch);
        }
    }

    /// Partners' domains that have had no stream for too long: those inside who saw somebody there see
    /// him leave.
    pub fn withdraw_gone(self: &Arc<Self>) {
        while let Some(gone) = self.crossed.next_gone(Instant::now()) {
            let config = self.config();
            let partner = config.partner(&gone.domain).map(|own| own.name.as_str());
            limited!(
                info,
                self.log.lines("gone", partner, Direction::Inbound, "Absent"),
                domain = %gone.domain, pairs = gone.pairs,
                "partner without a stream, presence taken back"
            );
            self.send_own(gone.stanzas);
        }
    }

    /// A stream with a partner's domain stands. Where it had been gone its presence is asked for again.
    #[must_use]
    pub fn attend(self: &Arc<Self>, domain: &DomainName) -> Attendance {
        let (attendance, probes) = self.crossed.attend(domain);
        self.send_own(probes);
        attendance
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
            reasons: ReasonCounters::new(partner, direction),
            method,
            pair,
        }
    }
}
