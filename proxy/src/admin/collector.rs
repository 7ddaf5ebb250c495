//! What is not counted as it happens but looked at when metrics are asked for: each scrape has gauges of
//! its own, so that two at a time are both right.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use xmpp_edge_crds::{edge_config::GatewayMode, negotiation::Method, verdict::Direction};

use crate::{
    config::ActiveConfig,
    negotiation::Side,
    routing::route::Route,
    stream::context::StreamContext,
    telemetry::metrics::{
        OTHER, SecondsGauge, direction_label,
        labels::{
            CertificateLabel, DomainLabel, GatewayDirectionLabels, GatewayLabel, NameLabel,
            PartnerLabels, RefusedLabels, StreamLabels, TlsLabels,
        },
    },
};

/// The gauges of a running edge.
pub struct EdgeCollector(Arc<StreamContext>);

impl EdgeCollector {
    #[must_use]
    pub fn new(context: Arc<StreamContext>) -> Self {
        Self(context)
    }
}

impl fmt::Debug for EdgeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EdgeCollector")
    }
}

impl Collector for EdgeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, help, metric) in snapshot(&self.0) {
            let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(encoder)?;
        }
        Ok(())
    }
}

/// A gauge or a family of gauges, with its name and its help.
type Shown = (&'static str, &'static str, Box<dyn EncodeMetric>);

fn snapshot(context: &StreamContext) -> Vec<Shown> {
    let (streams, tls_streams) = streams(context);
    let (queue_bytes, queue_stanzas) = queues(context);
    let (trunks, trunk_pairs) = trunks(context);
    vec![
        (
            "streams",
            "Streams with at least one pair",
            Box::new(streams),
        ),
        (
            "tls_streams",
            "Those of them that are encrypted, by TLS version and cipher suite",
            Box::new(tls_streams),
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
        (
            "queue_fullest_ratio",
            "How full the fullest queue of a pair is, of settings.queueBytes",
            Box::new(fullest_queues(context)),
        ),
        (
            "peer_certificate_not_after_timestamp_seconds",
            "The first end of a certificate by which a standing stream of the partner is authenticated",
            Box::new(peer_certificates(context)),
        ),
        (
            "gateway_reachable",
            "Whether the last attempt to reach the domain's server inside succeeded",
            Box::new(gateways(context)),
        ),
        (
            "sip_connections",
            "Connections with the SIP server of the gateway, inbound those that the edge opened",
            Box::new(sip_connections(context)),
        ),
        (
            "trunks",
            "Trunks that the gateway's sidecars have to this pod",
            Box::new(trunks),
        ),
        (
            "trunk_pairs",
            "Pairs of domains that are open on them, both ways",
            Box::new(trunk_pairs),
        ),
        (
            "trunk_oldest_unacknowledged_seconds",
            "Age of the oldest stanza that went to a sidecar and is not acknowledged, and how long nothing was settled of the pair from a sidecar that waits longest; looked at each second",
            Box::new(oldest_unacknowledged(context)),
        ),
        (
            "certificate_not_after_timestamp_seconds",
            "End of a certificate of our own",
            Box::new(certificates(context)),
        ),
        (
            "draining",
            "1 where the proxy is about to end and takes nothing new",
            gauge(usize::from(context.stopping.is_cancelled())),
        ),
        (
            "attempts_bytes",
            "Memory held by what is known of attempts",
            gauge(context.attempts.bytes()),
        ),
        (
            "presence_bytes",
            "Memory held by what is known of presence that crossed",
            gauge(context.presence.bytes()),
        ),
        (
            "contacts",
            "Contacts that are known",
            gauge(context.contacts.len()),
        ),
        (
            "contacts_bytes",
            "Memory held by them",
            gauge(context.contacts.bytes()),
        ),
        (
            "contacts_waiting",
            "Changes that the contacts' store has not taken yet",
            gauge(context.contacts.waiting()),
        ),
        (
            "contacts_not_recorded",
            "Contacts that were not recorded, or not kept",
            Box::new(not_recorded(context)),
        ),
    ]
}

fn gauge(value: usize) -> Box<dyn EncodeMetric> {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    Box::new(gauge)
}

fn streams(context: &StreamContext) -> (Family<StreamLabels, Gauge>, Family<TlsLabels, Gauge>) {
    let config = context.config();
    let streams = Family::<StreamLabels, Gauge>::default();
    let tls_streams = Family::<TlsLabels, Gauge>::default();
    for entry in context.streams.all() {
        let facts = entry.facts();
        let Some(method) = facts.method else { continue };
        let side = side_label(entry.side);
        if let (Some(version), Some(cipher)) = (facts.tls_version, facts.tls_cipher) {
            let labels = TlsLabels {
                side,
                version,
                cipher,
            };
            tls_streams.get_or_create_owned(&labels).inc();
        }
        let labels = StreamLabels {
            side,
            partner: facts
                .partner(entry.side, &config)
                .unwrap_or(OTHER)
                .to_owned(),
            direction: if entry.is_bidirectional() {
                "both"
            } else {
                direction_label(entry.direction())
            },
            method: method.as_str(),
        };
        streams.get_or_create_owned(&labels).inc();
    }
    (streams, tls_streams)
}

fn queues(context: &StreamContext) -> (Family<PartnerLabels, Gauge>, Family<PartnerLabels, Gauge>) {
    let config = context.config();
    let (bytes, stanzas) = (Family::default(), Family::default());
    for route in context.router.all() {
        let labels = route_labels(&config, &route);
        let add = |family: &Family<PartnerLabels, Gauge>, value: u64| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create_owned(&labels).inc_by(value);
        };
        add(&bytes, route.held() as u64);
        add(&stanzas, route.waiting());
    }
    (bytes, stanzas)
}

