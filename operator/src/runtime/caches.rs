//! Watches: what the API server holds of the watched namespaces, and which of them to look at.
//!
//! One watch a kind and namespace, or one a kind with the whole cluster. The watches run on every
//! replica, so that who takes over the lease starts warm. Nothing here writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::ready,
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
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use xmpp_edge_crds::kinds::{EdgePool, ExternalAccessPolicy, XmppFederatedPartner};

use super::{
    backoff::Backoff,
    decoded::Decoded,
    metrics::Metrics,
    store::{ObjectStore, WatchApplier},
    supervisor::TaskSet,
};

/// Selector of what pools own: the operator's own children alone.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=xmpp-edge-operator";
/// Helm keeps releases in Secrets, a megabyte each; nothing refers to them.
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
    /// Those of pools alone, which lead from a pod to its Deployment.
    pub replica_sets: ObjectStore<ReplicaSet>,
    /// Those of pools alone.
    pub pods: ObjectStore<Pod>,
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

/// One watch: a kind in a namespace, or in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchName {
    /// `None`: every namespace.
    pub namespace: Option<String>,
    pub kind: String,
}

impl fmt::Display for WatchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} in {namespace}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}

/// How far a watch is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct WatchState {
    /// Whether it has brought a whole list. What was read stays, whatever fails later.
    listed: bool,
    /// What was wrong with it last, until it says something again.
    fault: Option<WatchFault>,
}

/// What is wrong with a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// Its CustomResourceDefinition is not installed.
    KindMissing,
    /// The operator has no right to read there (any more): the Role or the namespace is gone.
    Refused(String),
    Failed(String),
}

impl WatchFault {
    fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => match status.code {
                404 => Self::KindMissing,
                403 => Self::Refused(bounded(&status.message)),
                _ => Self::Failed(bounded(&status.message)),
            },
            _ => Self::Failed(bounded(&error.to_string())),
        }
    }

    /// In a word.
    fn sort(&self) -> &'static str {
        match self {
            Self::KindMissing => "KindMissing",
            Self::Refused(_) => "Refused",
            Self::Failed(_) => "Failed",
        }
    }
}

impl fmt::Display for WatchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KindMissing => f.write_str(
                "is not known to the API server: install the CustomResourceDefinitions (chart value crds.enabled, or `xmpp-edge-operator crds | kubectl apply --server-side -f -`)",
            ),
            Self::Refused(error) => write!(
                f,
                "may not be read ({error}): give the operator its Role there, or take the namespace out of those that are watched (chart value watchNamespaces)"
            ),
            Self::Failed(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

/// Messages of the API server are shown this far, in bytes.
const MAX_MESSAGE: usize = 300;

fn bounded(message: &str) -> String {
    message[..message.floor_char_boundary(MAX_MESSAGE)].to_owned()
}

/// What is not as it should be with the watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Whether this replica can act: at least one namespace is read, and of the others none is still
    /// being read.
    pub ready: bool,
    /// One line for each watch that is not well, those of a namespace that may not be read together.
    pub lines: Vec<String>,
}

