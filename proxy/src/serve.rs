//! The running proxy: one call starts everything, and ends when everything has stopped.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::Contacts as ContactsKind;

use crate::{
    config::{InForce, Inputs},
    contacts::ContactStore,
    dns::{
        Dialer, Resolver, TrustAnchors,
        view::{Rules, View},
    },
    edge::Edge,
    listen::{self, ListenerKind},
    observe::{admin, peer_keys::PeerKey, probes::Probes},
    session::Command,
};

/// What is fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Options {
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
}

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
}

/// Between two looks at queues that wait.
const SWEEP: Duration = Duration::from_millis(250);
/// A partner without stream for so long after a failed attempt: its presence is taken back.
const GONE: Duration = Duration::from_secs(60);

/// Runs until `shutdown`, then drains in order. `ready` is told once config, certificate and
/// listeners are in force.
///
/// # Errors
/// [`ServeError`] when it cannot start.
pub async fn run(
    options: Options,
    mut inputs: watch::Receiver<Inputs>,
    shutdown: CancellationToken,
    ready: oneshot::Sender<()>,
) -> Result<(), ServeError> {
    let first = inputs.borrow_and_update().clone();
    let force = InForce::build(&first).map_err(|error| ServeError::Config(error.to_string()))?;
    let listeners = Listeners::open(&options, &force).await?;
    let resolver = match options.resolver {
        Some(address) => Resolver::at(address)?,
        None => Resolver::system()?,
    }
    .with_trust_anchors(options.trust_anchors.clone());
    let dialer = dialer(&options, &force, resolver.clone());
    let contacts = match force.config.contacts {
        ContactsKind::Embedded => ContactStore::embedded(&options.state_dir.join("contacts"))?,
        ContactsKind::Postgres => {
            let url = first.materials.contacts_url.as_ref().ok_or_else(|| {
                ServeError::Config("contacts.postgres: the Secret has no key url".to_owned())
            })?;
            ContactStore::postgres(url)?
        }
    };
    let stopping = CancellationToken::new();
    let edge = Edge::new(
        force,
        resolver,
        dialer,
        Arc::clone(contacts.contacts()),
        options.peer_keys.clone(),
        stopping.clone(),
    );
    let stop_all = CancellationToken::new();
    let view = listeners.serve(&edge, &stopping, &stop_all);

    let follower = tokio::spawn(follow(Arc::clone(&edge), inputs, view, stop_all.clone()));
    let housekeeper = tokio::spawn(keep_house(Arc::clone(&edge), stop_all.clone()));
    let announcer = tokio::spawn(announce(Arc::clone(&edge), ready));

    shutdown.cancelled().await;
    drain(&edge).await;
    stop_all.cancel();
    announcer.abort();
    let _ = follower.await;
    let _ = housekeeper.await;
    contacts.stop().await?;
    Ok(())
}

/// Tells `ready` when nothing is waited for any more.
async fn announce(edge: Arc<Edge>, ready: oneshot::Sender<()>) {
    while !edge.waits_for().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nobody waits for it where the caller does not care.
    let _ = ready.send(());
}

/// Listening sockets, open before anything is promised.
struct Listeners {
    streams: Vec<(ListenerKind, TcpListener)>,
    admin: Vec<TcpListener>,
    dns: Vec<(UdpSocket, TcpListener)>,
}

