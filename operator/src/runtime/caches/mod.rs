//! Watches: what the API server holds of the watched namespaces, and which of them to look at.
//!
//! One watch a kind and namespace, or one a kind with the whole cluster. The watches run on every
//! replica, so that who takes over the lease starts warm. Nothing here writes.

mod elsewhere;
mod readiness;
mod triggers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use xmpp_edge_crds::kinds::{EdgePool, ExternalAccessPolicy, XmppFederatedPartner};

pub(crate) use self::readiness::status_code;
use self::readiness::{WatchState, is_read, readiness};
pub use self::{
    elsewhere::{SecretElsewhere, SecretPlace, SecretsElsewhere},
    readiness::{Readiness, WatchFault},
    triggers::Triggers,
};
use super::watch_name::WatchName;
use super::{
    backoff::Backoff,
    decoded::Decoded,
    metrics::Metrics,
    store::{IdentityApplier, ObjectStore, Referable, ReferencedStore, WatchApplier},
    supervisor::TaskSet,
};

/// A watch that failed and has not failed again for so long stands: longer than [`Backoff::api_server`] ever
/// waits, 20 s with jitter, and a connection that is not answered takes, 30 s.
const QUIET: Duration = Duration::from_secs(55);

/// What came of a watch last.
#[derive(Clone, Copy, Debug)]
enum WatchStanding {
    Heard,
    Failed,
}

/// Selector of what pools own: the operator's own children alone.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=xmpp-edge-operator";
/// Selector of pods beside whose server a sidecar is, whatever its gateway.
const WITH_SIDECAR: &str = "xmpp-edge.dev/sidecar";
/// Helm keeps releases in Secrets, ten of each; nothing refers to them.
const NO_RELEASES: &str = "type!=helm.sh/release.v1";

/// The same trouble with a namespace is logged this often.
const LOG_INTERVAL: Duration = Duration::from_secs(300);

/// Where the operator looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaces(BTreeSet<String>),
    Cluster,
}

impl Scope {
    /// Each namespace to look at by itself; `None`: all at once.
    pub(crate) fn watches(&self) -> Vec<Option<String>> {
        match self {
            Self::Cluster => vec![None],
            Self::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        }
    }

