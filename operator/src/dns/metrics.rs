//! What is measured of publishing: the same in a cluster and in standalone.
//!
//! A domain that a pool no longer has, and a pool that is gone, are forgotten here; failures stay
//! counted, so that records left behind by a pool that is gone are still told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicI64},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::DnsReport;

/// Label `reason` where a pool was let go with records left in DNS.
const LEFT: &str = "RecordsLeft";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDomain {
    namespace: String,
    pool: String,
    domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DnsFailure {
    namespace: String,
    pool: String,
    reason: String,
}

/// Domains by namespace and pool.
type Domains = BTreeMap<(String, String), BTreeSet<String>>;

/// The metrics; clones count in the same.
#[derive(Clone, Debug, Default)]
pub struct DnsMetrics {
    published: Family<OfDomain, Gauge>,
    last_success: Family<OfDomain, Gauge<i64, AtomicI64>>,
    failures: Family<DnsFailure, Counter>,
    measured: Arc<Mutex<Domains>>,
}

impl DnsMetrics {
    /// Adds them to a registry of the operator's prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "dns_published",
            "1 where DNS answers what it should",
            self.published.clone(),
        );
        registry.register(
            "dns_last_success_timestamp_seconds",
            "When DNS last answered what it should",
            self.last_success.clone(),
        );
        registry.register(
            "dns_failures",
            "Failed publications by reason",
            self.failures.clone(),
        );
    }

    /// Counts what came of publishing a pool.
    pub fn count(&self, namespace: &str, pool: &str, report: &DnsReport) {
        let mut measured = BTreeSet::new();
        for (domain, right) in report.answered() {
            let of = of_domain(namespace, pool, domain);
            self.published.get_or_create(&of).set(i64::from(right));
            if right {
                let now = Timestamp::now().as_second();
                self.last_success.get_or_create(&of).set(now);
            }
            measured.insert(domain.to_owned());
        }
        let key = (namespace.to_owned(), pool.to_owned());
        let before = self.measured.lock().insert(key, measured.clone());
        let gone = before.unwrap_or_default();
        self.remove(namespace, pool, gone.difference(&measured));
        self.count_failures(namespace, pool, report);
    }

    /// The failures alone: of a pool that is on its way out.
    pub fn count_failures(&self, namespace: &str, pool: &str, report: &DnsReport) {
        for error in report.errors() {
            self.fail(namespace, pool, &error.reason().to_string());
        }
    }

    /// A pool is let go, records are left behind.
    pub fn left(&self, namespace: &str, pool: &str) {
        self.fail(namespace, pool, LEFT);
    }

    /// A pool is gone, or nothing of it is published any more.
    pub fn forget(&self, namespace: &str, pool: &str) {
        let key = (namespace.to_owned(), pool.to_owned());
        let gone = self.measured.lock().remove(&key).unwrap_or_default();
        self.remove(namespace, pool, gone.iter());
    }

    fn remove<'a>(&self, namespace: &str, pool: &str, domains: impl Iterator<Item = &'a String>) {
        for domain in domains {
            let of = of_domain(namespace, pool, domain);
            self.published.remove(&of);
            self.last_success.remove(&of);
        }
    }

    fn fail(&self, namespace: &str, pool: &str, reason: &str) {
        let of = DnsFailure {
            namespace: namespace.to_owned(),
            pool: pool.to_owned(),
            reason: reason.to_owned(),
        };
        self.failures.get_or_create(&of).inc();
    }
}

fn of_domain(namespace: &str, pool: &str, domain: &str) -> OfDomain {
    OfDomain {
        namespace: namespace.to_owned(),
        pool: pool.to_owned(),
        domain: domain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dns::{Availability, DnsError, RecordGroup, RecordGroupState};
    use crate::runtime::metrics::PREFIX;

    fn text(metrics: &DnsMetrics) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    /// Domains, and whether all is well with each.
    fn report(places: &[(&str, bool)]) -> DnsReport {
        let error = DnsError::KeyMissing {
            secret: "tsig".to_owned(),
        };
        let places = places.iter().map(|(domain, well)| {
            let outcome = if *well {
                Ok(RecordGroupState::Withdrawn)
            } else {
                Err(error.clone())
            };
            (RecordGroup::Domain((*domain).to_owned()), outcome)
        });
        DnsReport {
            standing: Availability::OutOfService,
            address_pending: None,
            places: places.collect(),
            denied: Vec::new(),
            key_fault: None,
            namesakes: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn every_metric_of_dns_is_in_the_contract() {
        use crate::runtime::metrics::tests::{documented, exposed};
        let metrics = DnsMetrics::default();
        metrics.count(
            "n",
            "p",
            &report(&[("a.example", true), ("b.example", false)]),
        );
        assert_eq!(documented(true), exposed(&text(&metrics)));
    }

    #[test]
    fn what_is_withdrawn_as_it_should_be_is_well_and_what_is_gone_is_not_measured() {
        let metrics = DnsMetrics::default();
        metrics.count(
            "n",
            "p",
            &report(&[("a.example", true), ("b.example", false)]),
        );
        let said = text(&metrics);
        let of = |domain: &str| format!("{{namespace=\"n\",pool=\"p\",domain=\"{domain}\"}}");
        for line in [
            format!("{PREFIX}_dns_published{} 1", of("a.example")),
            format!("{PREFIX}_dns_published{} 0", of("b.example")),
            format!(
                "{PREFIX}_dns_failures_total{{namespace=\"n\",pool=\"p\",reason=\"ReferenceMissing\"}} 1"
            ),
        ] {
            assert!(said.contains(&line), "{line} in {said}");
        }
        metrics.count("n", "p", &report(&[("a.example", true)]));
        assert!(!text(&metrics).contains("b.example"));
        metrics.left("n", "p");
        metrics.forget("n", "p");
        let said = text(&metrics);
        assert!(!said.contains("a.example"), "{said}");
        assert!(said.contains("reason=\"RecordsLeft\"} 1"), "{said}");
    }
}
