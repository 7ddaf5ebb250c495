//! What publishing DNS records counts: `dns_published`, `dns_last_success_timestamp_seconds`,
//! `dns_failures_total`. Reasons are those of the condition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    marker::Claim,
    report::Report,
    wanted::{Place, Standing},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct OfDomain {
    namespace: String,
    pool: String,
    domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    namespace: String,
    pool: String,
    reason: String,
}

/// The families; cheap to keep one of.
#[derive(Debug, Default)]
pub struct DnsMetrics {
    published: Family<OfDomain, Gauge>,
    last_success: Family<OfDomain, Gauge<f64, AtomicU64>>,
    failures: Family<Failure, Counter>,
    /// Series that stand, by pool: those of removed domains go.
    shown: Mutex<BTreeMap<(String, String), BTreeSet<OfDomain>>>,
}

impl DnsMetrics {
    /// Registers the families; the registry's prefix comes before their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "dns_published",
            "1 where DNS leads partners of the domain to the pool",
            self.published.clone(),
        );
        registry.register(
            "dns_last_success_timestamp_seconds",
            "When DNS last answered what it should for the domain",
            self.last_success.clone(),
        );
        registry.register(
            "dns_failures",
            "Failed attempts to publish, by reason",
            self.failures.clone(),
        );
    }

    /// Counts one report.
    pub fn note(&self, claim: &Claim, report: &Report) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let mut stands = BTreeSet::new();
        for (place, outcome) in &report.places {
            let Place::Domain(domain) = place else {
                continue;
            };
            let labels = OfDomain {
                namespace: claim.namespace.clone(),
                pool: claim.pool.clone(),
                domain: domain.clone(),
            };
            if let Ok(state) = outcome {
                if !state.leads() && report.standing == Standing::Out {
                    continue;
                }
                let published = self.published.get_or_create_owned(&labels);
                published.set(i64::from(state.leads()));
                self.last_success.get_or_create_owned(&labels).set(now);
            }
            stands.insert(labels);
        }
        for error in report.errors() {
            let labels = Failure {
                namespace: claim.namespace.clone(),
                pool: claim.pool.clone(),
                reason: error.reason().to_string(),
            };
            self.failures.get_or_create_owned(&labels).inc();
        }
        self.keep(claim, stands);
    }

    /// Removes the series of a pool that is gone; its failures stay counted.
    pub fn forget(&self, claim: &Claim) {
        self.keep(claim, BTreeSet::new());
    }

    fn keep(&self, claim: &Claim, stands: BTreeSet<OfDomain>) {
        let key = (claim.namespace.clone(), claim.pool.clone());
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shown.insert(key.clone(), stands).unwrap_or_default();
        for gone in before.difference(&shown[&key]) {
            self.published.remove(gone);
            self.last_success.remove(gone);
        }
        if shown[&key].is_empty() {
            shown.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dns::{error::DnsError, report::PlaceState};

    #[test]
    fn series_follow_the_domains_and_failures_carry_the_reason_of_the_condition() {
        let claim = Claim {
            owner: "o".parse().unwrap(),
            namespace: "org".to_owned(),
            pool: "hq".to_owned(),
        };
        let metrics = DnsMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let error = DnsError::NoName("a..b".to_owned());
        let place = |name: &str| Place::Domain(name.to_owned());
        let mut report = Report {
            standing: Standing::Serving,
            address_pending: false,
            places: vec![
                (place("a.example"), Ok(PlaceState::Published)),
                (place("b.example"), Err(error)),
            ],
            key_fault: None,
        };
        metrics.note(&claim, &report);
        let first = text();
        let published = "dns_published{namespace=\"org\",pool=\"hq\",domain=\"a.example\"} 1";
        assert!(first.contains(published), "{first}");
        assert!(!first.contains("b.example"), "{first}");
        let failed = "dns_failures_total{namespace=\"org\",pool=\"hq\",reason=\"InvalidDomain\"} 1";
        assert!(first.contains(failed), "{first}");
        assert_eq!(report.condition().reason.to_string(), "InvalidDomain");

        report.places.remove(0);
        metrics.note(&claim, &report);
        assert!(!text().contains("a.example"), "{}", text());
        metrics.forget(&claim);
        assert!(text().contains("dns_failures_total"));
    }
}
