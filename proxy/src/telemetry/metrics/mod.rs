//! Metrics, prefix `xmpp_edge_`. Labels are bounded: partners by their object's name, causes by the
//! words of enums. StreamRegistry hold their counters; no label is looked up for a stanza.

mod labels;
mod snapshot;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use xmpp_edge_crds::{
    negotiation::Method,
    verdict::{Direction, Reason},
};

pub(crate) use labels::NameLabel;
use labels::{
    AttemptLabels, BuildLabels, CertificateLabel, ConditionLabels, DomainLabel, HandshakeLabels,
    KindLabels, ListenerLabel, PartnerLabels, ReasonLabels, RefusedLabels, StreamLabels, TlsLabels,
};

use crate::{
    config::ActiveConfig, negotiation::Side, routing::route::Route, stream::registry::StreamInfo,
    xml::stanza::StanzaKind,
};

/// Label of whoever is no configured partner.
const OTHER: &str = "other";

/// The counters of one pair in one direction, held by the stream that receives it.
#[derive(Clone, Debug)]
pub struct PairCounters {
    message: Counter,
    presence: Counter,
    iq: Counter,
    bytes: Counter,
}

impl PairCounters {
    pub fn stanza(&self, kind: StanzaKind, bytes: usize) {
        match kind {
            StanzaKind::Message => self.message.inc(),
            StanzaKind::Presence => self.presence.inc(),
            StanzaKind::Iq => self.iq.inc(),
        };
        self.bytes.inc_by(bytes as u64);
    }
}

/// All metrics of a proxy.
pub struct Metrics {
    registry: Mutex<Registry>,
    stanzas: Family<KindLabels, Counter>,
    stanza_bytes: Family<PartnerLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    audited: Family<ReasonLabels, Counter>,
    bounced: Family<ConditionLabels, Counter>,
    connections_refused: Family<RefusedLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    handshake: Family<HandshakeLabels, Histogram, fn() -> Histogram>,
    pub forward_seconds: Histogram,
    throttled: Family<PartnerLabels, Counter<f64, std::sync::atomic::AtomicU64>>,
    pub config_generation: Gauge<u64, std::sync::atomic::AtomicU64>,
    pub config_rejected: Counter,
    streams: Family<StreamLabels, Gauge>,
    tls_streams: Family<TlsLabels, Gauge>,
    connections: Family<ListenerLabel, Counter>,
    pub stanza_size: Histogram,
    draining: Gauge,
    queue_bytes: Family<PartnerLabels, Gauge>,
    queue_stanzas: Family<PartnerLabels, Gauge>,
    certificate_not_after: Family<CertificateLabel, Gauge>,
    pub(crate) peer_certificate_not_after: Family<NameLabel, Gauge>,
    pub(crate) last_connected: Family<NameLabel, Gauge>,
    peer_key_changed: Family<NameLabel, Counter>,
    gateway_reachable: Family<DomainLabel, Gauge>,
    pub(crate) probe_success: Family<NameLabel, Gauge>,
    pub(crate) probe_seconds: Family<NameLabel, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

fn handshake_histogram() -> Histogram {
    Histogram::new([
        0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ])
}

/// `inbound` or `outbound`, in every label.
#[must_use]
pub fn direction_label(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("xmpp_edge")),
            stanzas: Family::default(),
            stanza_bytes: Family::default(),
            refused: Family::default(),
            audited: Family::default(),
            bounced: Family::default(),
            connections_refused: Family::default(),
            attempts: Family::default(),
            handshake: Family::new_with_constructor(handshake_histogram),
            forward_seconds: Histogram::new([
                0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.01,
                0.1, 1.0, 10.0,
            ]),
            throttled: Family::default(),
            config_generation: Gauge::default(),
            config_rejected: Counter::default(),
            streams: Family::default(),
            tls_streams: Family::default(),
            connections: Family::default(),
            stanza_size: Histogram::new([
                128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 16_384.0, 65_536.0, 262_144.0,
            ]),
            draining: Gauge::default(),
            queue_bytes: Family::default(),
            queue_stanzas: Family::default(),
            certificate_not_after: Family::default(),
            peer_certificate_not_after: Family::default(),
            last_connected: Family::default(),
            peer_key_changed: Family::default(),
            gateway_reachable: Family::default(),
            probe_success: Family::default(),
            probe_seconds: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock();
        let r = &mut *registry;
        r.register(
            "stanzas",
            "Stanzas taken in from authenticated pairs",
            self.stanzas.clone(),
        );
        r.register(
            "stanza_bytes",
            "Bytes of those stanzas",
            self.stanza_bytes.clone(),
        );
        r.register(
            "stanzas_refused",
            "Stanzas that policy refused",
            self.refused.clone(),
        );
        r.register(
            "stanzas_audited",
            "Stanzas delivered in mode Audit that policy would refuse",
            self.audited.clone(),
        );
        r.register(
            "stanzas_bounced",
            "Stanzas that passed policy and were answered or dropped because they could not be handed on",
            self.bounced.clone(),
        );
        r.register(
            "connections_refused",
            "Connections and streams refused by a bound",
            self.connections_refused.clone(),
        );
        r.register(
            "attempts",
            "Steps of attempts to set up a stream",
            self.attempts.clone(),
        );
        r.register_with_unit(
            "handshake",
            "From connection to the first authenticated pair",
            Unit::Seconds,
            self.handshake.clone(),
        );
        r.register_with_unit(
            "stanza_forward",
            "From reading a stanza to writing it to the next hop, sampled",
            Unit::Seconds,
            self.forward_seconds.clone(),
        );
        r.register_with_unit(
            "throttled",
            "Time for which streams were not read because of a rate limit",
            Unit::Seconds,
            self.throttled.clone(),
        );
        r.register(
            "config_generation",
            "Generation of the configuration in force",
            self.config_generation.clone(),
        );
        r.register(
            "config_rejected",
            "Configurations that were not taken",
            self.config_rejected.clone(),
        );
        r.register(
            "streams",
            "StreamRegistry with at least one pair",
            self.streams.clone(),
        );
        r.register(
            "tls_streams",
            "Those of them that are encrypted, by TLS version and cipher suite",
            self.tls_streams.clone(),
        );
        r.register(
            "connections",
            "Connections taken by a listener",
            self.connections.clone(),
        );
        r.register_with_unit(
            "stanza_size",
            "Sizes of stanzas taken in from authenticated pairs, sampled",
            Unit::Bytes,
            self.stanza_size.clone(),
        );
        r.register(
            "draining",
            "1 where the proxy is about to end and takes nothing new",
            self.draining.clone(),
        );
        r.register(
            "queue_bytes",
            "Memory held by queues",
            self.queue_bytes.clone(),
        );
        r.register(
            "queue_stanzas",
            "Stanzas that wait in queues",
            self.queue_stanzas.clone(),
        );
        r.register(
            "certificate_not_after_timestamp_seconds",
            "End of a certificate of our own",
            self.certificate_not_after.clone(),
        );
        r.register(
            "peer_certificate_not_after_timestamp_seconds",
            "End of the partner's certificate, as last seen",
            self.peer_certificate_not_after.clone(),
        );
        r.register(
            "last_connected_timestamp_seconds",
            "When a stream with the partner last stood",
            self.last_connected.clone(),
        );
        r.register(
            "peer_key_changed",
            "StreamRegistry accepted with a key of the partner that was neither pinned nor known",
            self.peer_key_changed.clone(),
        );
        r.register(
            "gateway_reachable",
            "Whether the last attempt to reach the domain's server inside succeeded",
            self.gateway_reachable.clone(),
        );
        r.register(
            "probe_success",
            "Whether the last probe was answered",
            self.probe_success.clone(),
        );
        r.register(
            "probe_seconds",
            "Time to the answer of the last probe",
            self.probe_seconds.clone(),
        );
        let build = Family::<BuildLabels, Gauge>::default();
        build
            .get_or_create_owned(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        r.register("build_info", "Constant 1, labelled with the version", build);
    }