fn readiness(watches: Option<&BTreeMap<WatchName, WatchState>>) -> Readiness {
    let Some(watches) = watches else {
        return Readiness::default();
    };
    let mut found = Readiness {
        ready: true,
        lines: Vec::new(),
    };
    let mut any_read = false;
    let mut namespaces: BTreeMap<&Option<String>, Vec<(&WatchName, &WatchState)>> = BTreeMap::new();
    for (name, state) in watches {
        namespaces
            .entry(&name.namespace)
            .or_default()
            .push((name, state));
    }
    for (namespace, watches) in namespaces {
        let read = watches.iter().all(|(_, state)| state.listed);
        any_read |= read;
        let refused = watches.iter().find(|(_, state)| {
            !state.listed && matches!(state.fault, Some(WatchFault::Refused(_)))
        });
        if let (Some(namespace), Some((name, state))) = (namespace, refused) {
            let fault = state.fault.as_ref().map(ToString::to_string);
            let fault = fault.unwrap_or_default();
            let line = format!("namespace {namespace} is not served: {} {fault}", name.kind);
            found.lines.push(line);
            continue;
        }
        found.ready &= read;
        for (name, state) in watches {
            match &state.fault {
                Some(fault) => found.lines.push(format!("{name} {fault}")),
                None if !state.listed => found.lines.push(format!("{name} is being read")),
                None => {}
            }
        }
    }
    found.ready &= any_read;
    found
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
            // A new one is looked at; what its controller counts in it the Deployment says too.
            replica_sets: ObjectStore::new(|_, _| false),
            pods: ObjectStore::default(),
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
            start.watch(tasks, plain(), |caches| &caches.config_maps);
            start.watch(tasks, plain().fields(NO_RELEASES), |caches| &caches.secrets);
            let ours = || plain().labels(MANAGED);
            start.watch(tasks, ours(), |caches| &caches.services);
            start.watch(tasks, ours(), |caches| &caches.deployments);
            start.watch(tasks, ours(), |caches| &caches.replica_sets);
            start.watch(tasks, ours(), |caches| &caches.pods);
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
        let all = |watches: &Option<BTreeMap<WatchName, WatchState>>| {
            watches.as_ref().is_some_and(|watches| {
                let mut of = watches
                    .iter()
                    .filter(|(name, _)| name.namespace.as_deref().is_none_or(|it| it == namespace));
                of.all(|(_, state)| state.listed)
            })
        };
        let _ = watches.wait_for(all).await;
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
    fn watch<V>(
        &self,
        tasks: &mut TaskSet,
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
        let pools = kind == EdgePool::kind(&());
        let name = WatchName {
            namespace: self.namespace.clone(),
            kind,
        };
        let (caches, metrics) = (self.caches.clone(), self.metrics.clone());
        let mut feed = WatchApplier::of(self.namespace.clone());
        self.names
            .lock()
            .insert(name.clone(), WatchState::default());
        tasks.spawn(format!("the watch of {name}"), async move {
            let events = watcher(api, config).backoff(Backoff::api_server());
            let done = events.for_each(|event| {
                match event {
                    Ok(event) => {
                        let listed = matches!(event, Event::InitDone);
                        let event = event.modify(|object| {
                            object.managed_fields_mut().clear();
                        });
                        let touched = feed.take(table(&caches), event);
                        caches.heard(&name, listed);
                        metrics.watch_heard(&name);
                        caches.touch(&touched, pools);
                    }
                    Err(error) => {
                        metrics.watch_failed(&name, status_code(&error));
                        caches.record_watch_error(&name, &error);
                    }
                }
                ready(())
            });
            done.await;
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn watches(states: &[(&str, bool, Option<WatchFault>)]) -> BTreeMap<WatchName, WatchState> {
        let kinds = ["EdgePool", "Secret"];
        let states = states.iter().flat_map(|(namespace, listed, fault)| {
            kinds.map(|kind| {
                let name = WatchName {
                    namespace: Some((*namespace).to_owned()),
                    kind: kind.to_owned(),
                };
                let state = WatchState {
                    listed: *listed,
                    fault: fault.clone(),
                };
                (name, state)
            })
        });
        states.collect()
    }

    #[test]
    fn a_namespace_that_may_not_be_read_is_not_waited_for_and_is_named() {
        let refused = || Some(WatchFault::Refused("edgepools is forbidden".into()));
        let failed = || Some(WatchFault::Failed("no route".into()));
        let missing = || Some(WatchFault::KindMissing);
        let table = [
            (
                "all read",
                watches(&[("a", true, None), ("b", true, None)]),
                true,
                0,
            ),
            (
                "one is being read",
                watches(&[("a", true, None), ("b", false, None)]),
                false,
                2,
            ),
            (
                "one is refused",
                watches(&[("a", true, None), ("b", false, refused())]),
                true,
                1,
            ),
            (
                "all are refused",
                watches(&[("a", false, refused()), ("b", false, refused())]),
                false,
                2,
            ),
            (
                "one is refused, the other being read",
                watches(&[("a", false, None), ("b", false, refused())]),
                false,
                3,
            ),
            (
                "the server fails",
                watches(&[("a", true, None), ("b", false, failed())]),
                false,
                2,
            ),
            (
                "the kinds are missing",
                watches(&[("a", false, missing())]),
                false,
                2,
            ),
            (
                "a watch fails after its first list",
                watches(&[("a", true, failed())]),
                true,
                2,
            ),
            (
                "the right is gone after the first list",
                watches(&[("a", true, refused())]),
                true,
                2,
            ),
        ];
        for (case, watches, ready, lines) in table {
            let found = readiness(Some(&watches));
            assert_eq!(
                (found.ready, found.lines.len()),
                (ready, lines),
                "{case}: {found:?}"
            );
        }
        assert!(!readiness(None).ready, "none is registered yet");
    }
}
