//! Asks ready pods for `/status`, in parallel and bounded, and says which namespaces have news.
//!
//! Every few seconds for what changed since the last answer, once a minute for everything; who is
//! another process than before is asked for everything at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use zeroize::Zeroizing;

use super::{
    PoolReport, border,
    held::TooMuch,
    model,
    ownership::pool_of,
    pod_tls::{PodTls, PodTlsError, issuer_secret},
};
use crate::runtime::{
    caches::Caches,
    http::{BearerToken, HttpError, HttpQuestion},
};

/// How often pods are asked: what changed is to be in a status within 10 s.
const EVERY: Duration = Duration::from_secs(4);
/// How often they are asked for everything.
const WHOLE: Duration = Duration::from_secs(60);
/// A pod that takes longer does not answer.
const LONGEST: Duration = Duration::from_secs(4);
/// Pods asked at a time.
const AT_ONCE: usize = 16;
/// Largest answer in bytes: 10,000 partners with attempts take a few MiB.
const MAX_ANSWER: usize = 8 << 20;
/// An answer that is larger than this, in bytes, is read on only while few others are: together those
/// under way hold at most `AT_ONCE * SMALL_ANSWER + LARGE_AT_ONCE * MAX_ANSWER`.
const SMALL_ANSWER: usize = 1 << 20;
/// Large answers under way at a time.
const LARGE_AT_ONCE: usize = 2;
/// That a pod does not answer is logged once within this, however often it does and does not.
const LOGGED: Duration = Duration::from_secs(60);
/// Where a pod does not name its admin port.
const ADMIN_PORT: u16 = 9090;
/// What was about to be noted while the last answer was written: this much before it is asked for
/// again.
const OVERLAP: Duration = Duration::from_secs(1);

/// Why a pod did not say its status.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Tls(#[from] PodTlsError),
    #[error("no answer within {} s", LONGEST.as_secs())]
    Late,
    #[error("the answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("it answers with HTTP status {0}")]
    Refused(u16),
    #[error(
        "it refuses the token of Secret {0:?}: the pod has not been given the newest yet, or another"
    )]
    Token(String),
    #[error("the answer is not a status: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

/// What the pods said, by namespace and pool.
#[derive(Debug, Default)]
pub struct Reports {
    pools: Mutex<BTreeMap<(String, String), PoolReport>>,
}

/// Namespace and name of a pod.
pub type PodKey = (String, String);

/// What a pod says to have loaded is believed up to here: no operator counts so far, and what follows
/// must be countable still.
const MAX_GENERATION: u64 = 1 << 53;

impl Reports {
    /// The highest generation that a pod of a pool says to have loaded.
    #[must_use]
    pub fn highest_generation(&self, namespace: &str, pool: &str) -> Option<u64> {
        let pools = self.pools.lock();
        let report = pools.get(&(namespace.to_owned(), pool.to_owned()))?;
        let statuses = report.pods.values().filter_map(|pod| pod.status.as_ref());
        let generations = statuses.map(|status| status.config.generation);
        generations.filter(|it| *it <= MAX_GENERATION).max()
    }

    #[cfg(test)]
    pub(crate) fn set(&self, namespace: &str, pool: &str, report: PoolReport) {
        let key = (namespace.to_owned(), pool.to_owned());
        self.pools.lock().insert(key, report);
    }

    /// Each pod's namespace and name, when its process began, and what it counted since.
    #[must_use]
    pub fn totals(&self) -> Vec<(PodKey, Option<Timestamp>, model::Totals)> {
        let pools = self.pools.lock();
        let pods = pools.iter().flat_map(|((namespace, _), report)| {
            let pods = report.pods.iter();
            pods.map(move |(pod, report)| ((namespace.clone(), pod.clone()), report))
        });
        pods.filter_map(|(key, pod)| {
            let status = pod.status.as_ref()?;
            Some((key, status.started_time, status.totals))
        })
        .collect()
    }

    /// What policy refused, with the namespace of the pod that says so; `None` where no pod was asked, as only
    /// who leads asks.
    #[must_use]
    pub fn refusals(&self) -> Option<Vec<(String, model::Refusal)>> {
        let pools = self.pools.lock();
        let mut pods = pools.iter().flat_map(|((namespace, _), report)| {
            let statuses = report.pods.values().filter_map(|pod| pod.status.as_ref());
            statuses.map(move |status| (namespace, status))
        });
        let first = pods.next()?;
        let all = std::iter::once(first).chain(pods);
        let refusals = all.flat_map(|(namespace, status)| {
            let refusals = status.refusals.iter().cloned();
            refusals.map(move |refusal| (namespace.clone(), refusal))
        });
        Some(refusals.collect())
    }

