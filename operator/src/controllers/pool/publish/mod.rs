//! A pool's records in DNS by RFC 2136: what the [`DnsController`] is to do for it, and the finalizer
//! that withdraws them.
//!
//! What is remembered of records are annotations of the pool, written together with the finalizer
//! before anything is published: who deletes the pool, or a restarted operator, finds all again.

pub mod finalizer;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::{Duration, Instant},
};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Client, Resource, ResourceExt,
    core::{PartialObjectMeta, PartialObjectMetaExt},
};
use parking_lot::Mutex;
use xmpp_edge_crds::{
    domain::DomainName,
    kinds::{
        EdgePool, PoolSpec,
        conditions::{ConditionType, Reason},
        pool::Rfc2136,
    },
};

use self::finalizer::{Finalization, is_marked, is_skipped, mark, remembered};
use super::validate;
use crate::{
    controllers::namespace::snapshot::Context,
    dns::{
        Availability, DnsError, DnsMemory, Publisher, RecordOwner, UpdateSettings,
        addresses::Ingress,
        backend::pool_records::{
            AddressSource, KeepMemory, PoolRecordsBackend, PoolRecordsOutcome, PoolRecordsTask,
        },
        controller::{DnsController, DnsProgress},
        hold_down::HoldDown,
    },
    runtime::decoded::Decoded,
    status::condition::{ConditionStatus, DesiredCondition},
};

/// A pool that is deleted waits for DNS no longer than this, by the API server's clock, which dated it.
const LONGEST: SignedDuration = SignedDuration::from_mins(10);
/// While a pool waits to be let go.
const RETRY: Duration = Duration::from_secs(5);

/// What is published for all pools of all namespaces.
#[derive(Default)]
pub struct PoolDns {
    records: DnsController<PoolKey, PoolRecordsBackend<Annotations>>,
    held: Mutex<HashMap<(String, String), HoldDown>>,
}

impl fmt::Debug for PoolDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolDns").finish_non_exhaustive()
    }
}

/// A pool; another one of its name starts anew.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PoolKey {
    namespace: String,
    pool: String,
    uid: Option<String>,
}

/// What one look came to.
#[derive(Debug)]
pub struct PoolDnsInput {
    pub condition: DesiredCondition,
    /// When to look again.
    pub again: Option<Duration>,
    /// Addresses of the FQDN, as far as they are known.
    pub addresses: Vec<String>,
}

/// How a pool stands for DNS.
#[derive(Debug)]
pub struct PoolRecords<'a> {
    pub pool: &'a EdgePool,
    pub ready_replicas: i32,
    /// The Service that partners reach.
    pub service: Option<&'a Service>,
    /// Names that the namespace may not have.
    pub not_allowed: &'a [DomainName],
    /// Domains for which the pool has no way inside, and another pool has.
    pub stranded: BTreeSet<DomainName>,
}

/// How far the deletion of a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// When to look again; `None` once nothing holds it.
    pub again: Option<Duration>,
    /// Why its records are in DNS still; empty where it is not known yet.
    pub refusal: String,
}

impl Leave {
    pub(super) fn later(refusal: String) -> Self {
        Self {
            again: Some(RETRY),
            refusal,
        }
    }

    /// Something else keeps it too.
    pub(super) fn refuse(&mut self, why: &str) {
        if !self.refusal.is_empty() {
            self.refusal.push_str(". ");
        }
        self.refusal.push_str(why);
    }

    fn once(went: bool) -> Self {
        if went {
            Self::default()
        } else {
            Self::later("the API server does not take the finalizer off".to_owned())
        }
    }
}

/// Who keeps a pool beside this operator: the finalizers that are not its own.
#[must_use]
pub fn others_finalizers(pool: &impl ResourceExt) -> Vec<&str> {
    let finalizers = pool.finalizers().iter().map(String::as_str);
    finalizers
        .filter(|it| *it != finalizer::FINALIZER)
        .collect()
}