    /// The one namespace that is watched, where it is only one.
    pub(crate) fn only(&self) -> Option<&str> {
        match self {
            Self::Namespaces(names) if names.len() == 1 => names.first().map(String::as_str),
            Self::Namespaces(_) | Self::Cluster => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("all namespaces"),
            Self::Namespaces(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// What the API server holds.
#[derive(Debug)]
pub struct Caches {
    pub pools: ObjectStore<Decoded<EdgePool>>,
    pub partners: ObjectStore<Decoded<XmppFederatedPartner>>,
    pub policies: ObjectStore<Decoded<ExternalAccessPolicy>>,
    pub config_maps: ReferencedStore<ConfigMap>,
    pub secrets: ReferencedStore<Secret>,
    /// Those of sidecars whose servers are in other namespaces than their pools.
    pub elsewhere: Arc<SecretsElsewhere>,
    /// Those of pools alone.
    pub services: ObjectStore<Service>,
    /// Those of pools alone.
    pub deployments: ObjectStore<Deployment>,
    /// Those of pools alone, which lead from a pod to its Deployment.
    pub replica_sets: ObjectStore<ReplicaSet>,
    /// Those of pools alone.
    pub pods: ObjectStore<Pod>,
    /// Those with a sidecar, beside servers.
    pub sidecar_pods: ObjectStore<Pod>,
    /// Those of pools alone.
    pub volumes: ObjectStore<PersistentVolumeClaim>,
    /// Those of pools alone.
    pub network_policies: ObjectStore<NetworkPolicy>,
    /// Those of pools alone.
    pub disruption_budgets: ObjectStore<PodDisruptionBudget>,
    pub triggers: Triggers,
    watches: watch::Sender<Option<BTreeMap<WatchName, WatchState>>>,
    /// When what is wrong with watches was logged, by namespace and sort of fault.
    logged: Mutex<BTreeMap<(Option<String>, &'static str), Instant>>,
}

impl Caches {
    /// Empty; the receiver hears once of each namespace that has something to look at.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (triggers, fresh) = Triggers::new();
        let caches = Self {
            pools: ObjectStore::default(),
            partners: ObjectStore::default(),
            policies: ObjectStore::default(),
            config_maps: ReferencedStore::default(),
            secrets: ReferencedStore::default(),
            elsewhere: Arc::default(),
            services: ObjectStore::default(),
            deployments: ObjectStore::default(),
            // A new one is looked at; what its controller counts in it the Deployment says too.
            replica_sets: ObjectStore::new(|_, _| false),
            pods: ObjectStore::default(),
            // A new one is looked at; what it says of itself it is asked for.
            sidecar_pods: ObjectStore::new(|_, _| false),
            volumes: ObjectStore::default(),
            network_policies: ObjectStore::default(),
            disruption_budgets: ObjectStore::default(),
            triggers,
            watches: watch::Sender::new(None),
            logged: Mutex::default(),
        };
        (Arc::new(caches), fresh)
    }

    /// Starts the watches; they go on for as long as the set.
    pub fn start(
        self: &Arc<Self>,
        client: &Client,
        scope: &Scope,
        metrics: &Arc<Metrics>,
        tasks: &mut TaskSet,
    ) {
        let names = Mutex::new(BTreeMap::new());
        for namespace in scope.watches() {
            let plain = watcher::Config::default;
            let start = Start {
                caches: self,
                client,
                namespace: &namespace,
                metrics,
                names: &names,
            };
            start.watch(tasks, plain(), |caches| &caches.pools);
            start.watch(tasks, plain(), |caches| &caches.partners);
            start.watch(tasks, plain(), |caches| &caches.policies);
            start.watch_identities(tasks, plain(), |caches| &caches.config_maps);
            let secrets = plain().fields(NO_RELEASES);
            start.watch_identities(tasks, secrets, |caches| &caches.secrets);
            let ours = || plain().labels(MANAGED);
            start.watch(tasks, ours(), |caches| &caches.services);
            start.watch(tasks, ours(), |caches| &caches.deployments);
            start.watch(tasks, ours(), |caches| &caches.replica_sets);
            start.watch(tasks, ours(), |caches| &caches.pods);
            let beside_servers = plain().labels(WITH_SIDECAR);
            start.watch(tasks, beside_servers, |caches| &caches.sidecar_pods);
            start.watch(tasks, ours(), |caches| &caches.volumes);
            start.watch(tasks, ours(), |caches| &caches.network_policies);
            start.watch(tasks, ours(), |caches| &caches.disruption_budgets);
        }
        // Nothing counts as read before all are registered.
        self.watches.send_modify(|watches| {
            let mut names = names.into_inner();
            // A first event may have come meanwhile.
            names.extend(watches.take().unwrap_or_default());
            *watches = Some(names);
        });
    }

    /// Whether this replica can act, and what is wrong.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        readiness(self.watches.borrow().as_ref())
    }

    /// Watched namespaces that may not be read, and never were.
    #[must_use]
    pub fn refused(&self) -> BTreeSet<String> {
        let watches = self.watches.borrow();
        watches.as_ref().map(readiness::refused).unwrap_or_default()
    }

    /// Until this replica can act. A namespace that may not be read is not waited for.
    pub async fn ready(&self) {
        let mut watches = self.watches.subscribe();
        // The sender lives as long as the caches.
        let _ = watches
            .wait_for(|watches| readiness(watches.as_ref()).ready)
            .await;
    }

    /// Until every watch of a namespace has brought a whole list: nothing is decided before.
    pub async fn read(&self, namespace: &str) {
        let mut watches = self.watches.subscribe();
        let all = |watches: &Option<_>| watches.as_ref().is_some_and(|it| is_read(it, namespace));
        let _ = watches.wait_for(all).await;
    }

    /// Whether a namespace is watched, and every watch of it has brought a whole list.
    #[must_use]
    pub fn is_read(&self, namespace: &str) -> bool {
        let watches = self.watches.borrow();
        watches.as_ref().is_some_and(|it| is_read(it, namespace))
    }

    /// A pool of this uid is no more, and no watch said so. All are to look: its domains are free.
    pub fn forget_pool(&self, namespace: &str, name: &str, uid: &str) {
        self.pools.deleted(namespace, name, uid);
        self.triggers.enqueue_all();
    }

    /// Whether a namespace has an object of ours.
    fn has_kinds(&self, namespace: &str) -> bool {
        !self.pools.is_empty_in(namespace)
            || !self.partners.is_empty_in(namespace)
            || !self.policies.is_empty_in(namespace)
    }

    fn touch(&self, namespaces: &BTreeSet<String>, pools: bool) {
        for namespace in namespaces {
            // Of the whole cluster's namespaces most have nothing of ours.
            if self.triggers.knows(namespace) || self.has_kinds(namespace) {
                self.triggers.enqueue(namespace);
            }
        }
        // An own domain is claimed by one namespace only: all are to look.
        if pools && !namespaces.is_empty() {
            self.triggers.enqueue_all();
        }
    }
}

struct Start<'a> {
    caches: &'a Arc<Caches>,
    client: &'a Client,
    namespace: &'a Option<String>,
    metrics: &'a Arc<Metrics>,
    names: &'a Mutex<BTreeMap<WatchName, WatchState>>,
}

impl Start<'_> {
    /// Watches whole objects.
    fn watch<V>(
        &self,
        tasks: &mut TaskSet,
        config: watcher::Config,
        table: fn(&Caches) -> &ObjectStore<V>,
    ) where
        V: Watchable,
    {
        let mut feed = WatchApplier::of(self.namespace.clone());
        self.follow(tasks, config, move |caches, event| {
            feed.take(table(caches), event)
        });
    }

    /// Watches metadata alone: nothing else of an object comes.
    fn watch_identities<K>(
        &self,
        tasks: &mut TaskSet,
        config: watcher::Config,
        table: fn(&Caches) -> &ReferencedStore<K>,
    ) where
        K: Watchable + Referable,
    {
        let mut feed = IdentityApplier::of(self.namespace.clone());
        self.follow(tasks, config, move |caches, event| {
            feed.take(table(caches), event)
        });
    }

    /// `take` enters an event, and returns the namespaces to look at.
    fn follow<V>(
        &self,
        tasks: &mut TaskSet,
        config: watcher::Config,
        mut take: impl FnMut(&Caches, Event<V>) -> BTreeSet<String> + Send + 'static,
    ) where
        V: Watchable,
    {
        let api: Api<V> = match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let kind = V::kind(&()).into_owned();
        let pools = kind == EdgePool::kind(&());
        let name = WatchName {
            namespace: self.namespace.clone(),
            kind,
        };
        let (caches, metrics) = (self.caches.clone(), self.metrics.clone());
        self.names
            .lock()
            .insert(name.clone(), WatchState::default());
        tasks.spawn(format!("the watch of {name}"), async move {
            let events = watcher(api, config).backoff(Backoff::api_server());
            let mut events = std::pin::pin!(events);
            let mut standing = WatchStanding::Heard;
            loop {
                let event = match standing {
                    WatchStanding::Heard => events.next().await,
                    WatchStanding::Failed => match timeout(QUIET, events.next()).await {
                        Ok(event) => event,
                        Err(_) => {
                            // A watch that stands says nothing until something changes.
                            standing = WatchStanding::Heard;
                            caches.heard(&name, false);
                            metrics.watch_heard(&name);
                            continue;
                        }
                    },
                };
                let Some(event) = event else { break };
                match event {
                    Ok(event) => {
                        standing = WatchStanding::Heard;
                        let listed = matches!(event, Event::InitDone);
                        let event = event.modify(|object| {
                            object.managed_fields_mut().clear();
                        });
                        let touched = take(&caches, event);
                        caches.heard(&name, listed);
                        metrics.watch_heard(&name);
                        caches.touch(&touched, pools);
                    }
                    Err(error) => {
                        standing = WatchStanding::Failed;
                        metrics.watch_failed(&name, status_code(&error));
                        caches.record_watch_error(&name, &error);
                    }
                }
            }
        });
    }
}

/// What can be watched in a namespace or in all.
trait Watchable:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + DeserializeOwned
    + Clone
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<V> Watchable for V where
    V: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Clone
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

#[cfg(test)]
impl Caches {
    /// As if a watch of a namespace had brought its list.
    pub(crate) fn was_read(&self, namespace: &str) {
        let name = WatchName {
            namespace: Some(namespace.to_owned()),
            kind: "EdgePool".to_owned(),
        };
        self.heard(&name, true);
    }
}

impl Caches {
    /// A watch said something.
    fn heard(&self, name: &WatchName, listed: bool) {
        self.watches.send_if_modified(|watches| {
            let watches = watches.get_or_insert_default();
            let state = watches.entry(name.clone()).or_default();
            let before = state.clone();
            state.listed |= listed;
            state.fault = None;
            *state != before
        });
    }

    /// A watch failed; it is tried again. What was read stays.
    fn record_watch_error(&self, name: &WatchName, error: &watcher::Error) {
        let fault = WatchFault::of(error);
        self.log(name, &fault);
        self.watches.send_if_modified(|watches| {
            let watches = watches.get_or_insert_default();
            let state = watches.entry(name.clone()).or_default();
            if state.fault.as_ref() == Some(&fault) {
                return false;
            }
            state.fault = Some(fault);
            true
        });
    }

    /// Once for a namespace and a sort of fault, and every few minutes while it lasts: the watches of a
    /// namespace fail together, and are tried again for as long as it takes.
    fn log(&self, name: &WatchName, fault: &WatchFault) {
        let key = (name.namespace.clone(), fault.sort());
        let now = Instant::now();
        let mut logged = self.logged.lock();
        let last = logged.get(&key);
        if last.is_some_and(|last| now.duration_since(*last) < LOG_INTERVAL) {
            return;
        }
        logged.insert(key, now);
        drop(logged);
        tracing::warn!("{name} {fault}; it is tried again");
    }
}