/// Of the pair of a partner that holds the most, each direction.
fn fullest_queues(context: &StreamContext) -> Family<PartnerLabels, SecondsGauge> {
    let config = context.config();
    let limit = config.document.settings.queue_bytes as f64;
    let fullest = Family::<PartnerLabels, SecondsGauge>::default();
    for route in context.router.all() {
        let labels = route_labels(&config, &route);
        let ratio = route.held() as f64 / limit;
        let gauge = fullest.get_or_create_owned(&labels);
        gauge.set(gauge.get().max(ratio));
    }
    fullest
}

fn route_labels(config: &ActiveConfig, route: &Route) -> PartnerLabels {
    let partner = config.pair_partner(route.side, &route.pair);
    PartnerLabels {
        partner: partner.unwrap_or(OTHER).to_owned(),
        direction: direction_label(match route.side {
            Side::Partner => Direction::Outbound,
            Side::Gateway => Direction::Inbound,
        }),
    }
}

/// A certificate that proves nothing may have ended long ago.
fn peer_certificates(context: &StreamContext) -> Family<NameLabel, Gauge> {
    let config = context.config();
    let ends = Family::<NameLabel, Gauge>::default();
    let streams = context.streams.all().into_iter();
    for entry in streams.filter(|entry| entry.side == Side::Partner) {
        let facts = entry.facts();
        let (Some(Method::SaslOverTls), Some(end), Some(partner)) = (
            facts.method,
            facts.peer_certificate_not_after,
            facts.partner(entry.side, &config),
        ) else {
            continue;
        };
        let label = NameLabel {
            partner: partner.to_owned(),
        };
        let is_first = ends
            .get(&label)
            .is_none_or(|known| end.as_second() < known.get());
        if is_first {
            ends.get_or_create_owned(&label).set(end.as_second());
        }
    }
    ends
}

fn gateways(context: &StreamContext) -> Family<DomainLabel, Gauge> {
    let config = context.config();
    let reachable = Family::<DomainLabel, Gauge>::default();
    let domains = config.gateways().iter().flat_map(|own| &own.config.domains);
    for domain in domains {
        if let Some(is) = context.attempts.gateway_reachable(domain) {
            let domain = domain.to_string();
            reachable
                .get_or_create_owned(&DomainLabel { domain })
                .set(i64::from(is));
        }
    }
    reachable
}