    /// The counters of a pair with this partner.
    #[must_use]
    pub fn pair(&self, partner: Option<&str>, direction: Direction) -> PairCounters {
        let partner = partner.unwrap_or(OTHER).to_owned();
        let direction = direction_label(direction);
        let of = |kind| {
            self.stanzas.get_or_create_owned(&KindLabels {
                partner: partner.clone(),
                direction,
                kind,
            })
        };
        PairCounters {
            message: of("message"),
            presence: of("presence"),
            iq: of("iq"),
            bytes: self.stanza_bytes.get_or_create_owned(&PartnerLabels {
                partner: partner.clone(),
                direction,
            }),
        }
    }

    pub fn refused(&self, partner: Option<&str>, direction: Direction, reason: &'static str) {
        let partner = partner.unwrap_or(OTHER).to_owned();
        let direction = direction_label(direction);
        self.refused
            .get_or_create_owned(&ReasonLabels {
                partner,
                direction,
                reason,
            })
            .inc();
    }

    pub fn audited(&self, partner: Option<&str>, direction: Direction, reason: Reason) {
        let partner = partner.unwrap_or(OTHER).to_owned();
        let direction = direction_label(direction);
        let reason = reason.as_str();
        self.audited
            .get_or_create_owned(&ReasonLabels {
                partner,
                direction,
                reason,
            })
            .inc();
    }

    /// A stanza of `direction` could not be handed on; `back` leads to its sender.
    pub fn bounced(
        &self,
        config: &ActiveConfig,
        back: &Route,
        direction: Direction,
        condition: &'static str,
    ) {
        let partner = partner_of(config, back);
        let direction = direction_label(direction);
        self.bounced
            .get_or_create_owned(&ConditionLabels {
                partner,
                direction,
                condition,
            })
            .inc();
    }