/// How the records of a pool were published, as far as that can be read of it.
fn backend_of(pool: &Decoded<EdgePool>) -> Option<Rfc2136> {
    match pool {
        Decoded::Valid(pool) => pool.spec.dns.as_ref()?.rfc2136.clone(),
        Decoded::Undecodable(pool) => {
            let backend = pool.spec.pointer("/dns/rfc2136")?;
            serde_json::from_value(backend.clone()).ok()
        }
    }
}

impl PoolDns {
    /// Starts what there is to do for a pool that stays, and says how far it is.
    pub fn look(
        &self,
        context: &Context,
        namespace: &str,
        found: &PoolRecords<'_>,
    ) -> PoolDnsInput {
        let pool = found.pool;
        let spec = &pool.spec;
        let kind = ConditionType::DnsPublished;
        let plain = |condition| PoolDnsInput {
            condition,
            again: None,
            addresses: given_addresses(found),
        };
        let backend = spec.dns.as_ref().and_then(|dns| dns.rfc2136.as_ref());
        let may_be_there = is_marked(pool) || remembered(pool).source.is_some();
        if backend.is_none() && !may_be_there {
            if spec.dns.is_none() {
                context.dns_metrics.forget(namespace, &pool.name_any());
            }
            return plain(match &spec.dns {
                None => not_managed(),
                Some(_) => DesiredCondition::new(
                    kind,
                    ConditionStatus::Unknown,
                    Reason::Pending,
                    "nothing is known of the records yet",
                ),
            });
        }
        let Some(owner) = owner(context, pool, namespace) else {
            let message = "the records cannot be marked as this operator's: grant `get` on its namespace, or set --dns-owner-id";
            return plain(DesiredCondition::new(
                kind,
                false,
                Reason::DnsFailed,
                message,
            ));
        };
        let forbidden = !found.not_allowed.is_empty();
        let fault = || {
            let fault = validate::not_allowed_fault(found.not_allowed, namespace);
            DesiredCondition::new(kind, false, fault.reason, fault.message)
        };
        if forbidden && !may_be_there {
            return plain(fault());
        }
        let name = pool.name_any();
        let (availability, held) = self.availability(namespace, &name, spec, found.ready_replicas);
        let task = match backend {
            Some(backend) if !forbidden => PoolRecordsTask::Publish {
                spec: Box::new(spec.clone()),
                availability,
                stranded: found.stranded.clone(),
                addresses: AddressSource::Balancer(ingress(found.service)),
                settings: Some(settings(context, namespace, backend)),
            },
            _ => withdrawal(context, namespace, pool, backend.cloned(), false),
        };
        let progress = self.start(context, namespace, pool, owner, task);
        let mut look = PoolDnsInput {
            condition: said(progress.outcome.as_ref()),
            again: progress.again.into_iter().chain(held).min(),
            addresses: progress
                .outcome
                .as_ref()
                .map_or_else(Vec::new, |outcome| outcome.addresses.clone()),
        };
        if look.addresses.is_empty() {
            look.addresses = given_addresses(found);
        }
        if let Some(held) = held.filter(|_| look.condition.state == ConditionStatus::True) {
            look.condition.message = format!(
                "its pods came and went: led to again in {} s, if they stay; {}",
                held.as_secs() + 1,
                look.condition.message
            );
        }
        if forbidden {
            look.condition = fault();
        } else if backend.is_none() && spec.dns.is_none() {
            // Told once it is not so: records that cannot be withdrawn are a fault.
            let failed = progress.is_current
                && progress
                    .outcome
                    .is_some_and(|outcome| outcome.report.is_err() || outcome.is_remembered);
            if !failed {
                look.condition = not_managed();
            }
        }
        look
    }

    /// What a pool counts as, by the switches of its spec, its pods, and how often these came and went.
    /// With the time after which that may be another.
    pub fn availability(
        &self,
        namespace: &str,
        pool: &str,
        spec: &PoolSpec,
        ready_replicas: i32,
    ) -> (Availability, Option<Duration>) {
        let seen = Availability::of(spec, ready_replicas);
        let mut held = self.held.lock();
        let held = held
            .entry((namespace.to_owned(), pool.to_owned()))
            .or_default();
        held.observe(seen, Instant::now())
    }

