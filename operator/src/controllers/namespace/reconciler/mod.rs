//! One namespace, which is one organisation: looked at as a whole, one look at a time.
//!
//! A look: snapshot → compile, where anything of it changed → each pool, partner and policy. It
//! remembers what it compiled, so that a document is never numbered twice, and since when each object
//! is as it is. Looks are at least a second apart, and so are the writes of a pool's document.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::{Instant, sleep, sleep_until};
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::{ExternalAccessPolicy, XmppFederatedPartner},
};

use super::{
    compile_cache::{CompileCache, CompileInputs, SeenOfPods},
    inputs,
    peer_keys::{self, PeerKeysMemory},
    references, sidecars,
    snapshot::{ChangeTracker, Context, NamespaceSnapshot, PoolOutcome},
    way_inside::{SeenPool, WaysInside},
};
use crate::{
    compile::{Kind, ObjectRef},
    controllers::{
        pool::{self, PoolMemory},
        status_only::{self, StatusOnlyKind},
    },
    proxy_status::{self, Loaded, PoolReport, SidecarPods, ownership::pool_of, sidecar_pods},
    runtime::{
        backoff::Backoff,
        metrics::{Objects, OfPool},
        store::UnreadError,
    },
    status::throttle::{Counts, StatusThrottle},
};

/// What changes together is looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Looks are at least this far apart.
const APART: Duration = Duration::from_secs(1);
/// And need not be further apart than this, however long they take: a status is due within 10 s.
const MOST_APART: Duration = Duration::from_secs(4);
/// A look without any cause, in case one was missed.
const RESYNC: Duration = Duration::from_secs(600);

/// A namespace, and what is remembered of it while this process leads.
#[derive(Debug)]
pub struct NamespaceReconciler {
    context: Arc<Context>,
    /// Of all namespaces.
    pools: Arc<PoolMemory>,
    namespace: String,
    inputs: CompileCache,
    /// Each pool's newest document: written, or about to be.
    last: BTreeMap<String, EdgeConfig>,
    since: BTreeMap<String, ChangeTracker>,
    reached: BTreeMap<String, u64>,
    /// When each pool's newest generation was compiled, until all pods have it.
    syncing: BTreeMap<String, Instant>,
    written: StatusThrottle,
    peer_keys: PeerKeysMemory,
    ways: WaysInside,
    sidecar_pods: SidecarPods,
}

impl NamespaceReconciler {
    #[must_use]
    pub fn new(context: Arc<Context>, pools: Arc<PoolMemory>, namespace: String) -> Self {
        Self {
            context,
            pools,
            namespace,
            inputs: CompileCache::default(),
            last: BTreeMap::new(),
            since: BTreeMap::new(),
            reached: BTreeMap::new(),
            syncing: BTreeMap::new(),
            written: StatusThrottle::default(),
            peer_keys: PeerKeysMemory::default(),
            ways: WaysInside::default(),
            sidecar_pods: SidecarPods::default(),
        }
    }

    /// Looks whenever something changed, until dropped.
    pub async fn run(mut self) {
        let changed = self.context.caches.triggers.of(&self.namespace);
        // Half of a namespace would look like a namespace of which half was deleted.
        self.context.caches.read(&self.namespace).await;
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut again = Duration::ZERO;
        loop {
            tokio::select! {
                () = changed.notified() => sleep(DEBOUNCE).await,
                () = sleep(again) => {}
            }
            let begun = Instant::now();
            let look = self.look().await;
            again = look.again.unwrap_or(RESYNC).min(RESYNC);
            if look.failed {
                again = again.min(backoff.wait());
            } else {
                backoff.succeeded();
            }
            // Looks at thousands of objects leave at least as much time to the writing of statuses.
            let apart = (begun.elapsed() * 2).clamp(APART, MOST_APART);
            sleep_until(begun + apart).await;
        }
    }

    async fn look(&mut self) -> NamespacePass {
        let unread = self.read().await;
        if let Err(error) = references::documents_are_read(&self.context.caches, &self.namespace) {
            let again = self.look_without(&error).await;
            return NamespacePass {
                again: unread.into_iter().chain(again).min(),
                failed: true,
            };
        }
        let (mut scene, ways) = self.scene();
        let missing = sidecars::missing(&scene);
        let (caches, namespace) = (&self.context.caches, &self.namespace);
        scene.sidecar_pods = self.sidecar_pods.ask(caches, namespace, &missing).await;
        let ask_again = (!missing.is_empty()).then_some(sidecar_pods::EVERY);
        let (outcomes, failed) = self.provision(&scene).await;
        peer_keys::learn(&self.context, &scene, &mut self.peer_keys).await;
        // What pods have may have changed meanwhile, but not for the worse: this is what was seen.
        scene.now = Timestamp::now();
        self.say(&scene, &outcomes);
        let pools = outcomes.values().filter_map(|outcome| outcome.again);
        let again = pools.chain(self.written.until_due()).chain(ask_again);
        NamespacePass {
            again: again
                .chain(self.peer_keys.retry())
                .chain(unread)
                .chain(ways)
                .min(),
            failed,
        }
    }

