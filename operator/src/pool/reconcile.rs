//! One look at one pool: the five words, one after the other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::task::block_in_place;
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::{
        EdgePool, PoolStatus,
        conditions::{ConditionType, Reason},
    },
};

use super::{
    apply::{Applied, Applier, ApplyError, print_of_mounted},
    cert_manager::Certificates,
    external_dns::Endpoints,
    plan::{
        self, Child, ChildKind, Facts, names,
        rollout::{self, Rollout},
        secrets::{self, SecretsPlan},
    },
    publish::{self, Publications},
    read, status,
    status::{Certificate, Findings},
    validate,
};
use crate::{
    certificates::{CertificateError, pool::Provision},
    cluster::{
        Context, PoolError, PoolOutcome, Scene,
        conditions::{self, State, Wanted},
        loose::Loose,
        metrics::OfPool,
        snapshot,
        statuses::Author,
    },
    compile::{Diagnostic, Fault, Kind, ObjectRef},
};

/// Field manager of a pool's status.
const AUTHOR: Author<EdgePool> = Author {
    kind: "EdgePool",
    manager: "xmpp-edge-operator/pool-status",
    table: |caches| &caches.pools,
};
/// Certificates are looked at this often although nothing changes: the shortest of ours lives seven
/// days.
const RENEWALS: Duration = Duration::from_secs(3600);
/// What was refused may be taken once somebody else did something.
const REFUSED: Duration = Duration::from_secs(60);

