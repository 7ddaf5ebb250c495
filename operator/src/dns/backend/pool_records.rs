//! The records of one pool by RFC 2136, as [`DnsController`](crate::dns::controller::DnsController) works on
//! them: what is remembered of them is kept before anything is published, so that whoever comes
//! after finds all again.

use std::{collections::BTreeSet, time::Duration};

use xmpp_edge_crds::{domain::DomainName, kinds::PoolSpec};

use crate::dns::{
    addresses::{Ingress, LoadBalancer},
    backend::rfc2136::{DnsMemory, Publisher, UpdateSettings},
    controller::{DnsBackend, DnsOutcome},
    error::DnsError,
    metrics::DnsMetrics,
    report::DnsReport,
    wanted::{Addresses, Availability, DesiredRecords},
};

/// After a failure that is not DNS's.
const RETRY: Duration = Duration::from_secs(5);

/// Where the memory of a pool's records is kept.
pub trait KeepMemory: Send + 'static {
    /// Keeps it; without places nothing of the pool is in DNS any more.
    ///
    /// # Errors
    /// Why it could not be kept: then nothing is published.
    fn keep(&mut self, memory: &DnsMemory) -> impl Future<Output = Result<(), String>> + Send;
}

/// Of one pool.
#[derive(Debug)]
pub struct PoolRecordsBackend<M> {
    publisher: Publisher,
    balancer: LoadBalancer,
    keep: M,
    /// As it was kept last; `None`: it does not lie there.
    kept: Option<DnsMemory>,
    metrics: DnsMetrics,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolRecordsTask {
    /// The pool is to be found, or not, as its spec says.
    Publish {
        spec: Box<PoolSpec>,
        availability: Availability,
        /// Domains for which it has no way inside, and another pool has.
        stranded: BTreeSet<DomainName>,
        addresses: AddressSource,
        /// `None`: as last read.
        settings: Option<Result<UpdateSettings, DnsError>>,
        /// Whether the memory lies where it is kept, as it was put there: somebody may have taken it away.
        is_kept: bool,
    },
    /// Nothing of the pool stays.
    Withdraw {
        settings: Option<Result<UpdateSettings, DnsError>>,
        is_kept: bool,
        /// Whether the pool itself goes: the memory is not kept any more, since letting the pool go
        /// is the caller's.
        is_final: bool,
    },
}

/// From where the addresses of the FQDN are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    Given(Addresses),
    /// What the load balancer has, where the spec says nothing.
    Balancer(Vec<Ingress>),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct PoolRecordsOutcome {
    /// Or what is wrong that is not DNS's.
    pub report: Result<DnsReport, String>,
    /// Addresses of the FQDN, as far as they are known.
    pub addresses: Vec<String>,
    /// What is remembered of records that may be in DNS.
    pub memory: DnsMemory,
    /// Whether the pool waits for it to be let go.
    pub is_final: bool,
}

impl PoolRecordsOutcome {
    /// Whether records of the pool may be in DNS.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        !self.memory.places.is_empty()
    }
}

impl DnsOutcome for PoolRecordsOutcome {
    fn is_good(&self) -> bool {
        self.report.as_ref().is_ok_and(DnsReport::is_good)
    }

    fn look_again(&self) -> Duration {
        self.report.as_ref().map_or(RETRY, DnsReport::look_again)
    }

    fn is_urgent(&self) -> bool {
        self.is_final
    }
}

impl<M: KeepMemory> PoolRecordsBackend<M> {
    /// The publisher's memory is as it was read of `keep`.
    pub fn new(publisher: Publisher, keep: M, metrics: DnsMetrics) -> Self {
        Self {
            kept: Some(publisher.memory().clone()),
            publisher,
            balancer: LoadBalancer::default(),
            keep,
            metrics,
        }
    }

    async fn publish(
        &mut self,
        spec: &PoolSpec,
        availability: Availability,
        stranded: &BTreeSet<DomainName>,
        addresses: &Addresses,
    ) -> Result<DnsReport, String> {
        let wanted = DesiredRecords::new(spec, availability, addresses)
            .map_err(|error| format!("a name cannot stand in DNS: {error}"))?
            .stranded(stranded);
        self.publisher.remember(&wanted);
        self.keep().await?;
        let report = self.publisher.publish(&wanted).await;
        let owner = self.publisher.claim();
        self.metrics.count(&owner.namespace, &owner.pool, &report);
        self.keep().await?;
        Ok(report)
    }

    async fn withdraw(&mut self, is_final: bool) -> Result<DnsReport, String> {
        let report = self.publisher.withdraw(&DesiredRecords::nothing()).await;
        let owner = self.publisher.claim();
        self.metrics.forget(&owner.namespace, &owner.pool);
        self.metrics
            .count_failures(&owner.namespace, &owner.pool, &report);
        if !is_final {
            self.keep().await?;
        }
        Ok(report)
    }

    async fn keep(&mut self) -> Result<(), String> {
        let memory = self.publisher.memory();
        if self.kept.as_ref() == Some(memory) {
            return Ok(());
        }
        let memory = memory.clone();
        self.keep.keep(&memory).await?;
        self.kept = Some(memory);
        Ok(())
    }
}

impl<M: KeepMemory> DnsBackend for PoolRecordsBackend<M> {
    type Task = PoolRecordsTask;
    type Outcome = PoolRecordsOutcome;

