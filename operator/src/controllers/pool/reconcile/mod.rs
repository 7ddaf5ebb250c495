//! One look at one pool: the five words, one after the other.

mod deletion;
mod unread;

use std::{sync::Arc, time::Duration};

use kube::{Resource, ResourceExt};
use tokio::time::timeout;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::EdgeConfig,
    kinds::{
        EdgePool, PoolStatus,
        conditions::{ConditionType, Reason},
    },
};

pub use self::unread::reconcile_unread;
use super::{
    apply::{Applier, ApplyError},
    blocked, in_force,
    memory::PoolMemory,
    plan::names,
    provision::{self, ApplyOutcome},
    publish, read,
    sidecar_secrets::{IdentityState, SidecarIdentity},
    status::{self, Certificate, Findings},
    validate,
};
use crate::{
    compile::{Diagnostic, Kind, ObjectRef},
    controllers::namespace::snapshot::{Context, NamespaceSnapshot, PoolOutcome},
    proxy_status::ownership::pods_of,
    runtime::{decoded::Decoded, metrics::OfPool},
    status::{
        apply::StatusWriter,
        condition::{self, ConditionStatus, DesiredCondition},
    },
    text,
};

/// Field manager of a pool's status.
const STATUS_WRITER: StatusWriter<EdgePool> = StatusWriter {
    kind: "EdgePool",
    manager: "xmpp-edge-operator/pool-status",
    table: |caches| &caches.pools,
};
/// Certificates are looked at this often although nothing changes: the shortest of ours lives seven
/// days.
const RENEWALS: Duration = Duration::from_secs(3600);
/// What was refused may be taken once somebody else did something.
const REFUSED: Duration = Duration::from_secs(60);
/// One look at a pool writes no longer than this. Each call is bounded too, but there are many of them,
/// and the namespace's other objects wait.
const LONGEST: Duration = Duration::from_secs(50);

/// Provisions one pool as far as it can be, and writes its status.
///
/// # Errors
/// Failures of infrastructure: it is to be tried again with backoff. What is wrong with the spec,
/// or refused by the API server, is a condition.
pub async fn reconcile(
    context: &Context,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    name: &str,
) -> Result<PoolOutcome, ApplyError> {
    reconcile_within(LONGEST, context, memory, scene, name).await
}

/// As [`reconcile`]; what is not written within `longest` is a failure that the status tells as any other.
async fn reconcile_within(
    longest: Duration,
    context: &Context,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    name: &str,
) -> Result<PoolOutcome, ApplyError> {
    let namespace = scene.namespace.as_str();
    let Some(object) = context.caches.pools.get(namespace, name) else {
        return Ok(PoolOutcome::default());
    };
    if object.meta().deletion_timestamp.is_some() {
        return deletion::leave(longest, context, memory, scene, &object).await;
    }
    let pool = read::readable(scene, name);
    let config = scene.config(name);
    let mut written = ApplyOutcome::default();
    if let Some(config) = config {
        // A pool that cannot be read keeps its pods as they are; its document and certificates
        // are kept up.
        let applier = Applier {
            context,
            applied: &memory.applied,
            certificates: &memory.certificates,
            pool: &object,
            namespace,
        };
        let writes = provision::write(&applier, memory, scene, pool, config, &mut written);
        if timeout(longest, writes).await.is_err() {
            written.late(longest);
        }
    }
    let in_place = read::written(
        &context.caches,
        &memory.written(namespace, name),
        namespace,
        name,
    );
    let in_force = pool.zip(config);
    let in_force = in_force.map(|(pool, config)| in_force::of(pool, config));
    let dns = match (&in_force, config) {
        (Some(pool), Some(config)) => Some(look_at_dns(context, memory, scene, pool, config)),
        _ => None,
    };
    let found = Found {
        pool: in_force.as_ref().or(pool),
        compiled: config.map(|it| it.generation),
        in_place,
        dns: dns.as_ref(),
    };
    report(context, memory, scene, &object, &found, &written);
    if let Some(error) = written.failed {
        return Err(error);
    }
    let lacks = |identity: &SidecarIdentity| matches!(identity.state, IdentityState::Refused(_));
    let identities = written.identities.as_deref().unwrap_or_default();
    let again = if written.refused.is_empty() && !identities.iter().any(lacks) {
        RENEWALS
    } else {
        // Some of it may have been kept from being tried by what was refused before it.
        let retry = memory.applied.retry(namespace, name);
        retry.unwrap_or(REFUSED).min(REFUSED)
    };
    let dns = dns.and_then(|dns| dns.again);
    Ok(PoolOutcome {
        unwritten: written.unwritten,
        again: Some(dns.map_or(again, |dns| dns.min(again))),
    })
}

