//! The running sidecar: one call starts everything, and ends when everything has stopped.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::HostPort;
use zeroize::Zeroizing;

use super::{
    SidecarConstants, SidecarFiles, SidecarIdentity, SidecarPaths, SidecarView, SidecarViewError,
    SidecarViewOptions, StateDir, StateError,
};
use crate::{
    admin::server::AdminSubject,
    app::{self, ServeError},
    config::trunk_name::TrunkName,
    dns::TrustAnchors,
};

/// Where the server beside the sidecar connects to.
pub const SERVER_PORT: u16 = 23_456;
/// Octets of the dialback secret. Nobody else has to know it: a new one at each start is as good.
const SECRET_OCTETS: usize = 32;

/// What is fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    pub paths: SidecarPaths,
    pub state: PathBuf,
    pub instance: TrunkName,
    /// In place of the document's `server.address`.
    pub server: Option<HostPort>,
    /// Beside the document's `edges`.
    pub edges: Vec<HostPort>,
    /// Of the listener for the server: loopback addresses.
    pub bind: Vec<IpAddr>,
    /// Of the DNS view; none: off.
    pub dns: Option<SocketAddr>,
    /// Asked in place of the system's; in order by the view, the first by the sidecar itself.
    pub resolvers: Vec<SocketAddr>,
    /// Of health and metrics; none: off.
    pub admin: Option<SocketAddr>,
}

/// Why a sidecar could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    #[error(
        "--bind {0} is no loopback address: a sidecar serves the server beside it alone, which is in the same pod or on the same host"
    )]
    NotLoopback(IpAddr),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("{0}")]
    View(#[from] SidecarViewError),
    #[error("{0}")]
    Serve(#[from] ServeError),
    #[error("the system gives no random numbers: start again once it does")]
    NoRandomness,
    #[error("the DNS view ended: its sockets are none any more")]
    ViewEnded,
}

/// Runs until `shutdown`, then drains in order. `ready` is told once configuration and listeners are in force.
///
/// # Errors
/// [`SidecarError`] when it cannot start, or not go on.
pub async fn run(
    options: SidecarOptions,
    shutdown: CancellationToken,
    ready: oneshot::Sender<()>,
) -> Result<(), SidecarError> {
    if let Some(open) = options.bind.iter().find(|address| !address.is_loopback()) {
        return Err(SidecarError::NotLoopback(*open));
    }
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let view = match options.dns {
        None => None,
        Some(listen) => Some(SidecarView::open(SidecarViewOptions {
            listen,
            resolvers: options.resolvers.clone(),
            addresses: options.bind.clone(),
            port: SERVER_PORT,
        })?),
    };
    let state = StateDir::open(&options.state)?;
    let identity = SidecarIdentity::ensure(&state)?;
    tracing::info!(
        "this sidecar's key is sha256:{}; where no certificate is mounted, spec.gateways[].sidecar.keys of the EdgePool has to list it",
        identity.spki_sha256()
    );
    let mut dialback_secret = Zeroizing::new(vec![0; SECRET_OCTETS]);
    aws_lc_rs::rand::fill(&mut dialback_secret).map_err(|_| SidecarError::NoRandomness)?;
    let constants = SidecarConstants {
        instance: options.instance,
        version: env!("CARGO_PKG_VERSION")
            .parse()
            .expect("a crate's version is one"),
        server: options.server,
        edges: options.edges,
        port: SERVER_PORT,
        dialback_secret,
    };
    let rules = view.as_ref().map(SidecarView::rules);
    let files = SidecarFiles::new(options.paths, constants, state, identity, rules);
    let engine = app::RunOptions {
        bind: Vec::new(),
        internal_bind: options.bind,
        resolver: options.resolvers.first().copied(),
        trust_anchors: TrustAnchors::default(),
        state_dir: options.state,
        peer_keys: None,
        further_metrics: view.as_ref().map(|view| Arc::new(view.registry())),
        control: None,
        outdated_sidecars: None,
        pod: Some(app::Pod {
            admin_port: options.admin.map_or(0, |admin| admin.port()),
            admin_address: options.admin.map(|admin| admin.ip()),
            subject: AdminSubject::Sidecar,
            made_for: None,
        }),
    };
    let offers = files.follow(stop.clone());
    let running = app::run(engine, offers, shutdown, ready);
    match view {
        None => running.await?,
        Some(view) => tokio::select! {
            ended = running => ended?,
            () = view.serve(stop) => return Err(SidecarError::ViewEnded),
        },
    }
    Ok(())
}