    async fn carry_out(&mut self, task: &PoolRecordsTask) -> PoolRecordsOutcome {
        let mut known = Vec::new();
        let (PoolRecordsTask::Publish {
            settings, is_kept, ..
        }
        | PoolRecordsTask::Withdraw {
            settings, is_kept, ..
        }) = task;
        if !is_kept {
            self.kept = None;
        }
        if let Some(settings) = settings {
            self.publisher.configure(settings.clone());
        }
        let report = match task {
            PoolRecordsTask::Publish {
                spec,
                availability,
                stranded,
                addresses,
                ..
            } => {
                let addresses = match addresses {
                    AddressSource::Given(addresses) => addresses.clone(),
                    AddressSource::Balancer(ingress) => {
                        self.balancer.addresses(spec, ingress).await
                    }
                };
                if let Addresses::Known(addresses) = &addresses {
                    known = addresses.iter().map(ToString::to_string).collect();
                }
                self.publish(spec, *availability, stranded, &addresses)
                    .await
            }
            PoolRecordsTask::Withdraw { is_final, .. } => self.withdraw(*is_final).await,
        };
        let outcome = PoolRecordsOutcome {
            report,
            addresses: known,
            memory: self.publisher.memory().clone(),
            is_final: matches!(task, PoolRecordsTask::Withdraw { is_final: true, .. }),
        };
        self.log(&outcome, matches!(task, PoolRecordsTask::Withdraw { .. }));
        outcome
    }
}

impl<M> PoolRecordsBackend<M> {
    /// What stands in no condition.
    fn log(&self, outcome: &PoolRecordsOutcome, is_withdrawal: bool) {
        let owner = self.publisher.claim();
        let (namespace, pool) = (owner.namespace.as_str(), owner.pool.as_str());
        match &outcome.report {
            Err(error) => {
                tracing::warn!(
                    namespace,
                    pool,
                    error,
                    "failed to publish records, will retry"
                );
            }
            Ok(report) if is_withdrawal => {
                for error in report.errors() {
                    tracing::warn!(namespace, pool, %error, "failed to withdraw records, will retry");
                }
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::dns::RecordOwner;

    #[derive(Clone, Default)]
    struct KeptMemories(Arc<Mutex<Vec<DnsMemory>>>);

    impl KeepMemory for KeptMemories {
        async fn keep(&mut self, memory: &DnsMemory) -> Result<(), String> {
            self.0.lock().push(memory.clone());
            Ok(())
        }
    }

    fn spec() -> Box<PoolSpec> {
        serde_json::from_value(serde_json::json!({
            "site": "hq", "domains": ["org.example"], "accessEdge": { "fqdn": "edge.example" },
            "gateways": [{ "domains": ["org.example"], "address": "a:1" }],
            "certificate": { "selfSigned": {} },
        }))
        .unwrap()
    }

    fn owner() -> RecordOwner {
        RecordOwner {
            owner: "one".parse().unwrap(),
            namespace: "edge".to_owned(),
            pool: "hq".to_owned(),
        }
    }

    /// A pool whose Secret never existed goes without anything being told of records.
    #[tokio::test]
    async fn nothing_is_remembered_of_a_pool_that_never_had_a_key() {
        let kept = KeptMemories::default();
        let publisher = Publisher::new(owner(), DnsMemory::default());
        let metrics = DnsMetrics::default();
        let mut backend = PoolRecordsBackend::new(publisher, kept.clone(), metrics);
        let missing = || {
            Some(Err(DnsError::KeyMissing {
                secret: "tsig".to_owned(),
            }))
        };
        let publish = PoolRecordsTask::Publish {
            spec: spec(),
            availability: Availability::Serving,
            stranded: BTreeSet::new(),
            addresses: AddressSource::Given(Addresses::Elsewhere),
            settings: missing(),
            is_kept: true,
        };
        let outcome = backend.carry_out(&publish).await;
        assert!(!outcome.is_good() && !outcome.is_remembered());
        let withdraw = PoolRecordsTask::Withdraw {
            settings: missing(),
            is_kept: true,
            is_final: true,
        };
        let outcome = backend.carry_out(&withdraw).await;
        assert!(outcome.is_good() && !outcome.is_remembered());
        assert!(kept.0.lock().is_empty(), "no finalizer was written");
    }

    /// `kubectl replace` takes finalizer and annotations away.
    #[tokio::test]
    async fn a_memory_that_somebody_took_away_is_put_back_and_no_other_is_written_again() {
        let kept = KeptMemories::default();
        let publisher = Publisher::new(owner(), DnsMemory::default());
        let mut backend = PoolRecordsBackend::new(publisher, kept.clone(), DnsMetrics::default());
        let rfc2136 =
            serde_json::json!({"server": "127.0.0.1:1", "tsigSecretRef": {"name": "tsig"}});
        let rfc2136 = serde_json::from_value(rfc2136).unwrap();
        let mut secret = crate::secrets::store::SecretData::new();
        for (key, value) in [("name", "key"), ("secret", "c2VjcmV0c2VjcmV0c2VjcmV0")] {
            crate::secrets::store::set(&mut secret, key, value);
        }
        let settings = UpdateSettings::read(&rfc2136, Some(&secret)).unwrap();
        let publish = |is_kept| PoolRecordsTask::Publish {
            spec: spec(),
            availability: Availability::Serving,
            stranded: BTreeSet::new(),
            addresses: AddressSource::Given(Addresses::Elsewhere),
            settings: Some(Ok(settings.clone())),
            is_kept,
        };
        for (is_kept, writes) in [(true, 1), (true, 1), (false, 2), (true, 2)] {
            let outcome = backend.carry_out(&publish(is_kept)).await;
            assert_eq!(kept.0.lock().len(), writes, "{is_kept}");
            assert_eq!(kept.0.lock().last(), Some(&outcome.memory));
        }
        let withdraw = PoolRecordsTask::Withdraw {
            settings: None,
            is_kept: false,
            is_final: false,
        };
        let outcome = backend.carry_out(&withdraw).await;
        assert!(outcome.is_remembered(), "the server is away");
        assert_eq!(kept.0.lock().len(), 3);
    }
}
