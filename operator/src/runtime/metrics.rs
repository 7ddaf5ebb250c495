//! The operator's own metrics, prefix `xmpp_edge_operator_`. Names are a contract (api.md).

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

use super::{store::HeldSize, watch_name::WatchName};

/// Prefix of every metric of the operator, in standalone too.
pub const PREFIX: &str = "xmpp_edge_operator";

/// Labels of a failure: a kind, and a word of an enum of causes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failure {
    kind: &'static str,
    reason: &'static str,
}

impl Failure {
    #[must_use]
    pub fn new(kind: &'static str, reason: &'static str) -> Self {
        Self { kind, reason }
    }
}

/// Labels of a reconcile. `outcome` is `ok` or `error`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reconciled {
    pub kind: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    pub kind: &'static str,
}

/// `ready` is a condition's status: `True`, `False`, `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Objects {
    pub namespace: String,
    pub kind: &'static str,
    pub ready: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPool {
    pub namespace: String,
    pub pool: String,
}

/// A watch, `namespace` empty where it is of the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfWatch {
    pub namespace: String,
    pub kind: String,
}

/// A failure of a watch. `code` is that of the answer, or `none`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchFailure {
    pub namespace: String,
    pub kind: String,
    pub code: String,
}

/// Three digits, or `none` where no answer came.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    pub code: String,
}

impl OfWatch {
    fn of(name: &WatchName) -> Self {
        Self {
            namespace: name.namespace.clone().unwrap_or_default(),
            kind: name.kind.clone(),
        }
    }
}

type Seconds = Family<OfKind, Histogram, fn() -> Histogram>;
type PoolSeconds = Family<OfPool, Gauge<f64, AtomicU64>>;

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    pub reconciliations: Family<Reconciled, Counter>,
    pub errors: Family<Failure, Counter>,
    pub reconcile_seconds: Seconds,
    /// Of those looks at a namespace that found anything to compile anew.
    pub compile_seconds: Histogram,
    pub objects: Family<Objects, Gauge>,
    /// Statuses that wait to be written or are under way.
    pub statuses_waiting: Gauge,
    /// 1 on the replica that leads.
    pub leader: Gauge,
    pub pool_ready_replicas: Family<OfPool, Gauge>,
    /// Those that there should be: 0 for a pool that was scaled to nothing on purpose.
    pub pool_desired_replicas: Family<OfPool, Gauge>,
    /// How long the newest generation took until every ready pod had it.
    pub config_sync_seconds: PoolSeconds,
    pub certificate_not_after: Family<OfPool, Gauge<i64, AtomicI64>>,
    pub api_requests: Family<Answered, Counter>,
    pub watch_errors: Family<WatchFailure, Counter>,
    /// Events that were one too many for their namespace.
    pub events_dropped: Counter,
    /// Whether a watch failed last, and so shows what was rather than what is.
    pub watch_failing: Family<OfWatch, Gauge>,
    pub watch_last_event: Family<OfWatch, Gauge<i64, AtomicI64>>,
    /// Objects that are held whole, of kinds that everybody uses.
    pub referenced_objects: Family<OfKind, Gauge>,
    /// Bytes of their data.
    pub referenced_bytes: Family<OfKind, Gauge>,
}

fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let reconciliations = Family::default();
        registry.register(
            "reconciliations",
            "Passes over objects of a kind",
            reconciliations.clone(),
        );
        let errors = Family::default();
        registry.register(
            "errors",
            "What failed and is tried again, by kind and reason",
            errors.clone(),
        );
        let reconcile_seconds = Seconds::new_with_constructor(buckets);
        registry.register(
            "reconcile_seconds",
            "Time of a pass over a kind",
            reconcile_seconds.clone(),
        );
        let compile_seconds = buckets();
        registry.register(
            "compile_seconds",
            "Time of compiling a namespace whose objects changed",
            compile_seconds.clone(),
        );
        let objects = Family::default();
        registry.register("objects", "Objects by condition Ready", objects.clone());
        let statuses_waiting = Gauge::default();
        registry.register(
            "statuses_waiting",
            "Statuses to be written",
            statuses_waiting.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 where this replica leads", leader.clone());
        let pool_ready_replicas = Family::default();
        registry.register(
            "pool_ready_replicas",
            "Pods of a pool that are ready",
            pool_ready_replicas.clone(),
        );
        let pool_desired_replicas = Family::default();
        registry.register(
            "pool_desired_replicas",
            "Pods that a pool is to have",
            pool_desired_replicas.clone(),
        );
        let config_sync_seconds = Family::default();
        registry.register(
            "config_sync_seconds",
            "Time until every ready pod had the newest configuration",
            config_sync_seconds.clone(),
        );
        let certificate_not_after = Family::default();
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "End of a pool's certificate",
            certificate_not_after.clone(),
        );
        let api_requests = Family::default();
        registry.register(
            "api_requests",
            "Requests to the API server by the code of the answer",
            api_requests.clone(),
        );
        let events_dropped = Counter::default();
        registry.register(
            "events_dropped",
            "Events that were not written, as their namespace had too many",
            events_dropped.clone(),
        );
        let watch_errors = Family::default();
        registry.register(
            "watch_errors",
            "Watches of the API server that failed and are tried again",
            watch_errors.clone(),
        );
        let watch_failing = Family::default();
        registry.register(
            "watch_failing",
            "1 where a watch failed last: what it told before may be out of date",
            watch_failing.clone(),
        );
        let watch_last_event = Family::default();
        registry.register(
            "watch_last_event_timestamp_seconds",
            "When a watch said something last; a kind at rest says nothing",
            watch_last_event.clone(),
        );
        let referenced_objects = Family::default();
        registry.register(
            "referenced_objects",
            "ConfigMaps and Secrets that something refers to, which are held whole",
            referenced_objects.clone(),
        );
        let referenced_bytes = Family::default();
        registry.register(
            "referenced_bytes",
            "Bytes of the data of ConfigMaps and Secrets that are held whole",
            referenced_bytes.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "This build", build);
        Self {
            registry: Mutex::new(registry),
            reconciliations,
            errors,
            reconcile_seconds,
            compile_seconds,
            objects,
            statuses_waiting,
            leader,
            pool_ready_replicas,
            pool_desired_replicas,
            config_sync_seconds,
            certificate_not_after,
            api_requests,
            events_dropped,
            watch_errors,
            watch_failing,
            watch_last_event,
            referenced_objects,
            referenced_bytes,
        }
    }
}

