//! The work on one pool's records, in the background: resolves what a load balancer is called, publishes
//! or withdraws, and keeps in the pool what is remembered of records.

use std::{sync::Arc, time::Instant};

use kube::{
    Client, ResourceExt,
    core::{PartialObjectMeta, PartialObjectMetaExt},
};
use xmpp_edge_crds::kinds::EdgePool;

use super::{
    DnsTask, PoolDnsResult, Publication, Worker,
    finalizer::{Finalization, mark},
};
use crate::{
    controllers::namespace::snapshot::Context,
    dns::{
        Addresses, Availability, DesiredRecords, DnsError, DnsMemory, DnsReport, RecordOwner,
        UpdateSettings,
    },
    runtime::{caches::Caches, events::Events, metrics::Metrics},
};

pub(super) struct DnsWork {
    client: Client,
    caches: Arc<Caches>,
    metrics: Arc<Metrics>,
    events: Events,
    namespace: String,
    pool: PartialObjectMeta<EdgePool>,
    publication: Arc<Publication>,
}

impl DnsWork {
    pub(super) fn new(
        context: &Context,
        namespace: &str,
        pool: &impl ResourceExt,
        publication: &Arc<Publication>,
    ) -> Self {
        Self {
            client: context.client.clone(),
            caches: context.caches.clone(),
            metrics: context.metrics.clone(),
            events: context.events.clone(),
            namespace: namespace.to_owned(),
            pool: pool.meta().clone().into_response_partial(),
            publication: publication.clone(),
        }
    }

    pub(super) async fn run(self, task: DnsTask) {
        let mut worker = self.publication.worker.lock().await;
        let addresses = worker.balancer.addresses(&task.spec, &task.ingress).await;
        let outcome = self.publish(&mut worker, &task, &addresses).await;
        if let Err(error) = &outcome {
            tracing::warn!(
                namespace = self.namespace,
                pool = self.pool.name_any(),
                error,
                "records could not be published; it is tried again"
            );
        }
        let mut seen = self.publication.seen.lock();
        let last = seen.done.take().filter(|last| last.task == task);
        let failures = match &outcome {
            Ok(report) if report.is_good() => 0,
            _ => last.map_or(0, |last| last.failures) + 1,
        };
        seen.busy = false;
        seen.addresses = match addresses {
            Addresses::Known(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Addresses::Pending | Addresses::Elsewhere => Vec::new(),
        };
        seen.done = Some(PoolDnsResult {
            task,
            outcome,
            at: Instant::now(),
            failures,
        });
        drop(seen);
        self.caches.triggers.enqueue(&self.namespace);
    }

    /// Withdraws every record of a pool that is deleted and lets it go, or says why not yet.
    pub(super) async fn withdraw(self, settings: Option<Result<UpdateSettings, DnsError>>) {
        let mut worker = self.publication.worker.lock().await;
        if let Some(settings) = settings {
            worker.publisher.configure(settings);
        }
        let name = self.pool.name_any();
        let report = worker.publisher.withdraw(&DesiredRecords::nothing()).await;
        self.metrics
            .dns
            .count_failures(&self.namespace, &name, &report);
        let errors = report.errors();
        let leaving = Finalization {
            client: &self.client,
            metrics: &self.metrics,
            events: &self.events,
            namespace: &self.namespace,
            pool: &self.pool,
        };
        let mut refusal = String::new();
        let went = if worker.publisher.memory().places.is_empty() {
            leaving.remove_finalizer().await
        } else if errors.iter().any(|error| error.is_keyless()) {
            let why = "as there is no key to withdraw them with";
            leaving.leave_records(why).await
        } else {
            for error in errors {
                refusal = error.to_string();
                tracing::warn!(namespace = self.namespace, pool = name, %error, "records could not be withdrawn; it is tried again");
            }
            false
        };
        let mut seen = self.publication.seen.lock();
        seen.busy = false;
        seen.refused = (!went).then(Instant::now);
        seen.refusal = refusal;
    }

    async fn publish(
        &self,
        worker: &mut Worker,
        task: &DnsTask,
        addresses: &Addresses,
    ) -> Result<DnsReport, String> {
        let wanted = DesiredRecords::new(&task.spec, task.standing, addresses)
            .map_err(|error| format!("a name cannot stand in DNS: {error}"))?;
        if let Some(settings) = &task.settings {
            worker.publisher.configure(settings.clone());
        }
        let publisher = &mut worker.publisher;
        let fresh = publisher.remember(&wanted);
        if fresh || !worker.marked && !publisher.memory().places.is_empty() {
            self.mark(publisher.memory()).await?;
            worker.marked = !publisher.memory().places.is_empty();
        }
        let before = publisher.memory().clone();
        let report = if wanted.standing == Availability::OutOfService {
            publisher.withdraw(&wanted).await
        } else {
            publisher.publish(&wanted).await
        };
        let RecordOwner {
            namespace, pool, ..
        } = publisher.claim();
        self.metrics.dns.count(namespace, pool, &report);
        if *publisher.memory() != before {
            self.mark(publisher.memory()).await?;
            worker.marked = !publisher.memory().places.is_empty();
        }
        Ok(report)
    }

    async fn mark(&self, memory: &DnsMemory) -> Result<(), String> {
        let memory = (!memory.places.is_empty()).then_some(memory);
        mark(&self.client, &self.namespace, &self.pool, memory)
            .await
            .map_err(|error| format!("the finalizer could not be written: {error}"))
    }
}
