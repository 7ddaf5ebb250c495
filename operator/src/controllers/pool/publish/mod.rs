//! A pool's records in DNS by RFC 2136: what the [`DnsController`] is to do for it, and the finalizer
//! that withdraws them.
//!
//! What is remembered of records are annotations of the pool, written together with the finalizer
//! before anything is published: who deletes the pool, or a restarted operator, finds all again.

pub mod finalizer;
mod leaving;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Client, ResourceExt,
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

pub use self::leaving::{Leave, others_finalizers};
use self::{
    finalizer::{is_marked, mark, remembered},
    leaving::Refusals,
};
use super::validate;
use crate::{
    controllers::namespace::snapshot::Context,
    dns::{
        Availability, DnsError, DnsMemory, Publisher, RecordOwner, UpdateSettings,
        addresses::{Ingress, of_partners},
        backend::pool_records::{
            AddressSource, KeepMemory, PoolRecordsBackend, PoolRecordsOutcome, PoolRecordsTask,
        },
        controller::{DnsController, DnsProgress},
        hold_down::HoldDown,
    },
    status::condition::{ConditionStatus, DesiredCondition},
};

/// What is published for all pools of all namespaces.
#[derive(Default)]
pub struct PoolDns {
    records: DnsController<PoolKey, PoolRecordsBackend<Annotations>>,
    held: Mutex<HashMap<(String, String), HoldDown>>,
    /// Why pools that may go are there still.
    refusals: Refusals,
}

impl fmt::Debug for PoolDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolDns").finish_non_exhaustive()
    }
}

/// A pool; another one of its name starts anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PoolKey {
    namespace: String,
    pool: String,
    uid: Option<String>,
}

impl PoolKey {
    fn of(namespace: &str, pool: &impl ResourceExt) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pool: pool.name_any(),
            uid: pool.uid(),
        }
    }
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
        let key = PoolKey::of(namespace, pool);
        let known = self.known(&key, pool);
        let may_be_there = is_marked(pool) || known.source.is_some();
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
        let Some(owner) = owner(context, &key, &known) else {
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
                is_kept: is_whole(pool, &known),
            },
            _ => PoolRecordsTask::Withdraw {
                settings: withdraws_by(context, namespace, backend.cloned(), &known),
                is_kept: is_whole(pool, &known),
                is_final: false,
            },
        };
        let progress = self.start(context, &key, pool, owner, task);
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
                    .is_some_and(|outcome| outcome.report.is_err() || outcome.is_remembered());
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
        self.refusals
            .retain(|key| key.namespace != namespace || exists(&key.pool));
    }

    /// What is known of the pool's records: what its backend remembers, whatever became of the annotations, else
    /// what these do.
    fn known(&self, key: &PoolKey, pool: &impl ResourceExt) -> DnsMemory {
        let last = self.records.last(key);
        last.map_or_else(|| remembered(pool), |outcome| outcome.memory)
    }

    fn start(
        &self,
        context: &Context,
        key: &PoolKey,
        pool: &impl ResourceExt,
        owner: RecordOwner,
        task: PoolRecordsTask,
    ) -> DnsProgress<PoolRecordsOutcome> {
        let backend = || {
            let annotations = Annotations {
                client: context.client.clone(),
                namespace: key.namespace.clone(),
                pool: pool.meta().clone().into_response_partial(),
            };
            let publisher = Publisher::new(owner, remembered(pool));
            PoolRecordsBackend::new(publisher, annotations, context.dns_metrics.clone())
        };
        let (caches, touched) = (context.caches.clone(), key.namespace.clone());
        let wake = move || caches.triggers.enqueue(&touched);
        self.records.look(key, backend, task, wake)
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

/// Whether finalizer and annotations say what is known. `kubectl replace` with a manifest of before takes them away, or
/// brings older ones back: then all of it is written again.
fn is_whole(pool: &impl ResourceExt, known: &DnsMemory) -> bool {
    let is_there = !known.places.is_empty();
    is_marked(pool) == is_there && known.source.is_some() == is_there && remembered(pool) == *known
}

/// In whose name: as long as records of the pool may be there, in the name in which they were
/// published, whoever installed the operator that did so.
fn owner(context: &Context, key: &PoolKey, known: &DnsMemory) -> Option<RecordOwner> {
    let published = known.source.as_ref().map(|source| source.owner.clone());
    let owner = published.or_else(|| context.dns_owner_id.clone())?;
    Some(RecordOwner {
        owner: owner.parse().ok()?,
        namespace: key.namespace.clone(),
        pool: key.pool.clone(),
    })
}

/// By what nothing of the pool stays: the server of its spec, else the one that took the records.
fn withdraws_by(
    context: &Context,
    namespace: &str,
    backend: Option<Rfc2136>,
    known: &DnsMemory,
) -> Option<Result<UpdateSettings, DnsError>> {
    let taken = || known.source.as_ref().map(|source| source.rfc2136.clone());
    let backend = backend.or_else(taken)?;
    Some(settings(context, namespace, &backend))
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

/// The spec's addresses, else those of the load balancer that are no names and that partners are told.
fn given_addresses(found: &PoolRecords<'_>) -> Vec<String> {
    let given = found.pool.spec.access_edge.addresses.clone();
    given.unwrap_or_else(|| {
        let ingress = ingress(found.service).into_iter();
        let addresses = ingress.filter_map(|it| match it {
            Ingress::Ip(ip) => Some(ip),
            Ingress::HostName(_) => None,
        });
        let told = of_partners(addresses.collect());
        told.iter().map(ToString::to_string).collect()
    })
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