impl Metrics {
    /// Adds what a room above measures.
    pub fn add(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock());
    }

    /// A pass over an object, or a write of its status, failed for one of an enum's causes.
    pub fn failed(&self, kind: &'static str, reason: &'static str) {
        self.errors.get_or_create(&Failure::new(kind, reason)).inc();
    }

    /// A pass over a kind was done.
    pub fn reconciled(&self, kind: &'static str, ok: bool, took: Duration) {
        let outcome = if ok { "ok" } else { "error" };
        self.reconciliations
            .get_or_create(&Reconciled { kind, outcome })
            .inc();
        self.reconcile_seconds
            .get_or_create(&OfKind { kind })
            .observe(took.as_secs_f64());
    }

    /// The API server answered with this code, or not at all.
    pub fn api_answered(&self, code: Option<u16>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.api_requests.get_or_create(&Answered { code }).inc();
    }

    /// So much is held of a kind that everybody uses.
    pub fn held(&self, kind: &'static str, size: HeldSize) {
        let gauge = |family: &Family<OfKind, Gauge>, value: usize| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&OfKind { kind }).set(value);
        };
        gauge(&self.referenced_objects, size.objects);
        gauge(&self.referenced_bytes, size.bytes);
    }

    /// A watch said something.
    pub fn watch_heard(&self, name: &WatchName) {
        let of = OfWatch::of(name);
        self.watch_failing.get_or_create(&of).set(0);
        let now = jiff::Timestamp::now().as_second();
        self.watch_last_event.get_or_create(&of).set(now);
    }

    /// A watch failed.
    pub fn watch_failed(&self, name: &WatchName, code: Option<u16>) {
        let of = OfWatch::of(name);
        self.watch_failing.get_or_create(&of).set(1);
        let failure = WatchFailure {
            namespace: of.namespace,
            kind: of.kind,
            code: code.map_or_else(|| "none".to_owned(), |code| code.to_string()),
        };
        self.watch_errors.get_or_create(&failure).inc();
    }

    /// A pool is gone: what was measured of it goes.
    pub fn forget_pool(&self, namespace: &str, pool: &str) {
        let labels = OfPool {
            namespace: namespace.to_owned(),
            pool: pool.to_owned(),
        };
        self.pool_ready_replicas.remove(&labels);
        self.pool_desired_replicas.remove(&labels);
        self.config_sync_seconds.remove(&labels);
        self.certificate_not_after.remove(&labels);
    }

    /// Everything as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names in docs/operator-metrics.md: those of DNS, or all others.
    pub(crate) fn documented(of_dns: bool) -> BTreeSet<String> {
        let docs = include_str!("../../../docs/operator-metrics.md");
        let rows = docs.lines().filter_map(|line| line.strip_prefix("| `"));
        let names = rows.filter_map(|row| row.split('`').next());
        let dns = format!("{PREFIX}_dns_");
        let names = names.filter(|name| name.starts_with(&dns) == of_dns);
        names.map(str::to_owned).collect()
    }

    /// Names in OpenMetrics text.
    pub(crate) fn exposed(text: &str) -> BTreeSet<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let types = types.filter_map(|line| line.split_once(' '));
        types
            .map(|(name, kind)| match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            })
            .collect()
    }

    #[test]
    fn every_metric_of_the_contract_has_its_name() {
        let metrics = Metrics::default();
        let pool = OfPool {
            namespace: "n".into(),
            pool: "p".into(),
        };
        metrics.reconciled("EdgePool", true, Duration::from_millis(3));
        metrics.failed("EdgePool", "ApiError");
        metrics.compile_seconds.observe(0.003);
        metrics
            .objects
            .get_or_create(&Objects {
                namespace: "n".into(),
                kind: "EdgePool",
                ready: "True",
            })
            .set(1);
        metrics.pool_ready_replicas.get_or_create(&pool).set(2);
        metrics.pool_desired_replicas.get_or_create(&pool).set(3);
        metrics.config_sync_seconds.get_or_create(&pool).set(0.5);
        metrics.certificate_not_after.get_or_create(&pool).set(9);
        metrics.api_answered(Some(409));
        metrics.api_answered(None);
        let watch = WatchName {
            namespace: Some("n".into()),
            kind: "EdgePool".into(),
        };
        metrics.watch_heard(&watch);
        metrics.watch_failed(&watch, Some(403));
        let (objects, bytes) = (4, 512);
        metrics.held("Secret", HeldSize { objects, bytes });
        let text = metrics.text();
        for line in [
            "xmpp_edge_operator_api_requests_total{code=\"409\"} 1",
            "xmpp_edge_operator_api_requests_total{code=\"none\"} 1",
            "xmpp_edge_operator_reconciliations_total{kind=\"EdgePool\",outcome=\"ok\"} 1",
            "xmpp_edge_operator_errors_total{kind=\"EdgePool\",reason=\"ApiError\"} 1",
            "xmpp_edge_operator_reconcile_seconds_count{kind=\"EdgePool\"} 1",
            "xmpp_edge_operator_compile_seconds_count 1",
            "xmpp_edge_operator_objects{namespace=\"n\",kind=\"EdgePool\",ready=\"True\"} 1",
            "xmpp_edge_operator_leader 0",
            "xmpp_edge_operator_watch_errors_total{namespace=\"n\",kind=\"EdgePool\",code=\"403\"} 1",
            "xmpp_edge_operator_watch_failing{namespace=\"n\",kind=\"EdgePool\"} 1",
            "xmpp_edge_operator_watch_last_event_timestamp_seconds{namespace=\"n\",kind=\"EdgePool\"} ",
            "xmpp_edge_operator_referenced_objects{kind=\"Secret\"} 4",
            "xmpp_edge_operator_referenced_bytes{kind=\"Secret\"} 512",
            "xmpp_edge_operator_statuses_waiting 0",
            "xmpp_edge_operator_pool_ready_replicas{namespace=\"n\",pool=\"p\"} 2",
            "xmpp_edge_operator_pool_desired_replicas{namespace=\"n\",pool=\"p\"} 3",
            "xmpp_edge_operator_config_sync_seconds{namespace=\"n\",pool=\"p\"} 0.5",
            "xmpp_edge_operator_certificate_not_after_timestamp_seconds{namespace=\"n\",pool=\"p\"} 9",
            "xmpp_edge_operator_build_info{version=",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert_eq!(documented(false), exposed(&text));
    }
}
