//! A pool's records in DNS by RFC 2136: handed to the publisher in the background, so that a server
//! that does not answer holds up nothing else; and the finalizer that withdraws them.
//!
//! What is remembered of records is an annotation of the pool, written together with the finalizer
//! before anything is published: who deletes the pool, or a restarted operator, finds all again.

pub mod finalizer;
mod work;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt, core::PartialObjectMetaExt};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use xmpp_edge_crds::{
    domain::DomainName,
    kinds::{
        EdgePool, PoolSpec,
        conditions::{ConditionType, Reason},
        pool::Rfc2136,
    },
};

use self::{
    finalizer::{Finalization, is_marked, is_skipped, remembered},
    work::DnsWork,
};
use super::validate;
use crate::{
    controllers::namespace::snapshot::Context,
    dns::{
        Availability, DnsError, DnsReport, LoadBalancer, Publisher, RecordOwner, UpdateSettings,
        addresses::Ingress,
    },
    runtime::decoded::Decoded,
    status::condition::{ConditionStatus, DesiredCondition},
};

/// A pool that is deleted waits for DNS no longer than this.
const LONGEST: SignedDuration = SignedDuration::from_mins(10);
/// After a failure of the API server, and while a pool waits to be let go.
const RETRY: Duration = Duration::from_secs(5);
/// The longest pause between attempts that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is published for all pools of all namespaces.
#[derive(Default)]
pub struct PoolDns {
    pools: Mutex<HashMap<(String, String), Arc<Publication>>>,
    /// Ends with this.
    tasks: Mutex<JoinSet<()>>,
}

/// Of one pool.
struct Publication {
    /// The pool's: another one of its name starts anew.
    uid: Option<String>,
    seen: Mutex<ObservedService>,
    worker: tokio::sync::Mutex<Worker>,
}

#[derive(Default)]
struct ObservedService {
    busy: bool,
    done: Option<PoolDnsResult>,
    addresses: Vec<String>,
    /// When the records of a pool that is deleted could not be withdrawn, and why.
    refused: Option<Instant>,
    refusal: String,
}

struct PoolDnsResult {
    task: DnsTask,
    outcome: Result<DnsReport, String>,
    at: Instant,
    /// How often it failed in a row, this time included.
    failures: u32,
}

impl PoolDnsResult {
    /// How long it holds, while nothing changes.
    fn holds(&self) -> Duration {
        let once = self.outcome.as_ref().map_or(RETRY, DnsReport::look_again);
        let slower = 1 << self.failures.saturating_sub(1).min(6);
        once.saturating_mul(slower).min(LONGEST_PAUSE)
    }
}

/// What there is to do; the same again is nothing to do.
#[derive(Clone, PartialEq)]
struct DnsTask {
    spec: PoolSpec,
    standing: Availability,
    ingress: Vec<Ingress>,
    settings: Option<Result<UpdateSettings, DnsError>>,
}

struct Worker {
    publisher: Publisher,
    balancer: LoadBalancer,
    /// Whether the finalizer and the places in the annotation are those of the publisher.
    marked: bool,
}

/// What one look came to.
pub struct PoolDnsInput {
    pub condition: DesiredCondition,
    /// When to look again.
    pub again: Option<Duration>,
    /// Addresses of the FQDN, as far as they are known.
    pub addresses: Vec<String>,
}