impl Listeners {
    async fn open(options: &Options, force: &InForce) -> Result<Self, ServeError> {
        let ports = &force.config.listeners;
        let mut streams = Vec::new();
        let mut admin = Vec::new();
        let mut dns = Vec::new();
        let open = |what, address| {
            listen::bind(address).map_err(|source| ServeError::Listen {
                what,
                address,
                source,
            })
        };
        for (kind, port, addresses) in [
            (ListenerKind::S2s, ports.s2s, &options.bind),
            (ListenerKind::DirectTls, ports.direct_tls, &options.bind),
            (
                ListenerKind::Internal,
                ports.internal,
                &options.internal_bind,
            ),
        ] {
            for address in addresses.iter().filter(|_| port != 0) {
                let listener = open(kind.as_str(), SocketAddr::new(*address, port))?;
                streams.push((kind, listener));
            }
        }
        for address in &options.internal_bind {
            if ports.admin != 0 {
                admin.push(open("admin", SocketAddr::new(*address, ports.admin))?);
            }
            if ports.dns != 0 {
                let address = SocketAddr::new(*address, ports.dns);
                let udp = UdpSocket::bind(address)
                    .await
                    .map_err(|source| ServeError::Listen {
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
        edge: &Arc<Edge>,
        stopping: &CancellationToken,
        stop_all: &CancellationToken,
    ) -> Arc<View> {
        for (kind, listener) in self.streams {
            tokio::spawn(listen::run(
                Arc::clone(edge),
                kind,
                listener,
                stopping.clone(),
            ));
        }
        for listener in self.admin {
            tokio::spawn(admin::run(Arc::clone(edge), listener, stop_all.clone()));
        }
        let rules = Rules::new(&edge.force().config);
        let view = View::new(rules, edge.resolver.upstreams().to_vec());
        for (udp, tcp) in self.dns {
            tokio::spawn(Arc::clone(&view).serve(udp, tcp, stop_all.clone()));
        }
        view
    }
}

/// Partners are not dialled at addresses of our own host, unless the edge itself lives there.
fn dialer(options: &Options, force: &InForce, resolver: Resolver) -> Dialer {
    let ports = force.config.listeners;
    let mut own = Vec::new();
    for (addresses, ports) in [
        (&options.bind, [ports.s2s, ports.direct_tls]),
        (&options.internal_bind, [ports.internal, ports.admin]),
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
    let loopback_is_open = options.bind.iter().any(IpAddr::is_loopback);
    Dialer::new(
        resolver,
        Arc::new(move |address| {
            crate::session::dial::is_forbidden(address, &own, loopback_is_open)
        }),
    )
}

/// Takes each new configuration that is good; a bad one keeps the old.
async fn follow(
    edge: Arc<Edge>,
    mut inputs: watch::Receiver<Inputs>,
    view: Arc<View>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            changed = inputs.changed() => if changed.is_err() {
                stop.cancelled().await;
                return;
            },
            () = stop.cancelled() => return,
        }
        let new = inputs.borrow_and_update().clone();
        match InForce::build(&new) {
            Ok(force) => {
                let generation = force.config.generation;
                let old = edge.force();
                if old.config.listeners != force.config.listeners
                    || old.config.contacts != force.config.contacts
                {
                    tracing::warn!(
                        "changed listeners and contacts take effect when the proxy starts next"
                    );
                }

                view.swap(Rules::new(&force.config));
                edge.rejected.set(None);
                edge.swap(force);
                tracing::info!(generation, "configuration in force");
            }
            Err(error) => {
                edge.metrics.config_rejected.inc();
                edge.rejected.set(Some(error.to_string()));
                tracing::error!(%error, generation = new.config.generation, "configuration rejected, the one before stays");
            }
        }
    }
}

/// Queues, probes, partners that are gone: all that time brings.
async fn keep_house(edge: Arc<Edge>, stop: CancellationToken) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut slow = 0_u32;
    loop {
        tokio::select! {
            _ = sweep.tick() => {}
            () = stop.cancelled() => return,
        }
        edge.sweep();
        slow += 1;
        if slow.is_multiple_of(4) {
            Probes::tick(&edge);
            for domain in edge.attempts.take_failing(GONE) {
                edge.partner_gone(&domain);
            }
        }
        if slow.is_multiple_of(240) {
            edge.routes.forget_idle();
        }
    }
}

/// No new streams; what is queued goes out; then the streams end.
async fn drain(edge: &Arc<Edge>) {
    edge.stopping.cancel();
    edge.streams.tell_all(|| Command::Drain);
    let deadline = Instant::now() + edge.queue_timeout() + Duration::from_secs(5);
    while !edge.streams.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    edge.streams
        .tell_all(|| Command::End(crate::stream::Fault::Shutdown));
    edge.tasks.close();
    if tokio::time::timeout(Duration::from_secs(10), edge.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            streams = edge.streams.all().len(),
            "streams were cut at the end"
        );
    }
}