    /// Of one namespace, by pool.
    #[must_use]
    pub fn of(&self, namespace: &str) -> BTreeMap<String, PoolReport> {
        let pools = self.pools.lock();
        let of_namespace = pools.iter().filter(|((it, _), _)| it == namespace);
        of_namespace
            .map(|((_, pool), report)| (pool.clone(), report.clone()))
            .collect()
    }
}

/// A pod to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    namespace: String,
    pool: String,
    pod: String,
    address: IpAddr,
    port: u16,
    token: Option<BearerToken>,
    /// PEM of the pool's intermediate.
    issuer: Option<String>,
    since: Option<Timestamp>,
    /// When the process that answered last began.
    started: Option<Timestamp>,
}

/// Asks the pods for as long as it runs.
#[derive(Debug)]
pub struct Poller {
    caches: Arc<Caches>,
    reports: Arc<Reports>,
    large: Semaphore,
    /// When it was last logged that a pod does not answer.
    logged: Mutex<BTreeMap<PodKey, Instant>>,
}

impl Poller {
    #[must_use]
    pub fn new(caches: Arc<Caches>, reports: Arc<Reports>) -> Self {
        Self {
            caches,
            reports,
            large: Semaphore::new(LARGE_AT_ONCE),
            logged: Mutex::default(),
        }
    }

    /// Asks every pod for everything, once.
    pub async fn begin(&self) {
        self.round(true).await;
    }

    /// Until dropped; [`Self::begin`] comes before.
    pub async fn run(&self) {
        let mut tick = interval_at(Instant::now() + EVERY, EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut whole = Instant::now();
        loop {
            tick.tick().await;
            let everything = whole.elapsed() >= WHOLE;
            if everything {
                whole = Instant::now();
            }
            for namespace in self.round(everything).await {
                self.caches.triggers.enqueue(&namespace);
            }
        }
    }

    /// One question to every ready pod; the namespaces that have news.
    async fn round(&self, everything: bool) -> BTreeSet<String> {
        let (targets, mut news) = self.targets(everything);
        let mut answers = stream::iter(targets)
            .map(|target| async move {
                let mut target = target;
                let answer = timeout(LONGEST, poll(&mut target, &self.large)).await;
                (target, answer.unwrap_or(Err(PollError::Late)))
            })
            .buffer_unordered(AT_ONCE);
        while let Some((target, answer)) = answers.next().await {
            if self.note(&target, answer) {
                news.insert(target.namespace);
            }
        }
        news
    }

    /// The ready pods; those that are no more are forgotten, which is news.
    fn targets(&self, everything: bool) -> (Vec<Target>, BTreeSet<String>) {
        let mut news = BTreeSet::new();
        let mut reports = self.reports.pools.lock();
        let mut before = std::mem::take(&mut *reports);
        let mut targets = Vec::new();
        for pod in self.caches.pods.all() {
            let Some(mut target) = self.target(&pod) else {
                continue;
            };
            let key = (target.namespace.clone(), target.pool.clone());
            let known = before
                .get_mut(&key)
                .and_then(|pool| pool.pods.remove(&target.pod));
            if known.is_none() {
                news.insert(target.namespace.clone());
            }
            let known = known.unwrap_or_default();
            let last = known.status.as_ref();
            target.started = last.and_then(|status| status.started_time);
            target.since = last
                .filter(|_| !everything)
                .and_then(|status| status.time)
                .map(|time| time.checked_sub(OVERLAP).unwrap_or(time));
            let pool = reports.entry(key).or_default();
            pool.pods.insert(target.pod.clone(), known);
            targets.push(target);
        }
        for ((namespace, _), pool) in before {
            if !pool.pods.is_empty() {
                news.insert(namespace);
            }
        }
        (targets, news)
    }

    fn target(&self, pod: &Pod) -> Option<Target> {
        if !is_ready(pod) {
            return None;
        }
        let namespace = pod.namespace()?;
        let pool = pool_of(&self.caches, pod)?;
        let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        let secrets = &self.caches.secrets;
        let value = |secret: &str, key: &str| {
            let secret = secrets.last_read(&namespace, secret)?;
            Some(secret.data.as_ref()?.get(key)?.0.clone())
        };
        let token = value(&token_secret(&pool), "token").map(Zeroizing::new);
        let token = token.and_then(|token| {
            let token = std::str::from_utf8(&token).ok()?;
            Some(BearerToken::new(token.trim()))
        });
        let issuer = value(&issuer_secret(&pool), "tls.crt");
        let issuer = issuer.and_then(|issuer| String::from_utf8(issuer).ok());
        Some(Target {
            port: admin_port(pod),
            pod: pod.name_any(),
            since: None,
            started: None,
            namespace,
            pool,
            address,
            token,
            issuer,
        })
    }

    /// Takes an answer; says whether it is news.
    fn note(&self, target: &Target, answer: Result<model::ProxyStatus, PollError>) -> bool {
        let mut reports = self.reports.pools.lock();
        let key = (target.namespace.clone(), target.pool.clone());
        let pool = reports.get_mut(&key);
        let Some(known) = pool.and_then(|pool| pool.pods.get_mut(&target.pod)) else {
            return false;
        };
        let taken = answer.and_then(|mut status| {
            status.keep_partners(|partner| self.is_partner(&target.namespace, partner));
            Ok(match &mut known.status {
                Some(whole) if target.since.is_some() => whole.update(status)?,
                known => model::ProxyStatus::replace(known, status)?,
            })
        });
        match taken {
            Ok(news) => known.unreachable.take().is_some() || news,
            Err(error) => {
                // It may quote what the pod said.
                let text = border::line(&error.to_string(), border::TEXT);
                let before = known.unreachable.as_ref();
                let since = before.map_or_else(Timestamp::now, |(since, _)| *since);
                let news = before.is_none_or(|(_, before)| *before != text);
                if before.is_none() && self.may_be_logged(target) {
                    let (namespace, pod) = (&target.namespace, &target.pod);
                    tracing::warn!(
                        namespace,
                        pod,
                        error = text,
                        "the pod does not say its status"
                    );
                }
                known.unreachable = Some((since, text));
                news
            }
        }
    }

    /// Whether that a pod does not answer is to be logged: not where it was a moment ago.
    fn may_be_logged(&self, target: &Target) -> bool {
        let mut logged = self.logged.lock();
        let now = Instant::now();
        logged.retain(|_, at| now.duration_since(*at) < LOGGED);
        let key = (target.namespace.clone(), target.pod.clone());
        let may = !logged.contains_key(&key);
        if may {
            logged.insert(key, now);
        }
        may
    }

    /// Whether there is a partner object of this name.
    fn is_partner(&self, namespace: &str, name: &str) -> bool {
        self.caches.partners.get(namespace, name).is_some()
    }
}

/// Name of the Secret that holds the bearer token of a pool's admin port.
pub(super) fn token_secret(pool: &str) -> String {
    format!("{pool}-admin")
}

/// Whether the kubelet says so, and the pod is not on its way out.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The container port named `admin`.
#[must_use]
pub fn admin_port(pod: &Pod) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some("admin"))
        .and_then(|port| u16::try_from(port.container_port).ok())
        .unwrap_or(ADMIN_PORT)
}