/// How a pool stands for DNS.
pub struct PoolRecords<'a> {
    pub pool: &'a EdgePool,
    pub ready_replicas: i32,
    /// The Service that partners reach.
    pub service: Option<&'a Service>,
    /// Names that the namespace may not have.
    pub not_allowed: &'a [DomainName],
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
    fn later(again: Duration, refusal: &str) -> Self {
        Self {
            again: Some(again),
            refusal: refusal.to_owned(),
        }
    }
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
        if backend.is_none() && !is_marked(pool) {
            if spec.dns.is_none() {
                context.metrics.dns.forget(namespace, &pool.name_any());
            }
            return plain(match &spec.dns {
                None => DesiredCondition::new(
                    kind,
                    true,
                    Reason::NotManaged,
                    "publish the records of status.srvRecords",
                ),
                Some(_) => DesiredCondition::new(
                    kind,
                    ConditionStatus::Unknown,
                    Reason::Pending,
                    "nothing is known of the records yet",
                ),
            });
        }
        let Some(claim) = claim(context, pool, namespace) else {
            let message = "the records cannot be marked as this operator's: grant `get` on its namespace, or set --dns-owner-id";
            return plain(DesiredCondition::new(
                kind,
                false,
                Reason::DnsFailed,
                message,
            ));
        };
        let forbidden = !found.not_allowed.is_empty();
        let standing = match backend {
            Some(_) if !forbidden => Availability::of(spec, found.ready_replicas),
            _ => Availability::OutOfService,
        };
        if forbidden && !is_marked(pool) {
            let fault = validate::not_allowed_fault(found.not_allowed, namespace);
            return plain(DesiredCondition::new(
                kind,
                false,
                fault.reason,
                fault.message,
            ));
        }
        let task = DnsTask {
            spec: spec.clone(),
            standing,
            ingress: ingress(found.service),
            settings: backend.map(|backend| settings(context, namespace, backend)),
        };
        let publication = self.publication(namespace, pool, claim);
        let seen = publication.seen.lock();
        let due = seen
            .done
            .as_ref()
            .is_none_or(|done| done.task != task || done.at.elapsed() >= done.holds());
        let mut look = PoolDnsInput {
            condition: said(&seen),
            again: seen.done.as_ref().map(PoolDnsResult::holds),
            addresses: seen.addresses.clone(),
        };
        if look.addresses.is_empty() {
            look.addresses = given_addresses(found);
        }
        let busy = seen.busy;
        drop(seen);
        if due && !busy {
            self.start(context, namespace, pool, &publication, task);
        }
        if forbidden {
            let fault = validate::not_allowed_fault(found.not_allowed, namespace);
            look.condition = DesiredCondition::new(kind, false, fault.reason, fault.message);
        } else if backend.is_none() {
            look.condition = match &spec.dns {
                None => DesiredCondition::new(
                    kind,
                    true,
                    Reason::NotManaged,
                    "publish the records of status.srvRecords",
                ),
                Some(_) => look.condition,
            };
        }
        look
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
        let claim = claim(context, pool, namespace);
        let deleted = pool.meta().deletion_timestamp.as_ref().map(|time| time.0);
        let late = deleted.is_some_and(|at| Timestamp::now().duration_since(at) >= LONGEST);
        let skipped = is_skipped(pool);
        let (Some(claim), false, false) = (claim, late, skipped) else {
            let why = if skipped {
                "as its annotation asks"
            } else if late {
                "as DNS did not take the withdrawal within 10 minutes"
            } else {
                "as the operator has no owner id"
            };
            let metadata = pool.meta().clone().into_response_partial();
            let leaving = Finalization {
                client: &context.client,
                metrics: &context.metrics,
                events: &context.events,
                namespace,
                pool: &metadata,
            };
            return match leaving.leave_records(why).await {
                true => Leave::default(),
                false => Leave::later(RETRY, "the API server does not take the finalizer off"),
            };
        };
        let publication = self.publication(namespace, pool, claim);
        let mut seen = publication.seen.lock();
        let refusal = seen.refusal.clone();
        if seen.busy {
            return Leave::later(RETRY, &refusal);
        }
        let waited = seen.refused.map(|at| at.elapsed());
        if let Some(wait) = waited.and_then(|waited| RETRY.checked_sub(waited)) {
            return Leave::later(wait, &refusal);
        }
        seen.busy = true;
        drop(seen);
        let backend = backend_of(pool);
        let settings = backend.map(|backend| settings(context, namespace, &backend));
        // In the background: a server that does not answer holds up no other pool.
        let work = DnsWork::new(context, namespace, pool, &publication);
        self.spawn(work.withdraw(settings));
        Leave::later(RETRY, &refusal)
    }

    /// Forgets pools of a namespace that are not there any more.
    pub fn forget(&self, namespace: &str, exists: impl Fn(&str) -> bool) {
        let mut pools = self.pools.lock();
        pools.retain(|(of, pool), _| of != namespace || exists(pool));
    }

    fn publication(
        &self,
        namespace: &str,
        pool: &impl ResourceExt,
        claim: RecordOwner,
    ) -> Arc<Publication> {
        let key = (namespace.to_owned(), pool.name_any());
        let mut pools = self.pools.lock();
        let uid = pool.uid();
        if pools.get(&key).is_some_and(|held| held.uid != uid) {
            pools.remove(&key);
        }
        let publication = pools.entry(key).or_insert_with(|| {
            let memory = remembered(pool);
            Arc::new(Publication {
                uid,
                seen: Mutex::default(),
                worker: tokio::sync::Mutex::new(Worker {
                    publisher: Publisher::new(claim, memory),
                    balancer: LoadBalancer::default(),
                    marked: is_marked(pool),
                }),
            })
        });
        publication.clone()
    }

    fn start(
        &self,
        context: &Context,
        namespace: &str,
        pool: &EdgePool,
        publication: &Arc<Publication>,
        task: DnsTask,
    ) {
        publication.seen.lock().busy = true;
        self.spawn(DnsWork::new(context, namespace, pool, publication).run(task));
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}

fn claim(context: &Context, pool: &impl ResourceExt, namespace: &str) -> Option<RecordOwner> {
    Some(RecordOwner {
        owner: context.dns_owner_id.as_ref()?.parse().ok()?,
        namespace: namespace.to_owned(),
        pool: pool.name_any(),
    })
}

fn settings(
    context: &Context,
    namespace: &str,
    backend: &Rfc2136,
) -> Result<UpdateSettings, DnsError> {
    let secret = context
        .caches
        .secrets
        .get(namespace, &backend.tsig_secret_ref.name);
    let material = secret.map(|secret| crate::controllers::namespace::inputs::material(&secret));
    UpdateSettings::read(backend, material.as_ref())
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

fn said(seen: &ObservedService) -> DesiredCondition {
    let kind = ConditionType::DnsPublished;
    match seen.done.as_ref().map(|done| &done.outcome) {
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