fn sip_connections(context: &StreamContext) -> Family<GatewayDirectionLabels, Gauge> {
    let config = context.config();
    let connections = Family::<GatewayDirectionLabels, Gauge>::default();
    for gateway in config.gateways().iter().map(|own| &own.config) {
        let name = gateway.effective_name();
        let Some(link) = context.sip.of(name) else {
            continue;
        };
        let shown = link.shown();
        for (direction, count) in [
            (Direction::Inbound, shown.opened),
            (Direction::Outbound, shown.accepted),
        ] {
            let labels = GatewayDirectionLabels {
                gateway: name.to_owned(),
                direction: direction_label(direction),
            };
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            connections.get_or_create_owned(&labels).set(count);
        }
    }
    connections
}

fn trunks(context: &StreamContext) -> (Family<GatewayLabel, Gauge>, Family<GatewayLabel, Gauge>) {
    let config = context.config();
    let (trunks, pairs) = (Family::default(), Family::default());
    let with_sidecars = config.gateways().iter().map(|own| &own.config);
    for gateway in with_sidecars.filter(|own| own.takes_trunks()) {
        let name = gateway.effective_name();
        let own = context.trunks.sidecars_of(name);
        if own.is_empty() && gateway.mode == GatewayMode::Direct {
            // Prepared, and nobody need be there yet.
            continue;
        }
        let open = own.iter().map(|own| own.facts.figures.pairs()).sum();
        let set = |family: &Family<GatewayLabel, Gauge>, value: u64| {
            let labels = GatewayLabel {
                gateway: name.to_owned(),
            };
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create_owned(&labels).set(value);
        };
        set(&trunks, own.len() as u64);
        set(&pairs, open);
    }
    (trunks, pairs)
}

/// Of all trunks of a gateway together.
fn oldest_unacknowledged(context: &StreamContext) -> Family<GatewayDirectionLabels, SecondsGauge> {
    let config = context.config();
    let ages = Family::<GatewayDirectionLabels, SecondsGauge>::default();
    let now = Instant::now();
    let with_sidecars = config.gateways().iter().map(|own| &own.config);
    for gateway in with_sidecars.filter(|own| own.takes_trunks()) {
        let name = gateway.effective_name();
        let trunks = context.trunks.sidecars_of(name);
        let oldest = trunks.iter().map(|own| own.facts.figures.oldest());
        let sent = oldest.clone().filter_map(|own| own.sent).min();
        let received = oldest.filter_map(|own| own.received).min();
        for (direction, since) in [(Direction::Inbound, sent), (Direction::Outbound, received)] {
            let age = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            let labels = GatewayDirectionLabels {
                gateway: name.to_owned(),
                direction: direction_label(direction),
            };
            ages.get_or_create_owned(&labels).set(age.as_secs_f64());
        }
    }
    ages
}

fn certificates(context: &StreamContext) -> Family<CertificateLabel, Gauge> {
    let config = context.config();
    let identity = config.identity.as_ref().map(|own| own.not_after());
    let issuer = config.leaves.as_ref().map(|own| own.not_after());
    let ends = Family::<CertificateLabel, Gauge>::default();
    let sip = config.sip_certificates();
    let sip = sip.map(|(_, identity)| identity.not_after()).min();
    for (certificate, not_after) in [
        ("edge", identity),
        ("internal-issuer", issuer),
        ("sip", sip),
    ] {
        if let Some(not_after) = not_after {
            ends.get_or_create_owned(&CertificateLabel { certificate })
                .set(not_after.as_second());
        }
    }
    ends
}

fn not_recorded(context: &StreamContext) -> Family<RefusedLabels, Counter> {
    let counts = Family::<RefusedLabels, Counter>::default();
    for (error, count) in context.contacts.not_recorded() {
        let reason = error.label();
        counts
            .get_or_create_owned(&RefusedLabels { reason })
            .inc_by(count);
    }
    counts
}

fn side_label(side: Side) -> &'static str {
    match side {
        Side::Partner => "partner",
        Side::Gateway => "gateway",
    }
}
