//! `xmpp-edge-operator run`: watches first, then the lease, then the controllers; and the end in
//! order.
//!
//! Only who leads acts. Who loses the lease ends the process, so that nothing of it can act on.

use std::{collections::BTreeSet, io::Write, net::SocketAddr, sync::Arc};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config, client::ClientBuilder};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::util::MapResultLayer;

use crate::{
    controllers::{
        namespace::{
            reconciler::NamespaceReconciler,
            snapshot::{Context, OperatorConfig},
        },
        pool::{self, PoolMemory},
    },
    dns::{DnsMetrics, answered::AnsweredRecords, observe::Observer},
    page::{self, NamespacesPage, questions::PageQuestions, rates::PodRates},
    proxy_status::{Poller, Reports},
    runtime::{
        backoff::Backoff,
        caches::{Caches, Scope},
        events::Events,
        leader::lease::{Candidate, Ended},
        metrics::Metrics,
        server,
        server_clock::ServerClock,
        supervisor::{TaskEnd, TaskSet},
    },
    status::{apply::StatusMeans, queue::StatusQueue, unwatched::UnwatchedWatch},
};

/// What `run` was told.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Namespaces to watch; empty: the operator's own.
    pub watch_namespaces: BTreeSet<String>,
    pub cluster_wide: bool,
    pub lease_name: String,
    pub admin_listen: SocketAddr,
    /// Of the status page, a loopback address; none: there is none.
    pub page_listen: Option<SocketAddr>,
    pub settings: OperatorConfig,
}

/// Why the operator could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(
        "there is no access to a cluster: {0}; run it in a pod with a ServiceAccount, or set KUBECONFIG"
    )]
    Access(#[from] kube::config::InferConfigError),
    #[error("the client for the API server cannot be made: {0}")]
    Client(#[from] kube::Error),
    #[error("cannot listen on {address}: {source}; choose another --admin-listen")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the lease was lost: another replica leads now, or it could not be renewed in time")]
    LeaseLost,
    #[error(
        "the API server went back from version {before} to {now}, as after a restore of etcd: what was read before is newer to this process than what is there, so that it begins anew"
    )]
    WentBack { before: u64, now: u64 },
    #[error("{0}; this is a fault of the operator, which cannot go on without")]
    TaskEnded(#[from] TaskEnd),
}

/// A client whose requests are counted, and whose answers tell the API server's time.
fn client(
    config: Config,
    metrics: &Arc<Metrics>,
    clock: &Arc<ServerClock>,
) -> kube::Result<Client> {
    let (metrics, clock) = (metrics.clone(), clock.clone());
    let counted = MapResultLayer::new(move |answer: Result<hyper::Response<_>, _>| {
        metrics.api_answered(answer.as_ref().ok().map(|it| it.status().as_u16()));
        if let Ok(answer) = &answer {
            clock.heard(answer.headers());
        }
        answer
    });
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&counted)
        .build())
}

