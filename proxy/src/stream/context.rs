//! What the streams of a running proxy share: the configuration in force, the router, the registry of
//! streams, and what is remembered of peers.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

use crate::{
    config::{ActiveConfig, peer_keys::PeerKey},
    contacts::Contacts,
    dns::{Dialer, Resolver},
    negotiation::{Pair, Side},
    net::unauthenticated::UnauthenticatedLimiter,
    presence::{
        own::OwnPresence,
        tracker::{Attendance, PresenceTracker},
    },
    routing::{batch::Batch, dial_ticket::DialRequests, router::Router},
    stream::{
        given_up::GivenUp, partner_ping::Probes, peer_memory::PeerMemory, pool::StreamPool,
        registry::StreamRegistry, sip::links::SipLinks, trunk::registry::TrunkRegistry,
        verification_limiter::KeyVerificationLimiter,
    },
    telemetry::{
        attempts::Attempts,
        config_status::{ConfigStatus, Telemetry},
        log_limiter::{LogLimiter, limited},
        metrics::Metrics,
    },
    trunk::PairIdle,
};

/// Streams at a time that carry errors back inside as domains of no partner (behaviour section 4).
const ANSWER_STREAMS: usize = 100;

/// One for the whole process.
#[derive(Debug)]
pub struct StreamContext {
    /// When this process began to serve: what it remembers is younger.
    pub started: Timestamp,
    config: Arc<ArcSwap<ActiveConfig>>,
    pub resolver: Resolver,
    pub dialer: Dialer,
    pub contacts: Arc<Contacts>,
    pub router: Arc<Router>,
    pub streams: StreamRegistry,
    pub trunks: TrunkRegistry,
    pub pair_idle: PairIdle,
    pub sip: SipLinks,
    pub key_verifications: Arc<KeyVerificationLimiter>,
    pub pool: StreamPool,
    pub peers: PeerMemory,
    pub given_up: GivenUp,
    pub presence: Arc<PresenceTracker>,
    pub unauthenticated: Arc<UnauthenticatedLimiter>,
    pub metrics: Arc<Metrics>,
    pub attempts: Attempts,
    pub probes: Probes,
    pub log: Arc<LogLimiter>,
    pub config_status: Arc<ConfigStatus>,
    /// Streams that only carry errors back inside, as domains of no partner.
    pub answer_streams: Arc<Semaphore>,
    /// Who remembers partners' keys, if anybody does.
    pub peer_keys: Option<mpsc::Sender<PeerKey>>,
    /// No new streams from here on.
    pub stopping: CancellationToken,
    pub tasks: TaskTracker,
}

impl StreamContext {
    #[must_use]
    pub fn new(
        config: ActiveConfig,
        resolver: Resolver,
        dialer: Dialer,
        contacts: Arc<Contacts>,
        peer_keys: Option<mpsc::Sender<PeerKey>>,
        stopping: CancellationToken,
        telemetry: &Telemetry,
    ) -> (Arc<Self>, DialRequests) {
        let trunks = TrunkRegistry::default();
        trunks.are_to_lead_to(&config.domains_by_trunk());
        let config = Arc::new(ArcSwap::from_pointee(config));
        contacts.follow_holders(config.load_full());
        let (router, dials) = Router::new(
            Arc::clone(&config),
            Arc::clone(&telemetry.metrics),
            Arc::clone(&telemetry.log),
        );
        let context = Arc::new(Self {
            started: Timestamp::now(),
            config,
            resolver,
            dialer,
            contacts,
            router,
            streams: StreamRegistry::default(),
            trunks,
            pair_idle: PairIdle::default(),
            sip: SipLinks::default(),
            key_verifications: Arc::default(),
            pool: StreamPool::default(),
            peers: PeerMemory::default(),
            given_up: GivenUp::default(),
            presence: Arc::default(),
            unauthenticated: Arc::default(),
            metrics: Arc::clone(&telemetry.metrics),
            attempts: Attempts::new(Arc::clone(&telemetry.metrics), Arc::clone(&telemetry.log)),
            probes: Probes::default(),
            log: Arc::clone(&telemetry.log),
            config_status: Arc::clone(&telemetry.config_status),
            answer_streams: Arc::new(Semaphore::new(ANSWER_STREAMS)),
            peer_keys,
            stopping,
            tasks: TaskTracker::new(),
        });
        (context, dials)
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<ActiveConfig> {
        self.config.load_full()
    }

    /// Whether `known` is the configuration in force.
    #[must_use]
    pub fn is_in_force(&self, known: &Arc<ActiveConfig>) -> bool {
        Arc::ptr_eq(&self.config.load(), known)
    }

    /// Another configuration comes into force; who must hear of it is the caller's to tell.
    pub fn store_config(&self, config: ActiveConfig) {
        let by_trunk = config.domains_by_trunk();
        self.config.store(Arc::new(config));
        self.trunks.are_to_lead_to(&by_trunk);
    }

    /// Contacts count on the accounts of the partner objects that have their domains now. Blocks.
    pub fn follow_partners_with_contacts(&self) {
        self.contacts.follow_holders(self.config());
    }

    /// Presence that crossed and is now forbidden is taken back, and asked for again where it was taken
    /// back and is now allowed, one domain after the other: everybody who was seen is looked at. Blocks.
    pub fn follow_policy_with_presence(self: &Arc<Self>) {
        for domain in self.presence.domains() {
            let config = self.config();
            self.send_own(self.presence.take_forbidden(&domain, &config));
            self.send_own(self.presence.take_allowed(&domain, &config));
        }
    }

    fn send_own(self: &Arc<Self>, stanzas: Vec<OwnPresence>) {
        let now = Instant::now();
        for own in stanzas {
            let Pair { from, to } = &own.pair;
            let names = self.peers.names(own.side, to, from, now);
            let route = self.router.route(own.side, &own.pair);
            let batch = Batch::reply(own.write(names), None, now);
            self.router.enqueue_own(&route, batch);
        }
    }

    /// Partners' domains that have had no stream for too long: those inside who saw somebody there see
    /// him leave.
    pub fn withdraw_gone(self: &Arc<Self>) {
        while let Some(gone) = self.presence.next_gone(Instant::now()) {
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
        let (attendance, probes) = self.presence.attend(domain, &self.config());
        if !probes.is_empty() {
            // Nobody asks twice: a pause from before must not have them refused.
            let leads_there = |side, pair: &Pair| side == Side::Partner && pair.to == *domain;
            self.router.signed(leads_there);
        }
        self.send_own(probes);
        attendance
    }
}

#[cfg(test)]
impl StreamContext {
    /// With contacts in memory, and a resolver and servers that nobody reaches.
    pub fn alone(config: ActiveConfig) -> (Arc<Self>, DialRequests) {
        let resolver = Resolver::at(([127, 0, 0, 1], 9).into()).expect("an address");
        let dialer = Dialer::new(resolver.clone(), Arc::new(|_, _| true));
        Self::new(
            config,
            resolver,
            dialer,
            Arc::new(Contacts::in_memory()),
            None,
            CancellationToken::new(),
            &Telemetry::default(),
        )
    }
}