    /// A pool that is being deleted: withdraws its records, then lets it go. Of one that cannot be
    /// decoded the metadata is enough: its records are withdrawn where its keys are known.
    pub async fn leave(
        &self,
        context: &Context,
        namespace: &str,
        pool: &Decoded<EdgePool>,
    ) -> Leave {
        if !is_marked(pool) {
            return Leave::default();
        }
        let metadata = pool.meta().clone().into_response_partial();
        let leaving = Finalization {
            client: &context.client,
            metrics: &context.dns_metrics,
            events: &context.events,
            namespace,
            pool: &metadata,
        };
        let owner = owner(context, pool, namespace);
        let deleted = pool.meta().deletion_timestamp.as_ref().map(|time| time.0);
        let waited = deleted.and_then(|at| context.server_clock.since(at));
        let late = waited.is_some_and(|waited| waited >= LONGEST);
        let skipped = is_skipped(pool);
        let (Some(owner), false, false) = (owner, late, skipped) else {
            let why = if skipped {
                "as its annotation asks"
            } else if late {
                "as DNS did not take the withdrawal within 10 minutes"
            } else {
                "as the operator has no owner id"
            };
            return Leave::once(leaving.leave_records(why).await);
        };
        let task = withdrawal(context, namespace, pool, backend_of(pool), true);
        let progress = self.start(context, namespace, pool, owner, task);
        let Some(outcome) = progress.outcome.filter(|outcome| outcome.is_final) else {
            return Leave::later(String::new());
        };
        if progress.is_current && !outcome.is_remembered {
            return Leave::once(leaving.remove_finalizer().await);
        }
        let errors = match &outcome.report {
            Ok(report) => report.errors(),
            Err(error) => return Leave::later(error.clone()),
        };
        let ruled_out = errors.iter().find_map(|error| error.rules_out_withdrawal());
        if progress.is_current
            && let Some(why) = ruled_out
        {
            return Leave::once(leaving.leave_records(why).await);
        }
        Leave::later(errors.first().map(ToString::to_string).unwrap_or_default())
    }

    /// As [`DnsController::shutdown`].
    pub async fn shutdown(&self) {
        self.records.shutdown().await;
    }

    /// Forgets pools of a namespace that are not there any more.
    pub fn forget(&self, namespace: &str, exists: impl Fn(&str) -> bool) {
        self.records
            .retain(|key| key.namespace != namespace || exists(&key.pool));
        self.held
            .lock()
            .retain(|(of, pool), _| of != namespace || exists(pool));
    }

    fn start(
        &self,
        context: &Context,
        namespace: &str,
        pool: &impl ResourceExt,
        owner: RecordOwner,
        task: PoolRecordsTask,
    ) -> DnsProgress<PoolRecordsOutcome> {
        let key = PoolKey {
            namespace: namespace.to_owned(),
            pool: pool.name_any(),
            uid: pool.uid(),
        };
        let backend = || {
            let memory = remembered(pool);
            // Where something is missing, all is written again.
            let is_whole = is_marked(pool) != memory.places.is_empty()
                && memory.source.is_some() != memory.places.is_empty();
            let kept = is_whole.then(|| memory.clone());
            let annotations = Annotations {
                client: context.client.clone(),
                namespace: namespace.to_owned(),
                pool: pool.meta().clone().into_response_partial(),
            };
            let publisher = Publisher::new(owner, memory);
            PoolRecordsBackend::new(publisher, annotations, kept, context.dns_metrics.clone())
        };
        let (caches, touched) = (context.caches.clone(), namespace.to_owned());
        let wake = move || caches.triggers.enqueue(&touched);
        self.records.look(&key, backend, task, wake)
    }
}

