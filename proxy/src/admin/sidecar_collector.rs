//! Metrics of a sidecar, prefix `xmpp_edge_sidecar_`: what is counted, and what is looked at when they are asked for.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{family::Family, gauge::Gauge},
};

use crate::{
    negotiation::Side,
    stream::context::StreamContext,
    telemetry::metrics::{
        Metrics, direction_label,
        sidecar::{DirectionLabel, PoolLabel, ShownMetric},
    },
    trunk::nonza::ServerState,
};
use xmpp_edge_crds::verdict::Direction;

/// All of them. Before there is a configuration, what is counted alone.
pub struct SidecarCollector {
    pub metrics: Arc<Metrics>,
    pub context: Arc<OnceLock<Arc<StreamContext>>>,
}

impl fmt::Debug for SidecarCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SidecarCollector")
    }
}

impl Collector for SidecarCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let now = self.context.get().map(|context| looked_at(context));
        let shown = self.metrics.of_sidecar().into_iter();
        for (name, help, metric) in shown.chain(now.into_iter().flatten()) {
            let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(encoder)?;
        }
        Ok(())
    }
}

fn looked_at(context: &StreamContext) -> Vec<ShownMetric> {
    let (queue_bytes, queue_stanzas) = queues(context);
    let is_up = context.trunks.own_server() == ServerState::Up;
    let mut shown: Vec<ShownMetric> = vec![
        (
            "trunks",
            "Trunks that stand to pods of the pool",
            Box::new(trunks(context)),
        ),
        (
            "server_up",
            "1 where the server beside the sidecar answers and takes streams",
            gauge(i64::from(is_up)),
        ),
        (
            "queue_bytes",
            "Memory held by queues",
            Box::new(queue_bytes),
        ),
        (
            "queue_stanzas",
            "Stanzas that wait in queues",
            Box::new(queue_stanzas),
        ),
    ];
    let config = context.config();
    let certificate = config.identity.iter().map(|own| -> ShownMetric {
        (
            "certificate_not_after_timestamp_seconds",
            "End of the certificate that edges are shown",
            gauge(own.not_after().as_second()),
        )
    });
    shown.extend(certificate);
    shown
}

fn gauge(value: i64) -> Box<dyn EncodeMetric> {
    let gauge = Gauge::<i64>::default();
    gauge.set(value);
    Box::new(gauge)
}

fn trunks(context: &StreamContext) -> Family<PoolLabel, Gauge> {
    let trunks = Family::<PoolLabel, Gauge>::default();
    for (far, _, _) in context.trunks.edges().into_iter().filter_map(|it| it.trunk) {
        let pool = far.pool.to_string();
        trunks.get_or_create_owned(&PoolLabel { pool }).inc();
    }
    trunks
}

fn queues(
    context: &StreamContext,
) -> (Family<DirectionLabel, Gauge>, Family<DirectionLabel, Gauge>) {
    let (bytes, stanzas) = (Family::default(), Family::default());
    for route in context.router.all() {
        let direction = direction_label(match route.side {
            Side::Partner => Direction::Outbound,
            Side::Gateway => Direction::Inbound,
        });
        let add = |family: &Family<DirectionLabel, Gauge>, value: u64| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            let labels = DirectionLabel { direction };
            family.get_or_create_owned(&labels).inc_by(value);
        };
        add(&bytes, route.held() as u64);
        add(&stanzas, route.waiting());
    }
    (bytes, stanzas)
}