    /// Answers that could not be delivered.
    pub fn dropped(
        &self,
        config: &ActiveConfig,
        route: &Route,
        condition: &'static str,
        count: u64,
    ) {
        let partner = partner_of(config, route);
        let direction = direction_label(route_direction(route));
        tracing::warn!(pair = %route.pair, count, "answers could not be delivered");
        self.bounced
            .get_or_create_owned(&ConditionLabels {
                partner,
                direction,
                condition,
            })
            .inc_by(count);
    }

    /// A connection came to a listener.
    pub fn connected(&self, listener: &'static str) {
        self.connections
            .get_or_create_owned(&ListenerLabel { listener })
            .inc();
    }

    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused
            .get_or_create_owned(&RefusedLabels { reason })
            .inc();
    }

    /// A stream was accepted although `partner` showed a key that is not on record.
    pub fn peer_key_changed(&self, partner: &str) {
        let label = NameLabel {
            partner: partner.to_owned(),
        };
        self.peer_key_changed.get_or_create_owned(&label).inc();
    }

    pub fn attempt(
        &self,
        partner: Option<&str>,
        direction: Direction,
        step: &'static str,
        outcome: &'static str,
    ) {
        let partner = partner.unwrap_or(OTHER).to_owned();
        let direction = direction_label(direction);
        self.attempts
            .get_or_create_owned(&AttemptLabels {
                partner,
                direction,
                step,
                outcome,
            })
            .inc();
    }

    /// The first pair of a stream stands.
    pub fn established(&self, entry: &StreamInfo, config: &ActiveConfig) {
        let facts = entry.facts();
        let partner = stream_partner(entry, config);
        let method = facts.method.map_or("", Method::as_str);
        let direction = direction_label(entry.direction());
        self.handshake
            .get_or_create_owned(&HandshakeLabels {
                partner: partner.clone(),
                direction,
                method,
            })
            .observe(entry.opened.elapsed().as_secs_f64());
        if entry.side == Side::Partner {
            let label = NameLabel { partner };
            self.last_connected
                .get_or_create_owned(&label)
                .set(jiff::Timestamp::now().as_second());
            if let Some(not_after) = facts.peer_certificate_not_after {
                self.peer_certificate_not_after
                    .get_or_create_owned(&label)
                    .set(not_after.as_second());
            }
        }
    }

    pub fn throttled(&self, partner: Option<&str>, direction: Direction, seconds: f64) {
        let partner = partner.unwrap_or(OTHER).to_owned();
        let direction = direction_label(direction);
        self.throttled
            .get_or_create_owned(&PartnerLabels { partner, direction })
            .inc_by(seconds);
    }

    /// OpenMetrics text, with what else there is to measure in the process; what is a snapshot of the
    /// edge is taken now.
    #[must_use]
    pub fn text(&self, edge: Option<&crate::edge::Edge>, further: Option<&Registry>) -> String {
        if let Some(edge) = edge {
            self.snapshot(edge);
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode_registry(&mut text, &self.registry.lock());
        if let Some(further) = further {
            let _ = encode_registry(&mut text, further);
        }
        let _ = encode_eof(&mut text);
        text
    }

    /// Series of partners that are no longer configured go away.
    pub fn forget_partners(&self, gone: &[String]) {
        for partner in gone {
            for direction in ["inbound", "outbound"] {
                for kind in ["message", "presence", "iq"] {
                    self.stanzas.remove(&KindLabels {
                        partner: partner.clone(),
                        direction,
                        kind,
                    });
                }
                self.stanza_bytes.remove(&PartnerLabels {
                    partner: partner.clone(),
                    direction,
                });
                self.throttled.remove(&PartnerLabels {
                    partner: partner.clone(),
                    direction,
                });
            }
            let label = NameLabel {
                partner: partner.clone(),
            };
            self.peer_certificate_not_after.remove(&label);
            self.last_connected.remove(&label);
            self.peer_key_changed.remove(&label);
            self.probe_success.remove(&label);
            self.probe_seconds.remove(&label);
        }
    }
}

fn route_direction(route: &Route) -> Direction {
    match route.side {
        Side::Partner => Direction::Outbound,
        Side::Gateway => Direction::Inbound,
    }
}

/// The partner's object name of a route in either direction.
fn partner_of(config: &ActiveConfig, route: &Route) -> String {
    let domain = match route.side {
        Side::Partner => &route.pair.to,
        Side::Gateway => &route.pair.from,
    };
    config
        .partner(domain)
        .map_or(OTHER, |partner| partner.name.as_str())
        .to_owned()
}

/// The partner's object name behind a stream.
pub(crate) fn stream_partner(entry: &StreamInfo, config: &ActiveConfig) -> String {
    let facts = entry.facts();
    let received = facts.receives.first().map(|pair| match entry.side {
        Side::Partner => &pair.from,
        Side::Gateway => &pair.to,
    });
    let sent = facts.sends.first().map(|pair| match entry.side {
        Side::Partner => &pair.to,
        Side::Gateway => &pair.from,
    });
    received
        .or(sent)
        .and_then(|domain| config.partner(domain))
        .map_or(OTHER, |partner| partner.name.as_str())
        .to_owned()
}