/// Runs until `stop` or until the lease is lost. Says on one line of stdout when it is ready.
///
/// # Errors
/// [`RunError`]; an API server that does not answer is waited for.
pub async fn run(mut options: RunOptions, stop: CancellationToken) -> Result<(), RunError> {
    let config = Config::infer().await?;
    let namespace = config.default_namespace.clone();
    let metrics = Arc::new(Metrics::default());
    let (server_clock, dns_metrics) = (Arc::default(), DnsMetrics::default());
    metrics.add(|registry| dns_metrics.register(registry));
    let client = client(config, &metrics, &server_clock)?;
    let scope = scope(&options, &namespace);
    let identity = identity();
    tracing::info!(identity, namespace, watches = %scope, "starting");
    consent_to_sidecars(&mut options.settings, &scope);

    let listener = server::bind(options.admin_listen).await;
    let listener = listener.map_err(|source| RunError::Listen {
        address: options.admin_listen,
        source,
    })?;
    let address = listener.local_addr().unwrap_or(options.admin_listen);
    let (caches, fresh) = Caches::new();
    let mut tasks = TaskSet::default();
    let served = server::serve(listener, caches.clone(), metrics.clone(), stop.clone());
    tasks.spawn_fallible("the admin port", served);
    let reports = Arc::new(Reports::default());
    let unwatched = Arc::new(UnwatchedWatch::default());
    if let Some(address) = options.page_listen {
        let page = PageParts {
            caches: caches.clone(),
            client: client.clone(),
            reports: reports.clone(),
            unwatched: unwatched.clone(),
        };
        page.show(address, &stop, &mut tasks).await;
    }
    caches.start(&client, &scope, &metrics, &mut tasks);
    if scope != Scope::Cluster {
        let (client, scope) = (client.clone(), scope.clone());
        tasks.spawn("the look at other namespaces", async move {
            unwatched.follow(&client, &scope).await;
        });
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ended = tasks.ended() => return Err(ended.into()),
        () = caches.ready() => {}
    }
    announce(address);

    let (leads, leading) = watch::channel(false);
    let give_up = CancellationToken::new();
    let candidate = Candidate::new(
        client.clone(),
        &namespace,
        options.lease_name.clone(),
        identity.clone(),
    );
    let act = Act {
        client,
        caches,
        reports,
        metrics,
        dns_metrics,
        server_clock,
        namespace,
        identity,
        settings: options.settings,
    };
    let candidacy = candidate.run(&leads, &give_up);
    tokio::pin!(candidacy);
    // What acts. It is ended, and its end is waited for, before the lease is given up.
    let mut acting = Acting::default();
    let ended = {
        let leading = act.while_leading(leading, fresh, &mut acting);
        tokio::select! {
            biased;
            ended = &mut candidacy => Some(Ok(ended)),
            // Before the tasks, of which some end with it.
            () = stop.cancelled() => None,
            error = leading => Some(Err(error)),
            // A part of the process that ended leaves a leader that sees nothing.
            ended = tasks.ended() => Some(Err(ended.into())),
        }
    };
    if ended.is_none() {
        tracing::info!("stopping");
    }
    acting.shutdown().await;
    match ended {
        Some(Ok(ended)) => ended_as(ended),
        Some(Err(error)) => {
            tracing::error!(%error, "stopping");
            give_up.cancel();
            candidacy.await;
            Err(error)
        }
        None => {
            give_up.cancel();
            ended_as(candidacy.await)
        }
    }
}

fn ended_as(ended: Ended) -> Result<(), RunError> {
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Lost => Err(RunError::LeaseLost),
        Ended::WentBack { before, now } => Err(RunError::WentBack { before, now }),
    }
}

/// What the status page takes.
struct PageParts {
    caches: Arc<Caches>,
    client: Client,
    reports: Arc<Reports>,
    unwatched: Arc<UnwatchedWatch>,
}

impl PageParts {
    /// Serves the status page. Where it cannot, all that acts goes on without.
    async fn show(self, address: SocketAddr, stop: &CancellationToken, tasks: &mut TaskSet) {
        let listener = match server::bind(address).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(
                    %address, %error,
                    "there is no status page, as its port cannot be had: choose another --page-listen"
                );
                return;
            }
        };
        let address = listener.local_addr().unwrap_or(address);
        tracing::info!(%address, "the status page is there: kubectl port-forward leads to it");
        let rates = Arc::new(PodRates::new(self.reports.clone()));
        let answers = Arc::new(AnsweredRecords::default());
        let source = NamespacesPage::new(
            self.caches.clone(),
            rates.clone(),
            self.reports,
            &answers,
            self.unwatched,
        );
        let questions = PageQuestions::new(self.caches, self.client);
        let served = page::server::serve(
            listener,
            Arc::new(source),
            Arc::new(questions),
            stop.clone(),
        );
        tasks.spawn_fallible("the status page", served);
        tasks.spawn("the rates of the status page", async move {
            rates.follow().await
        });
        match Observer::system() {
            Ok(observer) => tasks.spawn("the page's look at DNS", async move {
                answers.follow(&observer).await;
            }),
            Err(error) => tracing::warn!(%error, "the status page does not say what DNS answers"),
        }
    }
}

fn scope(options: &RunOptions, own: &str) -> Scope {
    if options.cluster_wide {
        Scope::Cluster
    } else if options.watch_namespaces.is_empty() {
        Scope::Namespaces([own.to_owned()].into())
    } else {
        Scope::Namespaces(options.watch_namespaces.clone())
    }
}

/// Completes `--sidecar-namespace` by what is watched, and tells of what allows nothing.
fn consent_to_sidecars(settings: &mut OperatorConfig, scope: &Scope) {
    let given = std::mem::take(&mut settings.sidecar_namespaces);
    let allowed = given.where_watched(scope.only());
    for (namespace, gateway) in allowed.useless() {
        tracing::warn!(
            namespace, gateway, watches = %scope,
            "--sidecar-namespace names a gateway without the namespace of its pools, and more than one namespace is watched, so that no Secret is written: write {namespace}=POOLS/{gateway} (chart value sidecars)"
        );
    }
    settings.sidecar_namespaces = allowed;
}