/// What a pod says. Changes since an answer are those of the process that gave it.
async fn poll(target: &mut Target, large: &Semaphore) -> Result<model::ProxyStatus, PollError> {
    let answer = fetch(target, large).await?;
    if target.since.is_some() && answer.started_time != target.started {
        target.since = None;
        return fetch(target, large).await;
    }
    Ok(answer)
}

async fn fetch(target: &Target, large: &Semaphore) -> Result<model::ProxyStatus, PollError> {
    let path = match target.since {
        Some(since) => format!("/status?since={since}"),
        None => "/status".to_owned(),
    };
    let get = HttpQuestion {
        method: &Method::GET,
        host: "edge",
        path: &path,
        token: target.token.as_ref(),
    };
    let socket = TcpStream::connect((target.address, target.port)).await;
    let socket = socket.map_err(HttpError::Connect)?;
    let expected = PodTls {
        namespace: &target.namespace,
        pool: &target.pool,
        issuer: target.issuer.as_deref(),
    };
    // The token goes to nobody else.
    let connection = expected.connect(socket).await?;
    get.send_on(connection, async |answer| {
        if answer.status() == StatusCode::UNAUTHORIZED {
            return Err(PollError::Token(token_secret(&target.pool)));
        }
        if !answer.status().is_success() {
            return Err(PollError::Refused(answer.status().as_u16()));
        }
        let mut body = Limited::new(answer.into_body(), MAX_ANSWER);
        let mut bytes = Vec::new();
        let mut permit = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(PollError::Body)?;
            let data = frame.data_ref().map_or(&[][..], |data| data);
            if permit.is_none() && bytes.len() + data.len() > SMALL_ANSWER {
                // Never closed; one that is waited for longer than an answer may take failed.
                permit = large.acquire().await.ok();
            }
            bytes.extend_from_slice(data);
        }
        Ok(serde_json::from_slice(&bytes)?)
    })
    .await
}