    /// A look at a namespace that cannot be compiled for want of this: deletions go on, and the pools say why
    /// nothing else does.
    async fn look_without(&self, error: &UnreadError) -> Option<Duration> {
        let (caches, namespace) = (&self.context.caches, &self.namespace);
        tracing::debug!(namespace, %error, "the namespace cannot be compiled yet");
        let mut scene = NamespaceSnapshot::of(namespace, Timestamp::now());
        let references = references::of(caches, namespace, &self.last);
        scene.world = Arc::new(inputs::world(caches, namespace, &references));
        pool::reconcile_unread(&self.context, &self.pools, &scene, error).await
    }

    /// Has what is referred to read, where it is not held as it is now. When what could not be read may be
    /// tried again.
    async fn read(&self) -> Option<Duration> {
        let Context { caches, client, .. } = &*self.context;
        let namespace = &self.namespace;
        let references = references::of(caches, namespace, &self.last);
        caches.config_maps.refer(namespace, references.config_maps);
        caches.secrets.refer(namespace, references.secrets);
        let elsewhere = references::elsewhere(caches, namespace, &self.last);
        let let_go = caches
            .elsewhere
            .refer(client, &caches.triggers, namespace, &elsewhere);
        for secret in let_go {
            pool::sidecar_secrets::withdraw(client, namespace, &secret).await;
        }
        let (config_maps, secrets) = tokio::join!(
            caches.config_maps.read(client, namespace),
            caches.secrets.read(client, namespace),
        );
        let metrics = &self.context.metrics;
        metrics.held("ConfigMap", caches.config_maps.size());
        metrics.held("Secret", caches.secrets.size());
        config_maps.into_iter().chain(secrets).min()
    }

    /// Takes the namespace as it was read and compiles it. With when its pools' ways inside may mean something
    /// else.
    fn scene(&mut self) -> (NamespaceSnapshot, Option<Duration>) {
        let mut scene = NamespaceSnapshot::of(&self.namespace, Timestamp::now());
        self.recall();
        self.compile(&mut scene);
        for (pool, config) in &scene.compiled.configs {
            let last = self.last.get(pool);
            if last.is_none_or(|last| last.generation != config.generation) {
                let since = self.since.entry(pool.clone()).or_default();
                note_changes(since, last, config);
                // One that overtakes another counts from the first that pods do not have.
                self.syncing
                    .entry(pool.clone())
                    .or_insert_with(Instant::now);
                self.last.insert(pool.clone(), config.clone());
            }
        }
        scene.reports = self.reports();
        for (pool, report) in &scene.reports {
            if let Loaded::All(generation) = report.loaded() {
                self.reached.insert(pool.clone(), generation);
                self.note_loaded(pool, generation);
            }
            if let Some(config) = scene.compiled.configs.get(pool) {
                scene
                    .facts
                    .insert(pool.clone(), proxy_status::merge::merge(report, config));
            }
        }
        for (pool, since) in &self.syncing {
            self.show_sync(pool, *since);
        }
        let ways = self
            .ways
            .observe(&SeenPool::all(&scene), std::time::Instant::now());
        scene.stranded.clone_from(self.ways.stranded());
        scene.peer_keys.clone_from(&self.peer_keys.faults);
        scene.since.clone_from(&self.since);
        scene.reached.clone_from(&self.reached);
        (scene, ways)
    }

    /// The world, and what it compiles to.
    fn compile(&mut self, scene: &mut NamespaceSnapshot) {
        let begun = Instant::now();
        let caches = &self.context.caches;
        let pods = SeenOfPods {
            used: self.used_generations(),
            pods_behind: sidecars::before(caches, &self.namespace, &self.last, || self.reports()),
        };
        let references = references::of(caches, &self.namespace, &self.last);
        let withdrawn = self.ways.withdrawn(&self.last);
        // A large namespace takes a thread for a while: the runtime gets another meanwhile.
        let (now, anew) = tokio::task::block_in_place(|| {
            let given = CompileInputs {
                last: &self.last,
                pods: &pods,
                withdrawn: &withdrawn,
                references: &references,
            };
            self.inputs.compile(caches, &self.namespace, &given)
        });
        if anew {
            let seconds = &self.context.metrics.compile_seconds;
            seconds.observe(begun.elapsed().as_secs_f64());
        }
        (scene.world, scene.compiled) = (now.world, now.compiled);
    }

