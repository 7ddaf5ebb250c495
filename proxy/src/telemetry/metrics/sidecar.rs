//! What a sidecar shows of what is counted, prefix `xmpp_edge_sidecar_`: a stanza that passes a sidecar and an
//! edge is counted by both, and sums over the edge's names stay right. It has one partner, everybody, who is
//! no label here.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric},
    metrics::{counter::Counter, family::Family},
};
use xmpp_edge_crds::verdict::Direction;

use super::{Metrics, direction_label};

/// Name, help and what is shown.
pub type ShownMetric = (&'static str, &'static str, Box<dyn EncodeMetric>);

/// Counted by every engine, shown by sidecars alone.
#[derive(Debug, Default)]
pub struct SidecarCounters {
    trunk_ends: Family<PoolEndLabels, Counter>,
    resent: Family<DirectionLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolEndLabels {
    pool: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DirectionLabel {
    pub direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PoolLabel {
    pub pool: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionKindLabels {
    direction: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionConditionLabels {
    direction: &'static str,
    condition: &'static str,
}

impl Metrics {
    /// A trunk to a pod of this pool ended over this.
    pub fn trunk_to_pool_ended(&self, pool: &str, reason: &'static str) {
        let labels = PoolEndLabels {
            pool: pool.to_owned(),
            reason,
        };
        let ends = &self.sidecar.trunk_ends;
        ends.get_or_create_owned(&labels).inc();
    }

    /// So many stanzas go again: the stream or trunk that had them ended.
    pub fn resent(&self, direction: Direction, count: u64) {
        let direction = direction_label(direction);
        let resent = &self.sidecar.resent;
        let labels = DirectionLabel { direction };
        resent.get_or_create_owned(&labels).inc_by(count);
    }

    /// What was counted, as a sidecar shows it.
    #[must_use]
    pub fn of_sidecar(&self) -> Vec<ShownMetric> {
        let stanzas = Family::<DirectionKindLabels, Counter>::default();
        self.stanzas.each(|labels, counter| {
            let labels = DirectionKindLabels {
                direction: labels.direction,
                kind: labels.kind,
            };
            stanzas.get_or_create_owned(&labels).inc_by(counter.get());
        });
        let bounced = Family::<DirectionConditionLabels, Counter>::default();
        self.bounced.each(|labels, counter| {
            let labels = DirectionConditionLabels {
                direction: labels.direction,
                condition: labels.condition,
            };
            bounced.get_or_create_owned(&labels).inc_by(counter.get());
        });
        vec![
            (
                "stanzas",
                "Stanzas taken in, from the server and from edges",
                Box::new(stanzas),
            ),
            (
                "stanzas_bounced",
                "Stanzas that were answered or dropped because they could not be handed on",
                Box::new(bounced),
            ),
            (
                "stanzas_resent",
                "Stanzas that go again, as the trunk or stream that had them ended before they were acknowledged",
                Box::new(self.sidecar.resent.clone()),
            ),
            (
                "trunk_ends",
                "Trunks whose other end broke the rules, or was not there any more",
                Box::new(self.sidecar.trunk_ends.clone()),
            ),
            (
                "stanza_forward_seconds",
                "From reading a stanza to writing it to the next hop, sampled",
                Box::new(self.forward_seconds.clone()),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::StanzaTally;

    #[test]
    fn what_passes_a_sidecar_is_counted_whoever_the_partner_is() {
        let metrics = Metrics::new();
        for partner in [Some("all"), None] {
            metrics.pair(partner, Direction::Inbound).add(StanzaTally {
                messages: 1,
                bytes: 10,
                ..StanzaTally::default()
            });
            metrics.bounced(partner, Direction::Outbound, "dropped", 2);
        }
        metrics.resent(Direction::Inbound, 3);
        metrics.trunk_to_pool_ended("hq", "Silent");
        let mut registry = prometheus_client::registry::Registry::with_prefix("xmpp_edge_sidecar");
        registry.register_collector(Box::new(Shown(metrics)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "xmpp_edge_sidecar_stanzas_total{direction=\"inbound\",kind=\"message\"} 2",
            "xmpp_edge_sidecar_stanzas_bounced_total{direction=\"outbound\",condition=\"dropped\"} 4",
            "xmpp_edge_sidecar_stanzas_resent_total{direction=\"inbound\"} 3",
            "xmpp_edge_sidecar_trunk_ends_total{pool=\"hq\",reason=\"Silent\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[derive(Debug)]
    struct Shown(Metrics);

    impl prometheus_client::collector::Collector for Shown {
        fn encode(
            &self,
            mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
        ) -> std::fmt::Result {
            for (name, help, metric) in self.0.of_sidecar() {
                let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
                metric.encode(encoder)?;
            }
            Ok(())
        }
    }
}