/// Records of a pool as it is in force: by the operator's own updates, by external-dns, or both.
fn look_at_dns(
    context: &Context,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    pool: &EdgePool,
    config: &EdgeConfig,
) -> publish::PoolDnsInput {
    let namespace = scene.namespace.as_str();
    let service = names::external_service(&config.pool);
    let service = context.caches.services.get(namespace, &service);
    let allowed = context.settings.allowed_domains.as_ref();
    let found = publish::PoolRecords {
        pool,
        ready_replicas: read::ready_replicas(&context.caches, namespace, &config.pool),
        service: service.as_deref(),
        not_allowed: &validate::not_allowed(config, allowed),
        stranded: scene
            .stranded
            .get(&config.pool)
            .cloned()
            .unwrap_or_default(),
    };
    let mut look = memory.publications.look(context, namespace, &found);
    if let Some((said, again)) = memory
        .endpoints
        .look(context, &memory.publications, scene, pool)
    {
        look.again = Some(look.again.map_or(again, |it| it.min(again)));
        let dns = pool.spec.dns.as_ref();
        // With both, what is wrong outweighs.
        if dns.is_none_or(|dns| dns.rfc2136.is_none()) || said.state != ConditionStatus::True {
            look.condition = said;
        }
    }
    if !found.stranded.is_empty() && look.condition.state == ConditionStatus::True {
        let domains = text::listed(found.stranded.iter().map(DomainName::as_str));
        look.condition.message = format!(
            "no sidecar is connected here, and one is to another pool, so the SRV records are withdrawn of {domains}; {}",
            look.condition.message
        );
    }
    // What was not asked for is neither published nor withdrawn by anybody's wish.
    if pool.spec.dns.is_some() && !found.not_allowed.is_empty() {
        let fault = validate::not_allowed_fault(found.not_allowed, namespace);
        let kind = ConditionType::DnsPublished;
        look.condition = DesiredCondition::new(kind, false, fault.reason, fault.message);
    }
    look
}

/// What one look found beside what was written.
struct Found<'a> {
    /// As it is in force.
    pool: Option<&'a EdgePool>,
    compiled: Option<u64>,
    /// The generation whose shards are in place.
    in_place: Option<u64>,
    dns: Option<&'a publish::PoolDnsInput>,
}

/// Hands in the status where it differs, and says the metrics.
fn report(
    context: &Context,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    object: &Arc<Decoded<EdgePool>>,
    looked: &Found<'_>,
    written: &ApplyOutcome,
) {
    let dns = looked.dns;
    let name = object.name_any();
    let namespace = scene.namespace.as_str();
    let reference = ObjectRef::new(Kind::EdgePool, &name);
    let pool = looked.pool;
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
        // What could not be kept is nobody's.
        (None, _) if looked.compiled.is_some() => Certificate::NotLooked,
        (None, _) => Certificate::None,
    };
    let mut diagnostics: Vec<&Diagnostic> = scene.diagnostics(&reference).iter().collect();
    diagnostics.extend(&written.diagnostics);
    diagnostics.extend(scene.peer_keys.get(&name));
    let key = (namespace.to_owned(), name.clone());
    let serves = read::ready_replicas(&context.caches, namespace, &name) > 0;
    // Who was overtaken looks again at once, and mostly succeeds.
    let overtaken = matches!(written.failed, Some(ApplyError::Overtaken { .. }));
    let at_once = !serves && !overtaken;
    let is_told = memory.is_told(&key, written.failed.is_some(), at_once, scene.now);
    let failure = written.failed.as_ref().filter(|_| is_told);
    let failure = failure.map(told);
    let pods = pods_of(&context.caches, namespace, &name);
    let blocked = blocked::blocked(deployment.as_deref(), pods.iter().map(AsRef::as_ref));
    let found = Findings {
        name: &name,
        generation: object.meta().generation,
        pool,
        compiled: looked.compiled,
        written: looked.in_place,
        failure: failure.as_deref(),
        blocked: blocked.as_deref(),
        unwritten: written.unwritten.as_ref(),
        diagnostics,
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
        identities: written.identities.as_deref(),
        sidecar_pods: Some(&scene.sidecar_pods),
        held_by: written.held_by.as_deref(),
        now: scene.now,
    };
    let new = status::status(&old, &found);
    measure(context, namespace, &name, &new);
    if let Some(pool) = pool.or_else(|| object.read()) {
        let of = of_pool(namespace, &name);
        let desired = &context.metrics.pool_desired_replicas;
        let replicas = pool.spec.desired_replicas();
        desired.get_or_create(&of).set(replicas.into());
    }
    let mut pools = memory.pools.lock();
    let remembered = pools.entry(key).or_default();
    if !status::is_due(&old, &new, remembered.counted, scene.now) {
        return;
    }
    remembered.counted = Some(scene.now);
    drop(pools);
    STATUS_WRITER.enqueue(&context.statuses, object, &old, new);
}

/// A failure with its causes: the outermost names the object, the innermost what happened.
fn told(error: &ApplyError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    format!("{text}; it is tried again")
}

fn status_of(object: &Decoded<EdgePool>) -> PoolStatus {
    match object {
        Decoded::Valid(pool) => pool.status.clone().unwrap_or_default(),
        Decoded::Undecodable(object) => {
            serde_json::from_value(object.status.clone()).unwrap_or_default()
        }
    }
}

/// Of a pool that is not in force or cannot be read: as it was.
fn dns_as_it_was(old: &PoolStatus) -> DesiredCondition {
    let kind = ConditionType::DnsPublished;
    condition::previous(&old.conditions, kind).unwrap_or_else(|| {
        let message = "the pool is not accepted";
        DesiredCondition::new(kind, ConditionStatus::Unknown, Reason::NotAccepted, message)
    })
}

fn of_pool(namespace: &str, name: &str) -> OfPool {
    OfPool {
        namespace: namespace.to_owned(),
        pool: name.to_owned(),
    }
}

fn measure(context: &Context, namespace: &str, name: &str, status: &PoolStatus) {
    let of = of_pool(namespace, name);
    if let Some(certificate) = &status.certificate {
        context
            .metrics
            .certificate_not_after
            .get_or_create(&of)
            .set(certificate.not_after.0.as_second());
    }
}

#[cfg(test)]
mod tests;
