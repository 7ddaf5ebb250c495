//! Writing all that a pool is made of, in order: what is issued from what could not be kept is void, and said of
//! nobody; what the API server refuses is told in the status.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use tokio::task::block_in_place;
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::{EdgePool, conditions::Reason},
};

use super::{
    apply::{Applier, ApplyError, print_of_mounted},
    gateway_copies,
    memory::PoolMemory,
    plan::{
        self, Child, ChildKind, Facts, names,
        rollout::{self, Rollout},
        secrets::{self, PlannedElsewhere, SecretsPlan},
    },
    read,
    sidecar_secrets::{self, IdentityState, SidecarIdentity},
    sidecars::{self, SidecarInputs},
    validate,
};
use crate::{
    compile::{Diagnostic, Fault},
    controllers::namespace::{inputs, snapshot::NamespaceSnapshot},
    runtime::{at_once::at_once, caches::SecretPlace, store::UnreadError},
    secrets::{CertificateError, source::CertificateState, store::ManagedSecret},
};

/// Objects of one pool written at a time.
const WRITES_AT_ONCE: usize = 8;

/// What writing came to.
#[derive(Default)]
pub(super) struct ApplyOutcome {
    pub(super) refused: Vec<String>,
    /// The first failure of infrastructure: it is tried again.
    pub(super) failed: Option<ApplyError>,
    pub(super) certificate: Option<Result<CertificateState, CertificateError>>,
    pub(super) certificate_refused: Option<Fault>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// None: they were not looked at.
    pub(super) identities: Option<Vec<SidecarIdentity>>,
    pub(super) unwritten: Option<Fault>,
    pub(super) held_by: Option<String>,
}

impl ApplyOutcome {
    /// Writing was broken off, with what is here done and the rest not.
    pub(super) fn late(&mut self, longest: Duration) {
        // What failed before says more.
        self.failed
            .get_or_insert_with(|| ApplyError::too_long(longest));
    }

    /// Keeps what went wrong; says whether all went well.
    pub(super) fn note(&mut self, done: Result<(), ApplyError>) -> bool {
        match done {
            Ok(()) => true,
            Err(error) => {
                if error.is_refusal() {
                    self.refused.push(error.to_string());
                } else if self.failed.as_ref().is_none_or(ApplyError::is_repeated) {
                    // What is new is worth more than what was told before.
                    self.failed = Some(error);
                }
                false
            }
        }
    }
}

/// Writes the Secrets, then all other objects, then lets the kubelets know.
pub(super) async fn write(
    applier: &Applier<'_>,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    pool: Option<&EdgePool>,
    config: &EdgeConfig,
    written: &mut ApplyOutcome,
) {
    let one_at_a_time = memory.secrets_of(applier.namespace);
    let guard = one_at_a_time.lock().await;
    let planned = match plan_secrets(applier, scene, pool, config) {
        Ok(planned) => planned,
        Err(error) => {
            // Pods and rules are made from what the Secrets say; the document is not.
            written.note(Err(error.into()));
            write_document(applier, memory, config, written).await;
            return;
        }
    };
    let mounted = match planned {
        Ok(planned) => {
            let lost = write_secrets(applier, &planned, written).await;
            let identities = write_elsewhere(applier, &planned, &lost, written).await;
            written.identities = Some(identities);
            written.diagnostics = planned.diagnostics;
            let seen = scene.facts.get(&config.pool);
            let seen = seen.map_or(&[][..], |facts| &facts.gateways);
            let stale = gateway_copies::stale(config, &planned.gateways, seen, scene.now);
            written.diagnostics.extend(stale);
            let pair = ManagedSecret::PoolPair(config.pool.clone());
            if !lost.entries.contains_key(&pair) {
                written.certificate = Some(Ok(planned.certificate));
            }
            lost.is_none().then_some(planned.mounted)
        }
        Err(error) => {
            written.certificate = Some(Err(error));
            None
        }
    };
    drop(guard);
    let whole = write_children(applier, memory, scene, pool, config, written).await;
    if let (Some(mounted), true) = (mounted, whole) {
        let generation = in_place(applier, memory, config);
        let print = print_of_mounted(generation.unwrap_or(0), &mounted);
        let hurried = applier.trigger_volume_sync(&print).await;
        written.note(hurried);
    }
}