    /// Of pools whose last document cannot be had whole, the highest generation that was in use all the
    /// same: a shard names it, or a pod has loaded it. Numbers are never used twice, or what pods have of
    /// before would be taken for what is new.
    fn used_generations(&self) -> BTreeMap<String, u64> {
        let (caches, namespace) = (&self.context.caches, &self.namespace);
        let pools = caches.pools.in_namespace(namespace);
        let unknown = pools.iter().map(|pool| pool.name_any());
        let unknown = unknown.filter(|pool| !self.last.contains_key(pool));
        unknown
            .filter_map(|pool| {
                let written = inputs::highest_generation(caches, namespace, &pool);
                // Of one that never had a document no pod can have loaded any.
                let object = caches.pools.get(namespace, &pool)?;
                let status = object.read().and_then(|object| object.status.as_ref());
                let had = status.is_some_and(|status| status.config.is_some());
                let reports = &self.context.reports;
                let loaded = had.then(|| reports.highest_generation(namespace, &pool));
                Some((pool, written.max(loaded.flatten())?))
            })
            .collect()
    }

    /// Takes up what ConfigMaps hold of pools that this process does not know yet, and forgets pools
    /// that are gone: a deletion always takes effect.
    fn recall(&mut self) {
        let pools = &self.context.caches.pools;
        let exists = |pool: &str| {
            let pool = pools.get(&self.namespace, pool);
            pool.is_some_and(|pool| !pool.is_terminating())
        };
        for pool in self.last.keys().filter(|pool| !exists(pool)) {
            self.context.metrics.forget_pool(&self.namespace, pool);
            self.context.dns_metrics.forget(&self.namespace, pool);
        }
        self.last.retain(|pool, _| exists(pool));
        self.since.retain(|pool, _| exists(pool));
        self.reached.retain(|pool, _| exists(pool));
        self.syncing.retain(|pool, _| exists(pool));
        let caches = &self.context.caches;
        // One that is deleted and waits for DNS is there still.
        self.pools.forget(&self.namespace, |pool| {
            caches.pools.get(&self.namespace, pool).is_some()
        });
        let pools = caches.pools.in_namespace(&self.namespace);
        for pool in pools.iter().map(|pool| pool.name_any()) {
            if self.last.contains_key(&pool) || !exists(&pool) {
                continue;
            }
            if let Some(document) = inputs::last_document(caches, &self.namespace, &pool) {
                let config = document.config;
                let (generation, sha256) = (config.generation, &document.sha256);
                let memory = &self.pools;
                memory.note_written(&self.namespace, &pool, generation, sha256);
                let since = ChangeTracker {
                    before: config.generation,
                    inherited: true,
                    ..ChangeTracker::default()
                };
                self.since.insert(pool.clone(), since);
                self.ways.recall(&config);
                self.last.insert(pool, config);
            }
        }
    }

    /// What the ready pods said; of one that has just become ready, nothing yet.
    fn reports(&self) -> BTreeMap<String, PoolReport> {
        let mut reports = self.context.reports.of(&self.namespace);
        for pod in self.context.caches.pods.in_namespace(&self.namespace) {
            if proxy_status::poll::is_ready(&pod)
                && let Some(pool) = pool_of(&self.context.caches, &pod)
            {
                let report = reports.entry(pool).or_default();
                report.pods.entry(pod.name_any()).or_default();
            }
        }
        for pool in self.last.keys() {
            reports.entry(pool.clone()).or_default();
        }
        for (pool, report) in &mut reports {
            report.written = self.pools.written(&self.namespace, pool);
        }
        reports
    }

    /// A document that all ready pods have loaded is no longer on its way.
    fn note_loaded(&mut self, pool: &str, generation: u64) {
        let newest = self.last.get(pool).map(|config| config.generation);
        if newest.is_some_and(|newest| generation >= newest)
            && let Some(since) = self.syncing.remove(pool)
        {
            self.show_sync(pool, since);
        }
    }

    /// How long a document took, or has been on its way by now.
    fn show_sync(&self, pool: &str, since: Instant) {
        let labels = OfPool {
            namespace: self.namespace.clone(),
            pool: pool.to_owned(),
        };
        self.context
            .metrics
            .config_sync_seconds
            .get_or_create(&labels)
            .set(since.elapsed().as_secs_f64());
    }

