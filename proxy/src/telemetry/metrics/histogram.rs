//! A histogram on the path of stanzas: every stream of the process adds to it, so it takes no lock.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Counts by bucket and a sum, each an atomic. A scrape amid an observation may see one without the
/// other.
#[derive(Clone, Debug)]
pub struct AtomicHistogram {
    inner: Arc<AtomicBuckets>,
}

#[derive(Debug)]
struct AtomicBuckets {
    /// Upper bounds, the last without end.
    buckets: Box<[(f64, AtomicU64)]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl AtomicHistogram {
    /// With these upper bounds, in ascending order, and one without end.
    #[must_use]
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        let bounds = bounds.into_iter().chain([f64::INFINITY]);
        Self {
            inner: Arc::new(AtomicBuckets {
                buckets: bounds.map(|bound| (bound, AtomicU64::new(0))).collect(),
                sum: AtomicU64::new(0_f64.to_bits()),
            }),
        }
    }

    pub fn observe(&self, value: f64) {
        let AtomicBuckets { buckets, sum } = &*self.inner;
        if let Some((_, count)) = buckets.iter().find(|(bound, _)| value <= *bound) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        let _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl EncodeMetric for AtomicHistogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let buckets: Vec<_> = self
            .inner
            .buckets
            .iter()
            .map(|(bound, count)| (*bound, count.load(Ordering::Relaxed)))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = f64::from_bits(self.inner.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn observations_of_several_threads_are_all_there_and_read_as_openmetrics_has_it() {
        let histogram = AtomicHistogram::new([1.0, 10.0]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for value in [0.5, 1.0, 5.0, 100.0] {
                        histogram.observe(value);
                    }
                });
            }
        });
        let mut registry = Registry::default();
        registry.register("sizes", "Sizes", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "sizes_sum 426.0",
            "sizes_count 16",
            "sizes_bucket{le=\"1.0\"} 8",
            "sizes_bucket{le=\"10.0\"} 12",
            "sizes_bucket{le=\"+Inf\"} 16",
        ] {
            assert!(text.contains(line), "{line}:\n{text}");
        }
    }
}
