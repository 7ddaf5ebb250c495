//! Runs the proxy in this process on what a station provides, until it is told to stop.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_proxy::{
    app::{self, ServeError},
    config::ConfigUpdate,
    config::peer_keys::PeerKey,
    dns::TrustAnchors,
    stream::trunk::outdated::OutdatedSidecar,
};

use super::{
    dns::{DnsState, DnsStateError, PublishedPool, Publishing},
    error::StandaloneReconcileError,
    station::{Pass, StandalonePaths, StandaloneReconciler},
    status,
};
use crate::{
    dns::{DnsMetrics, OwnerId, answered::AnsweredRecords, observe::Observer},
    runtime::metrics::PREFIX,
};

/// How often the files are compared; an edit is in force after two of these.
const POLL: Duration = Duration::from_millis(300);
/// How often certificates are looked at for their age.
const RENEW: Duration = Duration::from_secs(60);

/// Partners' keys that may wait for the next look; more are told again.
const KEYS: usize = 256;

/// What `standalone` was told.
#[derive(Clone, Debug)]
pub struct StandaloneOptions {
    pub manifests: PathBuf,
    pub state: PathBuf,
    pub pool: Option<String>,
    pub bind: Vec<IpAddr>,
    pub internal_bind: Vec<IpAddr>,
    pub resolver: Option<SocketAddr>,
    /// Whose the DNS records are; `None`: one made for the state directory.
    pub dns_owner: Option<OwnerId>,
    /// From where DNSSEC is validated.
    pub trust_anchors: TrustAnchors,
}