/// What is remembered between looks. Nothing of it is needed to be right: without it a write more
/// is made.
#[derive(Default)]
pub struct Memory {
    applied: Applied,
    pub(super) certificates: Certificates,
    publications: Publications,
    endpoints: Endpoints,
    pools: Mutex<HashMap<(String, String), Remembered>>,
    /// By namespace: pools share its CA, and must not each make one.
    secrets: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Memory {
    /// Forgets pools of a namespace that are not there any more.
    pub fn forget(&self, namespace: &str, exists: impl Fn(&str) -> bool) {
        self.publications.forget(namespace, &exists);
        let mut pools = self.pools.lock();
        pools.retain(|(of, pool), _| of != namespace || exists(pool));
    }

    fn secrets_of(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut secrets = self.secrets.lock();
        secrets.entry(namespace.to_owned()).or_default().clone()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Remembered {
    /// When counts of streams were written last.
    counted: Option<Timestamp>,
}

/// What writing came to.
#[derive(Default)]
struct Written {
    refused: Vec<String>,
    /// The first failure of infrastructure: it is tried again.
    failed: Option<ApplyError>,
    certificate: Option<Result<Provision, CertificateError>>,
    certificate_refused: Option<Fault>,
    diagnostics: Vec<Diagnostic>,
    unwritten: Option<Fault>,
    held_by: Option<String>,
}

impl Written {
    /// Keeps what went wrong; says whether all went well.
    fn note(&mut self, done: Result<(), ApplyError>) -> bool {
        match done {
            Ok(()) => true,
            Err(error) => {
                if error.is_refusal() {
                    self.refused.push(error.to_string());
                } else {
                    self.failed.get_or_insert(error);
                }
                false
            }
        }
    }
}

/// Provisions one pool as far as it can be, and writes its status.
///
/// # Errors
/// Failures of infrastructure: it is to be tried again with backoff. What is wrong with the spec,
/// or refused by the API server, is a condition.
pub async fn reconcile(
    context: &Context,
    scene: &Scene,
    name: &str,
) -> Result<PoolOutcome, PoolError> {
    let namespace = scene.namespace.as_str();
    let Some(object) = context.caches.pools.get(namespace, name) else {
        return Ok(PoolOutcome::default());
    };
    if object.meta().deletion_timestamp.is_some() {
        let again = match object.read() {
            Some(pool) => {
                context
                    .pools
                    .publications
                    .leave(context, namespace, pool)
                    .await
            }
            None => None,
        };
        return Ok(PoolOutcome {
            again,
            ..PoolOutcome::default()
        });
    }
    let pool = read::readable(scene, name);
    let config = scene.config(name);
    let rejected = config.and_then(|config| validate::alone(config).err());
    let mut written = Written::default();
    if let (Some(config), None) = (config, &rejected) {
        // A pool that cannot be read keeps its pods as they are; its document and certificates
        // are kept up.
        let owner = pool.or_else(|| object.read());
        if let Some(owner) = owner {
            let applier = Applier {
                context,
                applied: &context.pools.applied,
                pool: owner,
                namespace,
            };
            write(&applier, scene, pool, config, &mut written).await;
        }
    }
    let in_place = read::written(&context.caches, namespace, name);
    let dns = match (pool, config, &rejected) {
        (Some(pool), Some(config), None) => Some(look_at_dns(context, scene, pool, config)),
        _ => None,
    };
    let found = Found {
        rejected: rejected.as_ref(),
        in_place,
        dns: dns.as_ref(),
    };
    report(context, scene, &object, &found, &written);
    if let Some(error) = written.failed {
        return Err(Box::new(error));
    }
    let again = if written.refused.is_empty() {
        RENEWALS
    } else {
        REFUSED
    };
    let dns = dns.and_then(|dns| dns.again);
    Ok(PoolOutcome {
        unwritten: written.unwritten,
        again: Some(dns.map_or(again, |dns| dns.min(again))),
    })
}

/// Pods of a pool that are ready.
#[must_use]
pub fn ready_replicas(context: &Context, namespace: &str, name: &str) -> i32 {
    let deployment = names::workload(name);
    let deployment = context.caches.deployments.get(namespace, &deployment);
    let status = deployment.as_ref().and_then(|it| it.status.as_ref());
    status.and_then(|it| it.ready_replicas).unwrap_or(0)
}

async fn write(
    applier: &Applier<'_>,
    scene: &Scene,
    pool: Option<&EdgePool>,
    config: &EdgeConfig,
    written: &mut Written,
) {
    let context = applier.context;
    let held = |name: &str| {
        let secret = context.caches.secrets.get(applier.namespace, name);
        secret.map(|secret| snapshot::material(&secret))
    };
    let one_at_a_time = context.pools.secrets_of(applier.namespace);
    let guard = one_at_a_time.lock().await;
    // Keys may have to be made.
    let planned = block_in_place(|| secrets::plan(pool, config, &held, scene.now));
    let mounted = match planned {
        Ok(planned) => {
            let whole = write_secrets(applier, &planned, written).await;
            written.diagnostics = planned.diagnostics;
            written.certificate = Some(Ok(planned.certificate));
            whole.then_some(planned.mounted)
        }
        Err(error) => {
            written.certificate = Some(Err(error));
            None
        }
    };
    drop(guard);
    let whole = write_children(applier, scene, pool, config, written).await;
    if let (Some(mounted), true) = (mounted, whole) {
        let generation = read::written(&context.caches, applier.namespace, &config.pool);
        let print = print_of_mounted(generation.unwrap_or(0), &mounted);
        let hurried = applier.hurry(&print).await;
        written.note(hurried);
    }
}

/// In order, until one fails: what is issued from what was not kept is void.
async fn write_secrets(
    applier: &Applier<'_>,
    planned: &SecretsPlan,
    written: &mut Written,
) -> bool {
    for (entry, material) in &planned.entries {
        let done = applier.secret(entry, material).await;
        if !written.note(done.map(|_| ())) {
            return false;
        }
    }
    let done = applier.child(&planned.internal_ca).await;
    written.note(done.map(|_| ()))
}

async fn write_children(
    applier: &Applier<'_>,
    scene: &Scene,
    pool: Option<&EdgePool>,
    config: &EdgeConfig,
    written: &mut Written,
) -> bool {
    let Some(pool) = pool else {
        return write_document(applier, config, written).await;
    };
    let context = applier.context;
    let image = context
        .settings
        .proxy_image
        .as_deref()
        .unwrap_or(read::DEFAULT_PROXY_IMAGE);
    let rollouts = read::rollouts(scene, &context.caches, image);
    let claim = names::contacts_volume(&config.pool);
    let volume = context.caches.volumes.get(applier.namespace, &claim);
    let facts = Facts {
        proxy_image: image,
        operator: Some(read::operator_peer(&context.namespace)),
        database: read::database_of(&scene.world, pool),
        volume: volume.as_deref(),
        written: read::written(&context.caches, applier.namespace, &config.pool),
        after: after(&rollouts, &config.pool),
    };
    let plan = plan::plan(pool, config, &facts);
    written.unwritten = plan.too_large.as_ref().map(too_large);
    written.held_by.clone_from(&plan.held_by);
    let not_allowed = validate::not_allowed(config, context.settings.allowed_domains.as_ref());
    let mut whole = true;
    for (kind, name) in &plan.absent {
        let done = applier.delete(*kind, name).await;
        whole &= written.note(done);
    }
    for child in &plan.children {
        if child.kind() == ChildKind::Certificate {
            write_certificate(applier, child, &not_allowed, scene.now, written).await;
            continue;
        }
        let done = match child {
            Child::Deployment(deployment) if plan.held_by.is_some() => {
                let name = deployment.metadata.name.as_deref().unwrap_or_default();
                applier.replicas(name, pool.spec.replicas).await
            }
            child => applier.child(child).await.map(|_| ()),
        };
        whole &= written.note(done);
    }
    whole
}

/// The Certificate of cert-manager; what is wrong with it is the certificate's condition.
async fn write_certificate(
    applier: &Applier<'_>,
    child: &Child,
    not_allowed: &[xmpp_edge_crds::domain::DomainName],
    now: Timestamp,
    written: &mut Written,
) {
    if !not_allowed.is_empty() {
        let fault = validate::not_allowed_fault(not_allowed, applier.namespace);
        written.certificate_refused = Some(fault);
        return;
    }
    let context = applier.context;
    let certificates = &context.pools.certificates;
    match applier.child(child).await {
        Ok(_) => {
            certificates.follow(&context.client, &context.caches, applier.namespace);
            let progress = certificates.progress(applier.namespace, child.name());
            if let (Some(Ok(provision)), Some(progress)) = (&mut written.certificate, progress) {
                provision.told(child.name(), progress, now);
            }
        }
        Err(error @ ApplyError::KindMissing { .. }) => {
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

/// The document alone, of a pool that cannot be read.
async fn write_document(applier: &Applier<'_>, config: &EdgeConfig, written: &mut Written) -> bool {
    let caches = &applier.context.caches;
    if read::written(caches, applier.namespace, &config.pool) == Some(config.generation) {
        return true;
    }
    let mut whole = true;
    match plan::shards::plan(applier.pool, config) {
        Ok(shards) => {
            for name in plan::shards::surplus(&config.pool, shards.len()) {
                let done = applier.delete(ChildKind::ConfigMap, &name).await;
                whole &= written.note(done);
            }
            for shard in &shards {
                let done = applier.child(shard).await;
                whole &= written.note(done.map(|_| ()));
            }
        }
        Err(error) => written.unwritten = Some(too_large(&error)),
    }
    whole
}

fn too_large(error: &xmpp_edge_crds::edge_config::shards::EncodeError) -> Fault {
    Fault::new(Reason::ConfigTooLarge, error.to_string())
}

fn after(rollouts: &[Rollout<'_>], pool: &str) -> Option<String> {
    let mine = rollouts.iter().find(|rollout| rollout.pool == pool)?;
    rollout::held_by(mine, rollouts).map(str::to_owned)
}

/// Records: by the operator's own updates, by external-dns, or both.
fn look_at_dns(
    context: &Context,
    scene: &Scene,
    pool: &EdgePool,
    config: &EdgeConfig,
) -> publish::Look {
    let namespace = scene.namespace.as_str();
    let service = names::external_service(&config.pool);
    let service = context.caches.services.get(namespace, &service);
    let allowed = context.settings.allowed_domains.as_ref();
    let found = publish::Pool {
        pool,
        ready_replicas: ready_replicas(context, namespace, &config.pool),
        service: service.as_deref(),
        not_allowed: &validate::not_allowed(config, allowed),
    };
    let mut look = context.pools.publications.look(context, namespace, &found);
    if let Some((said, again)) = context.pools.endpoints.look(context, scene, pool) {
        look.again = Some(look.again.map_or(again, |it| it.min(again)));
        let dns = pool.spec.dns.as_ref();
        // With both, what is wrong outweighs.
        if dns.is_none_or(|dns| dns.rfc2136.is_none()) || said.state != State::True {
            look.condition = said;
        }
    }
    // What was not asked for is neither published nor withdrawn by anybody's wish.
    if pool.spec.dns.is_some() && !found.not_allowed.is_empty() {
        let fault = validate::not_allowed_fault(found.not_allowed, namespace);
        let kind = ConditionType::DnsPublished;
        look.condition = Wanted::new(kind, false, fault.reason, fault.message);
    }
    look
}

/// What one look found beside what was written.
struct Found<'a> {
    rejected: Option<&'a Fault>,
    /// The generation whose shards are in place.
    in_place: Option<u64>,
    dns: Option<&'a publish::Look>,
}

/// Hands in the status where it differs, and says the metrics.
fn report(
    context: &Context,
    scene: &Scene,
    object: &Arc<Loose<EdgePool>>,
    looked: &Found<'_>,
    written: &Written,
) {
    let dns = looked.dns;
    let name = object.name_any();
    let namespace = scene.namespace.as_str();
    let reference = ObjectRef::new(Kind::EdgePool, &name);
    let pool = read::readable(scene, &name);
    let old = status_of(object);
    let deployment = context
        .caches
        .deployments
        .get(namespace, &names::workload(&name));
    let failed = match &written.certificate {
        Some(Err(error)) => error.to_string(),
        _ => String::new(),
    };
    let certificate = match (&written.certificate, &written.certificate_refused) {
        // What is in use may still be good; what is wrong with the next is told when it is not.
        (Some(Ok(provision)), Some(fault)) if !provision.condition(scene.now).0 => {
            Certificate::Failed(fault.reason, &fault.message)
        }
        (Some(Ok(provision)), _) => Certificate::Provided(provision),
        (Some(Err(_)), _) => Certificate::Failed(Reason::InvalidCertificate, &failed),
        (None, _) => Certificate::None,
    };
    let mut diagnostics: Vec<&Diagnostic> = scene.diagnostics(&reference).iter().collect();
    diagnostics.extend(&written.diagnostics);
    let found = Findings {
        name: &name,
        generation: object.meta().generation,
        pool,
        written: looked.in_place,
        unwritten: written.unwritten.as_ref(),
        diagnostics,
        rejected: looked.rejected,
        certificate,
        deployment: deployment.as_deref(),
        addresses: dns.map_or_else(
            || old.addresses.clone(),
            |dns| dns.addresses.iter().take(64).cloned().collect(),
        ),
        report: scene.reports.get(&name),
        facts: scene.facts.get(&name),
        dns: dns.map_or_else(|| dns_as_it_was(&old), |dns| dns.condition.clone()),
        refused: written.refused.clone(),
        held_by: written.held_by.as_deref(),
        now: scene.now,
    };
    let new = status::status(&old, &found);
    measure(context, namespace, &name, &new);
    let key = (namespace.to_owned(), name.clone());
    let mut pools = context.pools.pools.lock();
    let remembered = pools.entry(key).or_default();
    if !status::is_due(&old, &new, remembered.counted, scene.now) {
        return;
    }
    remembered.counted = Some(scene.now);
    drop(pools);
    AUTHOR.hand_in(context, object, &old, new);
}

fn status_of(object: &Loose<EdgePool>) -> PoolStatus {
    match object {
        Loose::Read(pool) => pool.status.clone().unwrap_or_default(),
        Loose::Unreadable(object) => {
            serde_json::from_value(object.status.clone()).unwrap_or_default()
        }
    }
}

/// Of a pool that is not in force or cannot be read: as it was.
fn dns_as_it_was(old: &PoolStatus) -> Wanted {
    let kind = ConditionType::DnsPublished;
    conditions::kept(&old.conditions, kind).unwrap_or_else(|| {
        let message = "the pool is not accepted";
        Wanted::new(kind, State::Unknown, Reason::NotAccepted, message)
    })
}

fn measure(context: &Context, namespace: &str, name: &str, status: &PoolStatus) {
    let of = OfPool {
        namespace: namespace.to_owned(),
        pool: name.to_owned(),
    };
    let metrics = &context.metrics;
    metrics
        .pool_ready_replicas
        .get_or_create(&of)
        .set(status.ready_replicas.into());
    if let Some(certificate) = &status.certificate {
        metrics
            .certificate_not_after
            .get_or_create(&of)
            .set(certificate.not_after.0.as_second());
    }
}
