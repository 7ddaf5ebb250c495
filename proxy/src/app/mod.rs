//! The running proxy: one call starts everything, and ends when everything has stopped.

mod apply_config;
mod stop;
mod supervise;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::StartSettings;
use xmpp_edge_page::model::ControlShown;

use crate::{
    admin::{
        self,
        readiness::Readiness,
        server::{Admin, AdminSubject},
    },
    config::{ActiveConfig, ConfigUpdate, peer_keys::PeerKey},
    contacts::ContactStore,
    dns::{Dialer, Resolver, TrustAnchors},
    dns_view::{Rules, View},
    net::{self, ListenerKind},
    stream::{
        accept, connect,
        context::StreamContext,
        gateway_watch, sip, targets,
        trunk::{self, outdated::OutdatedSidecar},
    },
    telemetry::config_status::Telemetry,
};

/// What is fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Addresses of the listeners s2s and directTls.
    pub bind: Vec<IpAddr>,
    /// Addresses of the listeners internal, admin and dns.
    pub internal_bind: Vec<IpAddr>,
    /// Resolver to ask instead of the system's.
    pub resolver: Option<SocketAddr>,
    /// From where DNSSEC is validated.
    pub trust_anchors: TrustAnchors,
    /// Where the embedded contacts live.
    pub state_dir: PathBuf,
    /// Told each new key of a partner whose `onKeyChange` is not `Ignore`; bounded, and what finds
    /// no room comes again. The proxy itself remembers none.
    pub peer_keys: Option<mpsc::Sender<PeerKey>>,
    /// Shown in `/metrics` with the proxy's own: what whoever started it measures.
    pub further_metrics: Option<Arc<Registry>>,
    /// Shown on the status page: what whoever started it says of the pool.
    pub control: Option<watch::Receiver<ControlShown>>,
    /// Told which sidecars are refused for their version.
    pub outdated_sidecars: Option<watch::Sender<Vec<OutdatedSidecar>>>,
    /// It runs in a pod; none: beside whoever started it.
    pub pod: Option<Pod>,
}

/// How a proxy is in a pod: it starts before its configuration is there, and waits for one that can
/// be used in place of failing; `/status` and `/explain` are closed until there is a token.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Open from the first moment; 0 is off. Where the configuration says another, that is open too
    /// once it is known.
    pub admin_port: u16,
    /// Where it is open in place of [`RunOptions::internal_bind`].
    pub admin_address: Option<IpAddr>,
    pub subject: AdminSubject,
    /// What the pod was made for, where whoever made it said so: a document of other settings is from before,
    /// and its like is waited for a while.
    pub made_for: Option<StartSettings>,
}

use supervise::CriticalTasks;
pub use supervise::TaskFailure;