/// The pool's own metadata: the finalizer, and where its records are.
struct Annotations {
    client: Client,
    namespace: String,
    pool: PartialObjectMeta<EdgePool>,
}

impl KeepMemory for Annotations {
    async fn keep(&mut self, memory: &DnsMemory) -> Result<(), String> {
        let memory = (!memory.places.is_empty()).then_some(memory);
        mark(&self.client, &self.namespace, &self.pool, memory)
            .await
            .map_err(|error| format!("the finalizer could not be written: {error}"))
    }
}

fn not_managed() -> DesiredCondition {
    DesiredCondition::new(
        ConditionType::DnsPublished,
        true,
        Reason::NotManaged,
        "publish the records of status.srvRecords",
    )
}

/// In whose name: as long as records of the pool may be there, in the name in which they were
/// published, whoever installed the operator that did so.
fn owner(context: &Context, pool: &impl ResourceExt, namespace: &str) -> Option<RecordOwner> {
    let published = remembered(pool).source.map(|source| source.owner);
    let owner = published.or_else(|| context.dns_owner_id.clone())?;
    Some(RecordOwner {
        owner: owner.parse().ok()?,
        namespace: namespace.to_owned(),
        pool: pool.name_any(),
    })
}

/// Nothing of the pool is to stay; by the server of its spec, else by the one that took the records.
fn withdrawal(
    context: &Context,
    namespace: &str,
    pool: &impl ResourceExt,
    backend: Option<Rfc2136>,
    is_final: bool,
) -> PoolRecordsTask {
    let backend = backend.or_else(|| remembered(pool).source.map(|source| source.rfc2136));
    PoolRecordsTask::Withdraw {
        settings: backend.map(|backend| settings(context, namespace, &backend)),
        is_final,
    }
}

fn settings(
    context: &Context,
    namespace: &str,
    backend: &Rfc2136,
) -> Result<UpdateSettings, DnsError> {
    if !context.settings.allows_dns_server(&backend.server) {
        let server = backend.server.clone();
        return Err(DnsError::ServerNotAllowed { server });
    }
    let secret = &backend.tsig_secret_ref.name;
    let secret = context.caches.secrets.get(namespace, secret);
    let secret = secret.map_err(|error| DnsError::KeyUnread(error.to_string()))?;
    let material = secret.map(|secret| crate::controllers::namespace::inputs::material(&secret));
    UpdateSettings::read(backend, material.as_ref())
}

/// Name of the Secret with the key by which records of the pool were published last.
#[must_use]
pub fn key_of_records(pool: &impl ResourceExt) -> Option<String> {
    let source = remembered(pool).source?;
    Some(source.rfc2136.tsig_secret_ref.name)
}

/// What a load balancer has.
#[must_use]
pub fn ingress(service: Option<&Service>) -> Vec<Ingress> {
    let (addresses, hosts) = super::read::balancer(service);
    let addresses = addresses.iter().filter_map(|text| text.parse().ok());
    addresses
        .map(Ingress::Ip)
        .chain(hosts.into_iter().map(Ingress::HostName))
        .collect()
}

/// The spec's addresses, else those of the load balancer that are no names.
fn given_addresses(found: &PoolRecords<'_>) -> Vec<String> {
    let given = found.pool.spec.access_edge.addresses.clone();
    given.unwrap_or_else(|| super::read::balancer(found.service).0)
}

fn said(outcome: Option<&PoolRecordsOutcome>) -> DesiredCondition {
    let kind = ConditionType::DnsPublished;
    match outcome.map(|outcome| &outcome.report) {
        None => DesiredCondition::new(
            kind,
            ConditionStatus::Unknown,
            Reason::Pending,
            "the records are being published",
        ),
        Some(Ok(report)) => {
            let said = report.condition();
            DesiredCondition::new(kind, said.status, said.reason, said.message)
        }
        Some(Err(message)) => DesiredCondition::new(kind, false, Reason::DnsFailed, message),
    }
}

#[cfg(test)]
mod tests;