/// Plans on what the cluster holds. A Secret that is there and could not be read is none that is to be made.
fn plan_secrets(
    applier: &Applier<'_>,
    scene: &NamespaceSnapshot,
    pool: Option<&EdgePool>,
    config: &EdgeConfig,
) -> Result<Result<SecretsPlan, CertificateError>, UnreadError> {
    let unread: RefCell<Option<UnreadError>> = RefCell::default();
    let held = |name: &str| {
        let secrets = &applier.context.caches.secrets;
        match secrets.get(applier.namespace, name) {
            Ok(secret) => secret.map(|secret| inputs::material(&secret)),
            Err(error) => {
                unread.borrow_mut().get_or_insert(error);
                None
            }
        }
    };
    // Keys may have to be made.
    let (pools, configs) = (&scene.world.pools, &scene.compiled.configs);
    let context = applier.context;
    let elsewhere = |place: &SecretPlace, gateway: &str| {
        let (allowed, namespace) = (&context.settings.sidecar_namespaces, applier.namespace);
        let state = context.caches.elsewhere.get(place);
        sidecar_secrets::held(allowed, place, gateway, namespace, state)
    };
    let sidecars = SidecarInputs {
        documents: sidecars::documents(pools, configs, &read::cluster_domain()),
        outside: sidecars::outside(pools, configs, &config.pool),
        configs,
        elsewhere: &elsewhere,
    };
    let certificate = read::certificate(applier.pool);
    let planned = block_in_place(|| {
        let certificate = certificate.as_deref();
        secrets::plan(pool, certificate, config, &held, &sidecars, scene.now)
    });
    unread.into_inner().map_or(Ok(planned), Err)
}

/// What could not be kept of the planned Secrets.
#[derive(Default)]
struct LostSecrets {
    /// Why; of what was issued from a lost one, why that was lost.
    entries: BTreeMap<ManagedSecret, String>,
    /// Whether servers inside were not told of the CA.
    is_ca_untold: bool,
}

impl LostSecrets {
    fn is_none(&self) -> bool {
        self.entries.is_empty() && !self.is_ca_untold
    }
}

/// In order: what is issued from what was not kept is void, and not written. One that fails holds up no other.
async fn write_secrets(
    applier: &Applier<'_>,
    planned: &SecretsPlan,
    written: &mut ApplyOutcome,
) -> LostSecrets {
    let mut lost = LostSecrets::default();
    for (entry, material) in &planned.entries {
        let from = secrets::issued_from(entry);
        if let Some(why) = from.and_then(|from| lost.entries.get(&from)) {
            let why = why.clone();
            lost.entries.insert(entry.clone(), why);
        } else if let Err(error) = applier.secret(entry, material).await {
            lost.entries.insert(entry.clone(), error.to_string());
            written.note(Err(error));
        }
    }
    for entry in &planned.released {
        // Its content counts as it is.
        written.note(applier.release(entry).await);
    }
    if !lost.entries.contains_key(&ManagedSecret::InternalCa) {
        let done = applier.child(&planned.internal_ca).await;
        lost.is_ca_untold = !written.note(done.map(|_| ()));
    }
    lost
}

/// The Secrets of sidecars in other namespaces: what does not go there holds up nothing else. Says what all
/// gateways' sidecars have.
async fn write_elsewhere(
    applier: &Applier<'_>,
    planned: &SecretsPlan,
    lost: &LostSecrets,
    written: &mut ApplyOutcome,
) -> Vec<SidecarIdentity> {
    let mut identities = planned.sidecars.clone();
    for identity in &mut identities {
        let entry = ManagedSecret::Sidecar(identity.gateway.clone());
        if let Some(words) = lost.entries.get(&entry) {
            let fault = sidecar_secrets::not_written(&identity.place, words);
            identity.state = IdentityState::Refused(fault);
        }
    }
    let is_void = lost.entries.contains_key(&ManagedSecret::InternalCa);
    for PlannedElsewhere { identity, material } in &planned.elsewhere {
        let mut identity = identity.clone();
        // What is issued from a CA that could not be kept is void.
        match material {
            Some(_) if is_void => identity.state = IdentityState::NotYet,
            Some(material) => {
                let place = &identity.place;
                if let Err(error) = applier.secret_elsewhere(place, material).await {
                    identity.state = refused(&identity, applier.namespace, &error);
                }
            }
            None => {}
        }
        identities.push(identity);
    }
    for map in &planned.outside {
        let done = applier.child(map).await;
        written.note(done.map(|_| ()));
    }
    identities
}