/// Why a proxy could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address} ({what}): {source}. Is another process there?")]
    Listen {
        what: &'static str,
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the first configuration cannot be used: {0}")]
    Config(String),
    #[error("DNS: {0}")]
    Dns(#[from] crate::dns::DnsError),
    #[error("the store of contacts: {0}")]
    Contacts(#[from] crate::contacts::StoreError),
    #[error("the admin port: {0}")]
    Admin(#[source] std::io::Error),
    /// A task without which it would only look well.
    #[error("{0}")]
    Task(#[from] TaskFailure),
}

/// Between two looks at queues that wait.
const SWEEP: Duration = Duration::from_millis(250);

/// Runs until `shutdown`, or until a task ends that it cannot do without, then drains in order. `ready`
/// is told once config, certificate and listeners are in force.
///
/// # Errors
/// [`ServeError`] when it cannot start, or not go on.
pub async fn run(
    options: RunOptions,
    mut offers: watch::Receiver<ConfigUpdate>,
    shutdown: CancellationToken,
    ready: oneshot::Sender<()>,
) -> Result<(), ServeError> {
    let observed = Telemetry::default();
    let admin = Admin::new(
        observed.clone(),
        options
            .pod
            .as_ref()
            .map_or(AdminSubject::Edge, |pod| pod.subject),
        options.further_metrics.clone(),
        options.control.clone(),
    );
    let stop_all = CancellationToken::new();
    // Whatever way this ends, what it started ends too.
    let _stop = stop_all.clone().drop_guard();
    let mut critical = CriticalTasks::default();
    if let Some(pod) = &options.pod {
        let listeners = open_admin(&options, pod.admin_port)?;
        serve_admin(&mut critical, &admin, listeners, &stop_all)?;
    }
    let first = tokio::select! {
        first = apply_config::first(options.pod.as_ref(), &mut offers, &observed, &shutdown, apply_config::START_WAIT) => first?,
        failure = critical.failure() => return Err(failure.into()),
    };
    let Some((taken, config)) = first else {
        return Ok(());
    };
    let listeners = Listeners::open(&options, &config).await?;
    let resolver = match options.resolver {
        Some(address) => Resolver::at(address)?,
        None => Resolver::system(),
    }
    .with_trust_anchors(options.trust_anchors.clone());
    if options.resolver.is_none() {
        let following = resolver.clone().follow(stop_all.clone());
        critical.spawn("what follows /etc/resolv.conf", following);
    }
    let dialer = dialer(&options, &config, resolver.clone());
    let contacts = Arc::new(match apply_config::database(&taken) {
        None => ContactStore::embedded(&options.state_dir.join("contacts")),
        Some(Ok(database)) => ContactStore::postgres(database),
        Some(Err(fault)) => ContactStore::without_database(fault.to_string()),
    });
    let health = contacts.health();
    // Before anybody can be told of being ready.
    apply_config::note_contacts(&observed, &health.borrow());
    critical.spawn(
        "the contacts' store",
        apply_config::watch_contacts(health, observed.clone(), stop_all.clone()),
    );
    let stopping = CancellationToken::new();
    let (context, dials) = StreamContext::new(
        config,
        resolver,
        dialer,
        Arc::clone(contacts.contacts()),
        options.peer_keys.clone(),
        stopping.clone(),
        &observed,
    );
    let generation = context.config().document.generation;
    observed.metrics.config_generation.set(generation);
    admin.begin(Arc::clone(&context));
    critical.spawn(
        "what sets up streams",
        connect::serve(Arc::clone(&context), dials, stop_all.clone()),
    );
    if context.config().edge_dials.is_some() {
        critical.spawn(
            "what dials edges",
            trunk::dial::serve(Arc::clone(&context), stop_all.clone()),
        );
        critical.spawn(
            "what takes presence back",
            trunk::attendance::watch(Arc::clone(&context), stop_all.clone()),
        );
        critical.spawn(
            "what asks the server whether it is back",
            trunk::server_watch::watch(Arc::clone(&context), stop_all.clone()),
        );
    }
    if let Some(to) = options.outdated_sidecars.clone() {
        critical.spawn(
            "what tells of sidecars that are refused",
            trunk::outdated::tell(Arc::clone(&context), to, stop_all.clone()),
        );
    }
    critical.spawn(
        "what asks servers inside whether they are back",
        gateway_watch::watch(Arc::clone(&context), stop_all.clone()),
    );
    sip::link::follow_config(&context);
    let view = listeners.serve(
        &mut critical,
        &context,
        &observed,
        &admin,
        &stopping,
        &stop_all,
    )?;

    let applier = apply_config::ConfigApplier::new(
        &context,
        observed.clone(),
        Arc::clone(&contacts),
        view,
        taken,
    );
    critical.spawn(
        "the source of the configuration",
        applier.run(offers, stop_all.clone()),
    );
    critical.spawn(
        "the maintenance of queues and partners",
        maintenance_loop(Arc::clone(&context), stop_all.clone()),
    );
    critical.spawn(
        "the announcement",
        announce(Arc::clone(&context), ready, stop_all.clone()),
    );

    let failure = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        failure = critical.failure() => Some(failure),
    };
    if let Some(failure) = &failure {
        tracing::error!("{failure}: the process ends");
        observed.config_status.fail(failure.to_string());
    }
    stop::everything(&context).await;
    context.log.report();
    stop_all.cancel();
    for failure in critical.join().await {
        tracing::error!("at the end: {failure}");
    }
    contacts.stop().await?;
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

/// Tells `ready` when nothing is waited for any more.
async fn announce(
    context: Arc<StreamContext>,
    ready: oneshot::Sender<()>,
    stop: CancellationToken,
) {
    let announced = async {
        while !Readiness::in_force(&context).is_ready() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Nobody waits for it where the caller does not care.
        let _ = ready.send(());
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = announced => {}
        () = stop.cancelled() => {}
    }
}

/// The admin port, on a thread of its own: what it answers costs no stream its turn.
fn serve_admin(
    critical: &mut CriticalTasks,
    admin: &Arc<Admin>,
    listeners: Vec<TcpListener>,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    if listeners.is_empty() {
        return Ok(());
    }
    let serving = admin::thread::spawn(Arc::clone(admin), listeners, stop.clone());
    critical.spawn("the admin port", serving.map_err(ServeError::Admin)?);
    Ok(())
}

/// Listening sockets, open before anything is promised.
struct Listeners {
    streams: Vec<(ListenerKind, TcpListener)>,
    admin: Vec<TcpListener>,
    dns: Vec<(UdpSocket, TcpListener)>,
}

fn open(what: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    net::bind(address).map_err(|source| ServeError::Listen {
        what,
        address,
        source,
    })
}

fn open_admin(options: &RunOptions, port: u16) -> Result<Vec<TcpListener>, ServeError> {
    let own = options.pod.as_ref().and_then(|pod| pod.admin_address);
    let own = own.map(net::any_or);
    own.as_ref()
        .map_or(options.internal_bind.as_slice(), std::slice::from_ref)
        .iter()
        .filter(|_| port != 0)
        .map(|address| open("admin", SocketAddr::new(*address, port)))
        .collect()
}

impl Listeners {
    async fn open(options: &RunOptions, config: &ActiveConfig) -> Result<Self, ServeError> {
        let ports = &config.document.listeners;
        let mut streams = Vec::new();
        let mut admin = Vec::new();
        let mut dns = Vec::new();
        for (kind, port, addresses) in [
            (ListenerKind::S2s, ports.s2s, &options.bind),
            (ListenerKind::DirectTls, ports.direct_tls, &options.bind),
            (
                ListenerKind::Internal,
                ports.internal,
                &options.internal_bind,
            ),
            (ListenerKind::Sip, ports.sip, &options.internal_bind),
            (ListenerKind::SipTcp, ports.sip_tcp, &options.internal_bind),
        ] {
            for address in addresses.iter().filter(|_| port != 0) {
                let listener = open(kind.as_str(), SocketAddr::new(*address, port))?;
                streams.push((kind, listener));
            }
        }
        if options
            .pod
            .as_ref()
            .is_none_or(|pod| pod.admin_port != ports.admin)
        {
            admin = open_admin(options, ports.admin)?;
        }
        for address in &options.internal_bind {
            if ports.dns != 0 {
                let address = SocketAddr::new(*address, ports.dns);
                let udp = net::bind_udp(address).map_err(|source| ServeError::Listen {
                    what: "dns",
                    address,
                    source,
                })?;
                dns.push((udp, open("dns", address)?));
            }
        }
        Ok(Self {
            streams,
            admin,
            dns,
        })
    }

    fn serve(
        self,
        critical: &mut CriticalTasks,
        context: &Arc<StreamContext>,
        telemetry: &Telemetry,
        admin: &Arc<Admin>,
        stopping: &CancellationToken,
        stop_all: &CancellationToken,
    ) -> Result<Arc<View>, ServeError> {
        for (kind, listener) in self.streams {
            let shared = Arc::clone(context);
            let serve = move |stream, from| {
                let context = Arc::clone(&shared);
                match kind {
                    ListenerKind::Sip | ListenerKind::SipTcp => {
                        let serving = sip::accept::serve(context, kind, stream, from);
                        shared.tasks.spawn(serving);
                    }
                    ListenerKind::S2s | ListenerKind::DirectTls | ListenerKind::Internal => {
                        let serving = accept::serve(context, kind, stream, from);
                        shared.tasks.spawn(serving);
                    }
                }
            };
            let (telemetry, stop) = (telemetry.clone(), stopping.clone());
            let accepting = net::accept(kind, listener, telemetry, serve, stop);
            critical.spawn("a listener for streams", accepting);
        }
        serve_admin(critical, admin, self.admin, stop_all)?;
        let rules = Rules::of_edge(&context.config().document);
        let resolver = context.resolver.clone();
        let view = View::new(rules, move || resolver.upstreams());
        for (udp, tcp) in self.dns {
            let serving = Arc::clone(&view).serve(udp, tcp, stop_all.clone());
            critical.spawn("the DNS view", serving);
        }
        Ok(view)
    }
}

/// Partners are not dialled at addresses of our own host, unless the edge itself lives on loopback alone.
fn dialer(options: &RunOptions, config: &ActiveConfig, resolver: Resolver) -> Dialer {
    let ports = config.document.listeners;
    let mut own = Vec::new();
    for (addresses, ports) in [
        (&options.bind, [ports.s2s, ports.direct_tls]),
        (&options.internal_bind, [ports.internal, ports.admin]),
        (&options.internal_bind, [ports.sip, ports.sip_tcp]),
    ] {
        for address in addresses {
            own.extend(
                ports
                    .iter()
                    .filter(|port| **port != 0)
                    .map(|port| SocketAddr::new(*address, *port)),
            );
        }
    }
    let lives_on_loopback =
        !options.bind.is_empty() && options.bind.iter().all(IpAddr::is_loopback);
    Dialer::new(
        resolver,
        Arc::new(move |address, except| {
            targets::is_forbidden(address, &own, lives_on_loopback, except)
        }),
    )
}

/// What time brings: queues that expire, partners that are gone, probes, reports of the log.
async fn maintenance_loop(context: Arc<StreamContext>, stop: CancellationToken) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut withdrawn = stop::Withdrawn::default();
    let mut slow = 0_u32;
    loop {
        tokio::select! {
            _ = sweep.tick() => {}
            () = stop.cancelled() => return,
        }
        context.router.expire();
        slow += 1;
        if slow.is_multiple_of(4) {
            let (metrics, peers) = (&context.metrics, &context.peers);
            context
                .probes
                .tick(&context.config(), metrics, peers, &context.router);
            withdrawn.tick(&context, Instant::now());
            context.withdraw_gone();
        }
        if slow.is_multiple_of(240) {
            context.router.forget_idle();
            context.log.report();
        }
    }
}