/// Why standalone could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    #[error(transparent)]
    StandaloneReconciler(#[from] StandaloneReconcileError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Dns(#[from] DnsStateError),
    #[error("the proxy came to its end without being told to; this is a fault of the proxy")]
    ProxyEnded,
    #[error("the proxy stopped for an internal fault: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Runs until `stop`, then lets the proxy drain. Says on one line of stdout when it is ready.
///
/// # Errors
/// [`StandaloneError`] when it cannot start; later faults are logged, and what is in force stays.
pub async fn run(
    options: StandaloneOptions,
    stop: CancellationToken,
) -> Result<(), StandaloneError> {
    let mut station = StandaloneReconciler::open(StandalonePaths {
        manifests: options.manifests,
        state: options.state.clone(),
        pool: options.pool,
        inside: options.internal_bind.clone(),
    })?;
    let first = station.first(Timestamp::now())?;
    status::log(&first.notes);
    let (namespace, pool) = (
        first.inputs.config.namespace.clone(),
        first.inputs.config.pool.clone(),
    );
    let (tell, inputs) = watch::channel(ConfigUpdate::from(first.inputs));
    let answers = answers(options.resolver);
    let (show, shown) = watch::channel(status::control(&first.report, &answers));
    let (ready, mut is_ready) = oneshot::channel();
    let (tell_key, mut keys) = mpsc::channel(KEYS);
    let (tell_outdated, mut outdated) = watch::channel(Vec::new());
    let measured = DnsMetrics::default();
    let mut registry = Registry::with_prefix(PREFIX);
    measured.register(&mut registry);
    let serve_options = app::RunOptions {
        bind: options.bind,
        internal_bind: options.internal_bind,
        resolver: options.resolver,
        trust_anchors: options.trust_anchors,
        state_dir: options.state,
        pod: None,
        peer_keys: Some(tell_key),
        further_metrics: Some(Arc::new(registry)),
        control: Some(shown),
        outdated_sidecars: Some(tell_outdated),
    };
    let state = DnsState::open(&serve_options.state_dir, options.dns_owner)?;
    let mut records = {
        let of = PublishedPool {
            namespace: namespace.clone(),
            name: pool.clone(),
        };
        Publishing::new(state, of, measured)
    };
    records.ask(first.dns);
    let drain = CancellationToken::new();
    let mut proxy = tokio::spawn(app::run(serve_options, inputs, drain.clone(), ready));
    let mut tick = interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    let mut announced = false;
    let mut last_error = String::new();
    loop {
        tokio::select! {
            ended = &mut proxy => {
                ended??;
                return Err(StandaloneError::ProxyEnded);
            }
            () = stop.cancelled() => break,
            told = &mut is_ready, if !announced => {
                announced = true;
                if told.is_ok() {
                    announce(&namespace, &pool);
                    // Nobody is led to an edge that is not ready.
                    records.begin();
                }
            }
            _ = tick.tick() => {
                let due = renewed.elapsed() >= RENEW;
                if due {
                    renewed = Instant::now();
                }
                // Reading and compiling may take longer than the runtime's other tasks can wait.
                let looks = tokio::task::block_in_place(|| {
                    [
                        remember(&mut station, &mut keys),
                        note(&mut station, &mut records),
                        note_outdated(&mut station, &mut outdated),
                        look(&mut station, due),
                    ]
                });
                let mut failed = None;
                for look in looks {
                    match look {
                        Ok(Some(look)) => {
                            records.ask(look.dns.clone());
                            show.send_replace(status::control(&look.report, &answers));
                            tell_proxy(look, &tell);
                        }
                        Ok(None) => {}
                        Err(error) => failed = Some(error.to_string()),
                    }
                }
                match failed {
                    None => last_error.clear(),
                    // The same fault three times a second helps nobody.
                    Some(error) if error == last_error => {}
                    Some(error) => {
                        last_error = error;
                        tracing::error!("{last_error}; what was in force stays");
                    }
                }
            }
        }
    }
    tracing::info!("stopping");
    drain.cancel();
    let stopped = proxy.await?;
    records.stop().await;
    Ok(stopped?)
}

/// What DNS answers, for the page: asked of the resolver that partners are looked up with.
fn answers(resolver: Option<SocketAddr>) -> Arc<AnsweredRecords> {
    let answers = Arc::new(AnsweredRecords::default());
    let observer = resolver.map_or_else(Observer::system, Observer::at);
    match observer {
        Ok(observer) => {
            let answers = Arc::clone(&answers);
            tokio::spawn(async move { answers.follow(&observer).await });
        }
        Err(error) => tracing::warn!(%error, "the status page does not say what DNS answers"),
    }
    answers
}

/// Takes the keys that the proxy told since the last look.
fn remember(
    station: &mut StandaloneReconciler,
    keys: &mut mpsc::Receiver<PeerKey>,
) -> Result<Option<Pass>, StandaloneReconcileError> {
    let mut seen = Vec::new();
    while let Ok(key) = keys.try_recv() {
        seen.push(key);
    }
    station.record(&seen, Timestamp::now())
}

/// Takes what came of the DNS records since the last look.
fn note(
    station: &mut StandaloneReconciler,
    records: &mut Publishing,
) -> Result<Option<Pass>, StandaloneReconcileError> {
    let Some(condition) = records.look() else {
        return Ok(None);
    };
    station.note_dns(condition, Timestamp::now()).map(Some)
}

/// Takes which sidecars the proxy refuses, where these are others than at the last look.
fn note_outdated(
    station: &mut StandaloneReconciler,
    outdated: &mut watch::Receiver<Vec<OutdatedSidecar>>,
) -> Result<Option<Pass>, StandaloneReconcileError> {
    // The proxy has ended, which is told elsewhere.
    if !outdated.has_changed().unwrap_or(false) {
        return Ok(None);
    }
    let refused = outdated.borrow_and_update().clone();
    station.note_outdated(refused, Timestamp::now()).map(Some)
}

fn look(
    station: &mut StandaloneReconciler,
    renew: bool,
) -> Result<Option<Pass>, StandaloneReconcileError> {
    let now = Timestamp::now();
    match station.poll(now)? {
        None if renew => {
            let look = station.renew(now)?;
            Ok((look.changed || look.news).then_some(look))
        }
        look => Ok(look),
    }
}

fn tell_proxy(look: Pass, tell: &watch::Sender<ConfigUpdate>) {
    status::log(&look.notes);
    if look.changed {
        tracing::info!(
            generation = look.inputs.config.generation,
            "manifests, certificates or known keys changed"
        );
        tell.send_replace(look.inputs.into());
    }
}

/// Results go to stdout; a closed stdout is no reason to stop.
fn announce(namespace: &str, pool: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready: EdgePool {namespace}/{pool}").and_then(|()| out.flush());
}
