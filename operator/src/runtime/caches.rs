//! Watches: what the API server holds of the watched namespaces, and which of them to look at.
//!
//! One watch a kind and namespace, or one a kind with the whole cluster. The watches run on every
//! replica, so that who takes over the lease starts warm. Nothing here writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::ready,
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
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
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use xmpp_edge_crds::kinds::{EdgePool, ExternalAccessPolicy, XmppFederatedPartner};

use super::{
    backoff::Backoff,
    decoded::Decoded,
    store::{ObjectStore, WatchApplier},
};

/// Selector of what pools own: the operator's own children alone.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=xmpp-edge-operator";
/// Helm keeps releases in Secrets, a megabyte each; nothing refers to them.
const NO_RELEASES: &str = "type!=helm.sh/release.v1";

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

/// Namespaces to look at.
pub struct Triggers {
    known: Mutex<BTreeMap<String, Arc<Notify>>>,
    fresh: mpsc::UnboundedSender<String>,
}

impl Triggers {
    /// The receiver hears once of each namespace.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (fresh, receiver) = mpsc::unbounded_channel();
        let known = Mutex::default();
        (Self { known, fresh }, receiver)
    }

    /// Whether there was anything to look at before.
    fn knows(&self, namespace: &str) -> bool {
        self.known.lock().contains_key(namespace)
    }

    /// Something changed there.
    pub fn enqueue(&self, namespace: &str) {
        let mut known = self.known.lock();
        if let Some(notify) = known.get(namespace) {
            notify.notify_one();
            return;
        }
        let notify = Arc::new(Notify::new());
        notify.notify_one();
        known.insert(namespace.to_owned(), notify);
        // Nobody listens once the process stops.
        let _ = self.fresh.send(namespace.to_owned());
    }

    /// Told at each [`Self::enqueue`].
    #[must_use]
    pub fn of(&self, namespace: &str) -> Arc<Notify> {
        let mut known = self.known.lock();
        known.entry(namespace.to_owned()).or_default().clone()
    }

    fn enqueue_all(&self) {
        for notify in self.known.lock().values() {
            notify.notify_one();
        }
    }
}

/// What the API server holds.
pub struct Caches {
    pub pools: ObjectStore<Decoded<EdgePool>>,
    pub partners: ObjectStore<Decoded<XmppFederatedPartner>>,
    pub policies: ObjectStore<Decoded<ExternalAccessPolicy>>,
    pub config_maps: ObjectStore<ConfigMap>,
    pub secrets: ObjectStore<Secret>,
    /// Those of pools alone.
    pub services: ObjectStore<Service>,
    /// Those of pools alone.
    pub deployments: ObjectStore<Deployment>,
    /// Those of pools alone.
    pub pods: ObjectStore<Pod>,
    /// Those of pools alone.
    pub volumes: ObjectStore<PersistentVolumeClaim>,
    /// Those of pools alone.
    pub network_policies: ObjectStore<NetworkPolicy>,
    /// Those of pools alone.
    pub disruption_budgets: ObjectStore<PodDisruptionBudget>,
    pub triggers: Triggers,
    waiting: watch::Sender<BTreeMap<String, SyncState>>,
}

/// Why a watch has not brought its first list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncState {
    Listing,
    /// Its CustomResourceDefinition is not installed.
    KindMissing,
    Failed(String),
}

impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listing => f.write_str("is being read"),
            Self::KindMissing => f.write_str(
                "is not known to the API server: install the CustomResourceDefinitions (chart value crds.enabled, or `xmpp-edge-operator crds | kubectl apply --server-side -f -`)",
            ),
            Self::Failed(error) => write!(f, "cannot be read: {error}"),
        }
    }
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
            // Annotations of others (elections, tools) say nothing to us.
            config_maps: ObjectStore::new(|old: &ConfigMap, new| {
                old.data != new.data || old.binary_data != new.binary_data
            }),
            secrets: ObjectStore::new(|old: &Secret, new| {
                old.data != new.data || old.type_ != new.type_
            }),
            services: ObjectStore::default(),
            deployments: ObjectStore::default(),
            pods: ObjectStore::default(),
            volumes: ObjectStore::default(),
            network_policies: ObjectStore::default(),
            disruption_budgets: ObjectStore::default(),
            triggers,
            waiting: watch::Sender::new(BTreeMap::new()),
        };
        (Arc::new(caches), fresh)
    }

    /// Starts the watches; they go on until the set is dropped.
    pub fn start(self: &Arc<Self>, client: &Client, scope: &Scope, tasks: &mut JoinSet<()>) {
        // Nothing counts as read before all are registered.
        self.waiting.send_modify(|waiting| {
            waiting.insert(String::new(), SyncState::Listing);
        });
        for namespace in scope.watches() {
            let plain = watcher::Config::default;
            let start = Start {
                caches: self,
                client,
                namespace: &namespace,
            };
            start.watch(tasks, plain(), |caches| &caches.pools);
            start.watch(tasks, plain(), |caches| &caches.partners);
            start.watch(tasks, plain(), |caches| &caches.policies);
            start.watch(tasks, plain(), |caches| &caches.config_maps);
            start.watch(tasks, plain().fields(NO_RELEASES), |caches| &caches.secrets);
            let ours = || plain().labels(MANAGED);
            start.watch(tasks, ours(), |caches| &caches.services);
            start.watch(tasks, ours(), |caches| &caches.deployments);
            start.watch(tasks, ours(), |caches| &caches.pods);
            start.watch(tasks, ours(), |caches| &caches.volumes);
            start.watch(tasks, ours(), |caches| &caches.network_policies);
            start.watch(tasks, ours(), |caches| &caches.disruption_budgets);
        }
        self.waiting.send_modify(|waiting| {
            waiting.remove("");
        });
    }

    /// What is not read yet, and why: nothing is decided before all is.
    #[must_use]
    pub fn waiting(&self) -> BTreeMap<String, SyncState> {
        self.waiting.borrow().clone()
    }

    /// Until every watch has brought its first list.
    pub async fn all_read(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as the caches.
        let _ = waiting.wait_for(BTreeMap::is_empty).await;
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
}

impl Start<'_> {
    fn watch<V>(
        &self,
        tasks: &mut JoinSet<()>,
        config: watcher::Config,
        table: fn(&Caches) -> &ObjectStore<V>,
    ) where
        V: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<V> = match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let kind = V::kind(&()).into_owned();
        let name = match self.namespace {
            Some(namespace) => format!("{kind} in {namespace}"),
            None => kind.clone(),
        };
        let caches = self.caches.clone();
        let mut feed = WatchApplier::of(self.namespace.clone());
        caches.waiting.send_modify(|waiting| {
            waiting.insert(name.clone(), SyncState::Listing);
        });
        let pools = kind == EdgePool::kind(&());
        tasks.spawn(async move {
            let events = watcher(api, config).backoff(Backoff::api_server());
            let done = events.for_each(|event| {
                match event {
                    Ok(event) => {
                        let listed = matches!(event, Event::InitDone);
                        let event = event.modify(|object| {
                            object.managed_fields_mut().clear();
                        });
                        let touched = feed.take(table(&caches), event);
                        if listed {
                            caches
                                .waiting
                                .send_if_modified(|waiting| waiting.remove(&name).is_some());
                        }
                        caches.touch(&touched, pools);
                    }
                    Err(error) => caches.record_watch_error(&name, &error),
                }
                ready(())
            });
            done.await;
        });
    }
}

impl Caches {
    /// A watch failed; it is tried again. What was read stays.
    fn record_watch_error(&self, name: &str, error: &watcher::Error) {
        let why = match status_code(error) {
            Some(404) => SyncState::KindMissing,
            _ => SyncState::Failed(error.to_string()),
        };
        tracing::warn!(%error, "{name} {why}; it is tried again");
        self.waiting
            .send_if_modified(|waiting| match waiting.get_mut(name) {
                Some(known) if *known != why => {
                    *known = why;
                    true
                }
                _ => false,
            });
    }
}

/// The API server's answer, where it gave one.
pub(crate) fn status_code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}