    /// Every pool that there is, those on their way out included: each for itself.
    async fn provision(&self, scene: &NamespaceSnapshot) -> (BTreeMap<String, PoolOutcome>, bool) {
        let pools = self.context.caches.pools.in_namespace(&self.namespace);
        let names: Vec<String> = pools.iter().map(|pool| pool.name_any()).collect();
        let done = join_all(names.iter().map(|name| async {
            let begun = Instant::now();
            let done = pool::reconcile(&self.context, &self.pools, scene, name).await;
            self.context
                .metrics
                .reconciled("EdgePool", done.is_ok(), begun.elapsed());
            done
        }))
        .await;
        let mut failed = false;
        let mut outcomes = BTreeMap::new();
        for (name, done) in names.into_iter().zip(done) {
            match done {
                Ok(outcome) => {
                    outcomes.insert(name, outcome);
                }
                Err(error) if error.is_repeated() => {
                    failed = true;
                    let namespace = &self.namespace;
                    tracing::debug!(namespace, pool = name, %error, "the pool cannot be provisioned still");
                }
                Err(error) => {
                    failed = true;
                    self.context.metrics.failed("EdgePool", error.reason());
                    let namespace = &self.namespace;
                    tracing::warn!(namespace, pool = name, %error, "the pool could not be provisioned; it is tried again");
                }
            }
        }
        (outcomes, failed)
    }

    /// Statuses of partners and policies.
    fn say(&mut self, scene: &NamespaceSnapshot, outcomes: &BTreeMap<String, PoolOutcome>) {
        let caches = &self.context.caches;
        self.written.retain(|kind, name| match Kind::parse(kind) {
            Some(Kind::XmppFederatedPartner) => {
                caches.partners.get(&scene.namespace, name).is_some()
            }
            _ => caches.policies.get(&scene.namespace, name).is_some(),
        });
        self.count_pools();
        self.say_of::<XmppFederatedPartner>(scene, outcomes);
        self.say_of::<ExternalAccessPolicy>(scene, outcomes);
    }

    fn say_of<K: StatusOnlyKind>(
        &mut self,
        scene: &NamespaceSnapshot,
        outcomes: &BTreeMap<String, PoolOutcome>,
    ) {
        let begun = Instant::now();
        let counts = status_only::reconcile::<K>(&self.context, scene, outcomes, &mut self.written);
        let kind = K::KIND.as_str();
        self.count(kind, &counts);
        self.context.metrics.reconciled(kind, true, begun.elapsed());
    }

    /// Pools are counted by what their own controller says of them.
    fn count_pools(&self) {
        let mut counts = Counts::default();
        let caches = &self.context.caches;
        for pool in caches.pools.in_namespace(&self.namespace) {
            let status = pool.read().and_then(|pool| pool.status.as_ref());
            counts.add(status.map_or(&[], |status| status.conditions.as_slice()));
            let labels = OfPool {
                namespace: self.namespace.clone(),
                pool: pool.name_any(),
            };
            // As in its status.
            let ready = pool::read::ready_replicas(caches, &self.namespace, &labels.pool);
            let metric = &self.context.metrics.pool_ready_replicas;
            metric.get_or_create(&labels).set(ready.into());
        }
        self.count("EdgePool", &counts);
    }

    fn count(&self, kind: &'static str, counts: &Counts) {
        for ready in ["True", "False", "Unknown"] {
            let labels = Objects {
                namespace: self.namespace.clone(),
                kind,
                ready,
            };
            let count = counts.0.get(ready).copied().unwrap_or_default();
            self.context
                .metrics
                .objects
                .get_or_create(&labels)
                .set(count);
        }
    }
}

/// What a look leads to.
struct NamespacePass {
    again: Option<Duration>,
    failed: bool,
}

/// Objects whose form in the new document is another than in the last are so since this one.
fn note_changes(since: &mut ChangeTracker, last: Option<&EdgeConfig>, new: &EdgeConfig) {
    let Some(last) = last else {
        *since = ChangeTracker {
            before: new.generation,
            ..ChangeTracker::default()
        };
        return;
    };
    let mut note = |kind, name: &str| {
        since
            .objects
            .insert(ObjectRef::new(kind, name), new.generation);
    };
    let before: BTreeMap<&str, _> = last
        .partners
        .iter()
        .map(|it| (it.name.as_str(), it))
        .collect();
    for partner in &new.partners {
        if before
            .get(partner.name.as_str())
            .is_none_or(|before| *before != partner)
        {
            note(Kind::XmppFederatedPartner, &partner.name);
        }
    }
    let policies = &last.access.policies;
    let before: BTreeMap<&str, _> = policies.iter().map(|it| (it.name.as_str(), it)).collect();
    for policy in &new.access.policies {
        if before
            .get(policy.name.as_str())
            .is_none_or(|before| *before != policy)
        {
            note(Kind::ExternalAccessPolicy, &policy.name);
        }
    }
    let present: std::collections::HashSet<(Kind, &str)> = new
        .partners
        .iter()
        .map(|it| (Kind::XmppFederatedPartner, it.name.as_str()))
        .chain(
            new.access
                .policies
                .iter()
                .map(|it| (Kind::ExternalAccessPolicy, it.name.as_str())),
        )
        .collect();
    since
        .objects
        .retain(|object, _| present.contains(&(object.kind, object.name.as_str())));
}

#[cfg(test)]
mod tests;