/// Of this process alone: the pod's name, and something that a restart of it does not have.
fn identity() -> String {
    let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    let mut suffix = [0_u8; 8];
    // Without random bytes the time still tells two starts of a pod apart.
    if aws_lc_rs::rand::fill(&mut suffix).is_err() {
        suffix = jiff::Timestamp::now().as_microsecond().to_be_bytes();
    }
    let pod = pod.unwrap_or_else(|_| "xmpp-edge-operator".to_owned());
    format!("{pod}_{:016x}", u64::from_be_bytes(suffix))
}

/// Results go to stdout; a closed stdout is no reason to stop.
fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready: admin port {address}").and_then(|()| out.flush());
}

/// What acts while this process leads.
#[derive(Default)]
struct Acting {
    tasks: TaskSet,
    /// Its controllers have work of their own in the background.
    pools: Arc<PoolMemory>,
}

impl Acting {
    /// Returns once nothing of it runs any more: whoever leads next acts alone.
    async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
        self.pools.shutdown().await;
    }
}

/// What acting takes.
struct Act {
    client: Client,
    caches: Arc<Caches>,
    reports: Arc<Reports>,
    metrics: Arc<Metrics>,
    dns_metrics: DnsMetrics,
    server_clock: Arc<ServerClock>,
    namespace: String,
    identity: String,
    settings: OperatorConfig,
}

impl Act {
    /// Waits for the lease, then acts by what is in `acting` until dropped. It returns only where a part
    /// of it failed in a way that only a new process mends.
    async fn while_leading(
        self,
        mut leading: watch::Receiver<bool>,
        mut fresh: mpsc::UnboundedReceiver<String>,
        acting: &mut Acting,
    ) -> RunError {
        if leading.wait_for(|leads| *leads).await.is_err() {
            return RunError::LeaseLost;
        }
        self.metrics.leader.set(1);
        let context = Arc::new(self.context().await);
        let Acting { tasks, pools } = acting;
        let poller = Poller::new(context.caches.clone(), context.reports.clone());
        // What pods have loaded is known before anything is said of it.
        poller.begin().await;
        tasks.spawn("the reader of pods", async move { poller.run().await });
        let writer = context.clone();
        tasks.spawn("the writer of statuses", async move {
            writer.statuses.queue.run(&writer.caches).await;
        });
        let (unread, memory) = (context.clone(), pools.clone());
        tasks.spawn("the look at what no controller sees", async move {
            pool::forgotten_secrets::withdraw(&unread).await;
            pool::unread::follow(&unread, &memory).await;
        });
        loop {
            tokio::select! {
                Some(namespace) = fresh.recv() => {
                    let name = format!("the controller of namespace {namespace}");
                    let (context, pools) = (context.clone(), pools.clone());
                    tasks.spawn(name, NamespaceReconciler::new(context, pools, namespace).run());
                }
                ended = tasks.ended() => return ended.into(),
            }
        }
    }

    async fn context(self) -> Context {
        let dns_owner_id = match &self.settings.dns_owner_id {
            Some(id) => Some(id.clone()),
            None => namespace_uid(&self.client, &self.namespace).await,
        };
        let metrics = self.metrics;
        let events = Events::new(self.client.clone(), &self.identity, metrics.clone());
        let queue = StatusQueue::new(metrics.statuses_waiting.clone(), metrics.errors.clone());
        Context {
            statuses: StatusMeans {
                client: self.client.clone(),
                caches: self.caches.clone(),
                events: events.clone(),
                queue,
            },
            events,
            client: self.client,
            caches: self.caches,
            metrics,
            dns_metrics: self.dns_metrics,
            server_clock: self.server_clock,
            reports: self.reports,
            settings: self.settings,
            namespace: self.namespace,
            dns_owner_id,
        }
    }
}

/// The UID of the operator's namespace; `None` where it may not be read.
async fn namespace_uid(client: &Client, namespace: &str) -> Option<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut backoff = Backoff::api_server();
    loop {
        match api.get(namespace).await {
            Ok(found) => return found.metadata.uid,
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                tracing::error!(
                    namespace,
                    error = %status.message,
                    "the UID of the operator's namespace, which marks its DNS records, cannot be read: grant `get` on it, or set --dns-owner-id"
                );
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, "the API server does not answer; it is tried again");
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}