fn refused(identity: &SidecarIdentity, pools_in: &str, error: &ApplyError) -> IdentityState {
    let SidecarIdentity { place, gateway, .. } = identity;
    let words = error.to_string();
    IdentityState::Refused(match error.cause() {
        // The watch brings what was first.
        ApplyError::Overtaken { .. } => return IdentityState::NotYet,
        ApplyError::Refused { .. } => {
            sidecar_secrets::not_allowed(place, gateway, pools_in, &words)
        }
        _ => sidecar_secrets::not_written(place, &words),
    })
}

async fn write_children(
    applier: &Applier<'_>,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    pool: Option<&EdgePool>,
    config: &EdgeConfig,
    written: &mut ApplyOutcome,
) -> bool {
    let Some(pool) = pool else {
        return write_document(applier, memory, config, written).await;
    };
    let context = applier.context;
    let image = read::proxy_image(&context.settings);
    let rollouts = read::rollouts(scene, &context.caches, image);
    let claim = names::contacts_volume(&config.pool);
    let volume = context.caches.volumes.get(applier.namespace, &claim);
    let facts = Facts {
        proxy_image: image,
        operator: Some(read::operator_peer(&context.namespace)),
        resolvers: read::resolvers(),
        database: read::database_of(&scene.world, pool),
        volume: volume.as_deref(),
        written: in_place(applier, memory, config),
        after: after(&rollouts, &config.pool),
    };
    let plan = plan::plan(pool, config, &facts);
    written.unwritten = plan.too_large.as_ref().map(too_large);
    written.held_by.clone_from(&plan.held_by);
    let not_allowed = validate::not_allowed(config, context.settings.allowed_domains.as_ref());
    if let Some(sha256) = &plan.document_sha256 {
        note_written(applier, memory, config, sha256);
    }
    let replicas = pool.spec.desired_replicas();
    let write = |child| write_child(applier, child, plan.held_by.is_some(), replicas);
    let (workload, others): (Vec<&Child>, Vec<&Child>) = {
        let children = plan.children.iter();
        let wanted = children.filter(|it| {
            // Nothing is asked for on behalf of names that the namespace may not have.
            it.kind() != ChildKind::Certificate || not_allowed.is_empty()
        });
        wanted.partition(|it| it.kind() == ChildKind::Deployment)
    };
    let (shards, others): (Vec<&Child>, Vec<&Child>) = others
        .into_iter()
        .partition(|it| it.kind() == ChildKind::ConfigMap);
    let (needed, beside): (Vec<&Child>, Vec<&Child>) = others
        .into_iter()
        .partition(|it| is_needed_by_pods(it.kind()));
    let absent = plan.absent.iter();
    let surplus: Vec<String> = absent
        .filter(|(kind, _)| *kind == ChildKind::ConfigMap)
        .map(|(_, name)| name.clone())
        .collect();
    // What hangs holds up its own kind alone; pods come after what they are made of.
    let pods_last = async {
        let (document, mut done) = tokio::join!(
            write_shards(applier, &shards, &surplus),
            at_once(WRITES_AT_ONCE, needed.into_iter().map(write))
        );
        done.extend(at_once(WRITES_AT_ONCE, workload.into_iter().map(write)).await);
        (document, done)
    };
    let deletions = plan.absent.iter();
    let deletions = deletions
        .filter(|(kind, _)| *kind != ChildKind::ConfigMap)
        .map(|(kind, name)| applier.delete(*kind, name));
    let (deleted, (document, done), beside) = tokio::join!(
        at_once(WRITES_AT_ONCE, deletions),
        pods_last,
        at_once(WRITES_AT_ONCE, beside.into_iter().map(write))
    );
    let mut whole = true;
    for done in deleted.into_iter().chain(document) {
        whole &= written.note(done);
    }
    for (child, done) in done.into_iter().chain(beside) {
        if child.kind() == ChildKind::Certificate {
            note_certificate(applier, child, done, scene.now, written);
        } else {
            whole &= written.note(done);
        }
    }
    if !not_allowed.is_empty() && plan.children.iter().any(is_certificate) {
        let fault = validate::not_allowed_fault(&not_allowed, applier.namespace);
        written.certificate_refused = Some(fault);
    }
    whole
}

/// The document's shards, in the order of their numbers, and what is left over of one before (`surplus`). Whoever
/// reads takes the newest document that is whole: until the last write here that is the one before, as far as the
/// shards of both do not share names. So the highest number is written first, one comes after the other as long as all
/// goes well, and nothing is deleted before. What was not tried is no failure: the one before it says why.
async fn write_shards(
    applier: &Applier<'_>,
    shards: &[&Child],
    surplus: &[String],
) -> Vec<Result<(), ApplyError>> {
    for shard in shards.iter().rev() {
        if let Err(error) = applier.child(shard).await {
            return vec![Err(error)];
        }
    }
    let deletions = surplus.iter();
    let deletions = deletions.map(|name| applier.delete(ChildKind::ConfigMap, name));
    at_once(WRITES_AT_ONCE, deletions).await
}

/// Whether pods begin with it: their rules, what they mount.
fn is_needed_by_pods(kind: ChildKind) -> bool {
    match kind {
        ChildKind::NetworkPolicy
        | ChildKind::ConfigMap
        | ChildKind::Secret
        | ChildKind::PersistentVolumeClaim => true,
        ChildKind::Certificate
        | ChildKind::PodDisruptionBudget
        | ChildKind::Service
        | ChildKind::Deployment => false,
    }
}

fn is_certificate(child: &Child) -> bool {
    child.kind() == ChildKind::Certificate
}

/// `held`: pods are not replaced now, only their number is kept.
async fn write_child<'c>(
    applier: &Applier<'_>,
    child: &'c Child,
    held: bool,
    replicas: i32,
) -> (&'c Child, Result<(), ApplyError>) {
    let done = match child {
        Child::Deployment(_) if held => applier.replicas(child.name(), replicas).await,
        child => applier.child(child).await.map(|_| ()),
    };
    (child, done)
}

/// What came of the Certificate of cert-manager; what is wrong with it is the certificate's condition.
fn note_certificate(
    applier: &Applier<'_>,
    child: &Child,
    done: Result<(), ApplyError>,
    now: Timestamp,
    written: &mut ApplyOutcome,
) {
    let context = applier.context;
    let certificates = applier.certificates;
    match done {
        Ok(()) => {
            certificates.follow(&context.client, &context.caches, applier.namespace);
            let progress = certificates.progress(applier.namespace, child.name());
            if let (Some(Ok(provision)), Some(progress)) = (&mut written.certificate, progress) {
                provision.told(child.name(), progress, now);
            }
        }
        Err(error) if matches!(error.cause(), ApplyError::KindMissing { .. }) => {
            let message = format!(
                "{error}, or choose another mode in spec.certificate; it is looked for again every minute"
            );
            written.refused.push(error.to_string());
            written.certificate_refused = Some(Fault::new(Reason::KindMissing, message));
        }
        Err(error) if error.is_refusal() => {
            written.refused.push(error.to_string());
            written.certificate_refused =
                Some(Fault::new(Reason::ObjectRefused, error.to_string()));
        }
        Err(error) => {
            written.note(Err(error));
        }
    }
}

/// The document alone, of a pool that cannot be read or is being deleted.
pub(super) async fn write_document(
    applier: &Applier<'_>,
    memory: &PoolMemory,
    config: &EdgeConfig,
    written: &mut ApplyOutcome,
) -> bool {
    if in_place(applier, memory, config) == Some(config.generation) {
        return true;
    }
    let mut whole = true;
    match plan::shards::plan(applier.pool, config) {
        Ok(document) => {
            note_written(applier, memory, config, &document.sha256);
            let shards: Vec<&Child> = document.shards.iter().collect();
            let surplus: Vec<String> = plan::shards::surplus(&config.pool, shards.len()).collect();
            for done in write_shards(applier, &shards, &surplus).await {
                whole &= written.note(done);
            }
        }
        Err(error) => written.unwritten = Some(too_large(&error)),
    }
    whole
}

/// The generation of the pool's document that is in place.
fn in_place(applier: &Applier<'_>, memory: &PoolMemory, config: &EdgeConfig) -> Option<u64> {
    let (namespace, pool) = (applier.namespace, config.pool.as_str());
    let ours = memory.written(namespace, pool);
    read::written(&applier.context.caches, &ours, namespace, pool)
}

fn note_written(applier: &Applier<'_>, memory: &PoolMemory, config: &EdgeConfig, sha256: &str) {
    let (namespace, generation) = (applier.namespace, config.generation);
    memory.note_written(namespace, &config.pool, generation, sha256);
}

fn too_large(error: &xmpp_edge_crds::edge_config::shards::EncodeError) -> Fault {
    Fault::new(Reason::ConfigTooLarge, error.to_string())
}

fn after(rollouts: &[Rollout<'_>], pool: &str) -> Option<String> {
    let mine = rollouts.iter().find(|rollout| rollout.pool == pool)?;
    rollout::held_by(mine, rollouts).map(str::to_owned)
}
