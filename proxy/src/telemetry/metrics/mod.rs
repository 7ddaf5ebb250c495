//! Metrics, prefix `xmpp_edge_`. Labels are bounded: partners by their object's name, causes by the
//! words of enums. Streams hold their counters; no label is looked up for a stanza. What is not counted
//! as it happens is looked at when metrics are asked for (`admin::collector`).

mod histogram;
pub mod labels;
mod reasons;
mod series;
pub mod sidecar;
mod sip;
mod totals;

use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};
use xmpp_edge_crds::{negotiation::Method, verdict::Direction};

pub use histogram::AtomicHistogram;
use labels::{
    AttemptLabels, BuildLabels, ConditionLabels, HandshakeLabels, KindLabels, ListenerLabel,
    NameLabel, PartnerLabels, ReasonLabels, RefusedLabels, TrunkEndLabels,
};
pub use reasons::ReasonCounters;
use series::{ForgetPartner, PartnerFamily};
use sidecar::SidecarCounters;
use sip::SipCounters;
pub use sip::SubscriptionCounts;
pub use totals::{MetricTotals, RefusalCount};

/// Label of whoever is no configured partner.
pub const OTHER: &str = "other";

type SecondsCounter = Counter<f64, std::sync::atomic::AtomicU64>;
/// A gauge of seconds.
pub type SecondsGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// The counters of one pair in one direction, held by the stream that receives it.
#[derive(Clone, Debug)]
pub struct PairCounters {
    message: Counter,
    presence: Counter,
    iq: Counter,
    bytes: Counter,
}

impl PairCounters {
    /// All that was counted.
    pub fn add(&self, tally: StanzaTally) {
        for (counter, by) in [
            (&self.message, tally.messages),
            (&self.presence, tally.presences),
            (&self.iq, tally.iqs),
            (&self.bytes, tally.bytes),
        ] {
            if by > 0 {
                counter.inc_by(by);
            }
        }
    }
}

/// Stanzas of one pair, counted by the stream that receives them: its counters are shared by all streams of
/// the partner, on whatever core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StanzaTally {
    pub messages: u64,
    pub presences: u64,
    pub iqs: u64,
    pub bytes: u64,
}

/// What became of stanzas for a reason.
#[derive(Clone, Copy, Debug)]
enum ReasonFamily {
    Refused,
    Audited,
}

/// All metrics of a proxy that are counted as things happen.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    stanzas: PartnerFamily<KindLabels, Counter>,
    stanza_bytes: PartnerFamily<PartnerLabels, Counter>,
    refused: PartnerFamily<ReasonLabels, Counter>,
    audited: PartnerFamily<ReasonLabels, Counter>,
    bounced: PartnerFamily<ConditionLabels, Counter>,
    attempts: PartnerFamily<AttemptLabels, Counter>,
    handshake: PartnerFamily<HandshakeLabels, Histogram>,
    throttled: PartnerFamily<PartnerLabels, SecondsCounter>,
    last_connected: PartnerFamily<NameLabel, Gauge>,
    peer_key_changed: PartnerFamily<NameLabel, Counter>,
    probe_success: PartnerFamily<NameLabel, Gauge>,
    probe_seconds: PartnerFamily<NameLabel, SecondsGauge>,
    connections: Family<ListenerLabel, Counter>,
    connections_refused: Family<RefusedLabels, Counter>,
    trunk_ends: Family<TrunkEndLabels, Counter>,
    sidecar: SidecarCounters,
    sip: SipCounters,
    pub forward_seconds: AtomicHistogram,
    pub stanza_size: AtomicHistogram,
    pub config_generation: Gauge<u64, std::sync::atomic::AtomicU64>,
    pub config_rejected: Counter,
    /// 0 while the newest configuration was not taken.
    pub config_last_reload_successful: Gauge,
    pub contacts_loaded: Gauge,
    pub contacts_store_failing: Gauge,
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
        let mut metrics = Self {
            registry: Registry::with_prefix("xmpp_edge"),
            stanzas: PartnerFamily::default(),
            stanza_bytes: PartnerFamily::default(),
            refused: PartnerFamily::default(),
            audited: PartnerFamily::default(),
            bounced: PartnerFamily::default(),
            attempts: PartnerFamily::default(),
            handshake: PartnerFamily::new_with_constructor(handshake_histogram),
            throttled: PartnerFamily::default(),
            last_connected: PartnerFamily::default(),
            peer_key_changed: PartnerFamily::default(),
            probe_success: PartnerFamily::default(),
            probe_seconds: PartnerFamily::default(),
            connections: Family::default(),
            connections_refused: Family::default(),
            trunk_ends: Family::default(),
            sidecar: SidecarCounters::default(),
            sip: SipCounters::default(),
            forward_seconds: AtomicHistogram::new([
                0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.01,
                0.1, 1.0, 10.0,
            ]),
            stanza_size: AtomicHistogram::new([
                128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 16_384.0, 65_536.0, 262_144.0,
            ]),
            config_generation: Gauge::default(),
            config_rejected: Counter::default(),
            config_last_reload_successful: Gauge::default(),
            contacts_loaded: Gauge::default(),
            contacts_store_failing: Gauge::default(),
        };
        metrics.config_last_reload_successful.set(1);
        metrics.registry = metrics.registered();
        metrics
    }

    /// What is shown of all of these.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn registered(&self) -> Registry {
        fn add(registry: &mut Registry, name: &str, help: &str, metric: impl Metric) {
            registry.register(name, help, metric);
        }
        let mut registry = Registry::with_prefix("xmpp_edge");
        let r = &mut registry;
        add(
            r,
            "stanzas",
            "Stanzas taken in from authenticated pairs",
            self.stanzas.clone(),
        );
        add(
            r,
            "stanza_bytes",
            "Bytes of those stanzas",
            self.stanza_bytes.clone(),
        );
        add(
            r,
            "stanzas_refused",
            "Stanzas that policy refused",
            self.refused.clone(),
        );
        add(
            r,
            "stanzas_audited",
            "Stanzas delivered in mode Audit that policy would refuse",
            self.audited.clone(),
        );
        add(
            r,
            "stanzas_bounced",
            "Stanzas that passed policy and were answered or dropped because they could not be handed on",
            self.bounced.clone(),
        );
        add(
            r,
            "connections",
            "Connections taken by a listener",
            self.connections.clone(),
        );
        add(
            r,
            "connections_refused",
            "Connections and streams refused by a bound",
            self.connections_refused.clone(),
        );
        add(
            r,
            "trunk_ends",
            "Trunks whose other end broke the rules, or was not there any more",
            self.trunk_ends.clone(),
        );
        add(
            r,
            "attempts",
            "Steps of attempts to set up a stream",
            self.attempts.clone(),
        );
        add(
            r,
            "config_generation",
            "Generation of the configuration in force",
            self.config_generation.clone(),
        );
        add(
            r,
            "config_rejected",
            "Configurations that were not taken",
            self.config_rejected.clone(),
        );
        add(
            r,
            "config_last_reload_successful",
            "Whether the newest configuration was taken",
            self.config_last_reload_successful.clone(),
        );
        add(
            r,
            "contacts_loaded",
            "1 once what the contacts' store holds is known: before, contacts look like strangers",
            self.contacts_loaded.clone(),
        );
        add(
            r,
            "contacts_store_failing",
            "1 while the contacts' store takes nothing, or is not there",
            self.contacts_store_failing.clone(),
        );
        add(
            r,
            "last_connected_timestamp_seconds",
            "When a stream with the partner was last set up",
            self.last_connected.clone(),
        );
        add(
            r,
            "peer_key_changed",
            "Streams accepted with a key of the partner that was neither pinned nor known",
            self.peer_key_changed.clone(),
        );
        add(
            r,
            "probe_success",
            "Whether the last probe was answered",
            self.probe_success.clone(),
        );
        add(
            r,
            "probe_seconds",
            "Time to the answer of the last probe",
            self.probe_seconds.clone(),
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
            "stanza_size",
            "Sizes of stanzas taken in from authenticated pairs, sampled",
            Unit::Bytes,
            self.stanza_size.clone(),
        );
        r.register_with_unit(
            "throttled",
            "Time for which streams were not read because of a rate limit",
            Unit::Seconds,
            self.throttled.clone(),
        );
        self.sip.register(r);
        let build = Family::<BuildLabels, Gauge>::default();
        build
            .get_or_create_owned(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        add(
            r,
            "build_info",
            "Constant 1, labelled with the version",
            build,
        );
        registry
    }

    /// Series of this partner go away: it is no longer configured.
    pub fn forget_partner(&self, partner: &str) {
        let families: [&dyn ForgetPartner; 12] = [
            &self.stanzas,
            &self.stanza_bytes,
            &self.refused,
            &self.audited,
            &self.bounced,
            &self.attempts,
            &self.handshake,
            &self.throttled,
            &self.last_connected,
            &self.peer_key_changed,
            &self.probe_success,
            &self.probe_seconds,
        ];
        for family in families {
            family.forget(partner);
        }
    }

    /// A trunk of this gateway's sidecars ended over this.
    pub fn trunk_ended(&self, gateway: &str, reason: &'static str) {
        let labels = TrunkEndLabels {
            gateway: gateway.to_owned(),
            reason,
        };
        self.trunk_ends.get_or_create_owned(&labels).inc();
    }

    /// The counters of a pair with this partner.
    #[must_use]
    pub fn pair(&self, partner: Option<&str>, direction: Direction) -> PairCounters {
        let partner = partner.unwrap_or(OTHER).to_owned();
        let direction = direction_label(direction);
        let of = |kind| {
            self.stanzas.get(&KindLabels {
                partner: partner.clone(),
                direction,
                kind,
            })
        };
        PairCounters {
            message: of("message"),
            presence: of("presence"),
            iq: of("iq"),
            bytes: self.stanza_bytes.get(&PartnerLabels {
                partner: partner.clone(),
                direction,
            }),
        }
    }

    fn reason(
        &self,
        family: ReasonFamily,
        partner: Option<&str>,
        direction: Direction,
        reason: &'static str,
    ) -> Counter {
        let family = match family {
            ReasonFamily::Refused => &self.refused,
            ReasonFamily::Audited => &self.audited,
        };
        family.get(&ReasonLabels {
            partner: partner.unwrap_or(OTHER).to_owned(),
            direction: direction_label(direction),
            reason,
        })
    }

    /// Stanzas of `direction` could not be handed on.
    pub fn bounced(
        &self,
        partner: Option<&str>,
        direction: Direction,
        condition: &'static str,
        count: u64,
    ) {
        let labels = ConditionLabels {
            partner: partner.unwrap_or(OTHER).to_owned(),
            direction: direction_label(direction),
            condition,
        };
        self.bounced.get(&labels).inc_by(count);
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
        self.peer_key_changed.get(&name_label(Some(partner))).inc();
    }

    pub fn attempt(
        &self,
        partner: Option<&str>,
        direction: Direction,
        step: &'static str,
        outcome: &'static str,
    ) {
        let labels = AttemptLabels {
            partner: partner.unwrap_or(OTHER).to_owned(),
            direction: direction_label(direction),
            step,
            outcome,
        };
        self.attempts.get(&labels).inc();
    }

    /// The first pair of a stream is ready, so long after the connection.
    pub fn established(
        &self,
        partner: Option<&str>,
        direction: Direction,
        method: Option<Method>,
        took: Duration,
    ) {
        let labels = HandshakeLabels {
            partner: partner.unwrap_or(OTHER).to_owned(),
            direction: direction_label(direction),
            method: method.map_or("", Method::as_str),
        };
        self.handshake.get(&labels).observe(took.as_secs_f64());
    }

    /// A stream with a partner was set up.
    pub fn partner_connected(&self, partner: Option<&str>) {
        let label = name_label(partner);
        let now = Timestamp::now().as_second();
        self.last_connected.get(&label).set(now);
    }

    /// A partner is probed no longer: what the last probe brought says nothing any more.
    pub fn not_probed(&self, partner: &str) {
        self.probe_success.forget(partner);
        self.probe_seconds.forget(partner);
    }

    /// A probe of a partner was answered after so long, or not.
    pub fn probed(&self, partner: &str, took: Option<Duration>) {
        let label = name_label(Some(partner));
        self.probe_success
            .get(&label)
            .set(i64::from(took.is_some()));
        if let Some(took) = took {
            self.probe_seconds.get(&label).set(took.as_secs_f64());
        }
    }

    pub fn throttled(&self, partner: Option<&str>, direction: Direction, seconds: f64) {
        let labels = PartnerLabels {
            partner: partner.unwrap_or(OTHER).to_owned(),
            direction: direction_label(direction),
        };
        self.throttled.get(&labels).inc_by(seconds);
    }
}

fn name_label(partner: Option<&str>) -> NameLabel {
    NameLabel {
        partner: partner.unwrap_or(OTHER).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn every_series_of_a_removed_partner_goes_and_those_of_the_others_stay() {
        let metrics = Metrics::new();
        for partner in ["gone", "stays"] {
            let (name, direction) = (Some(partner), Direction::Inbound);
            metrics.pair(name, direction).add(StanzaTally {
                messages: 1,
                bytes: 1,
                ..StanzaTally::default()
            });
            for family in [ReasonFamily::Refused, ReasonFamily::Audited] {
                metrics.reason(family, name, direction, "Contact").inc();
            }
            metrics.bounced(name, direction, "dropped", 1);
            metrics.attempt(name, direction, "tls", "Ok");
            metrics.established(name, direction, None, Duration::ZERO);
            metrics.partner_connected(name);
            metrics.peer_key_changed(partner);
            metrics.probed(partner, Some(Duration::ZERO));
            metrics.throttled(name, direction, 1.0);
        }
        let text = || {
            let mut text = String::new();
            encode(&mut text, metrics.registry()).unwrap();
            text
        };
        let series = |text: &str, partner: &str| {
            let label = format!("partner=\"{partner}\"");
            text.lines().filter(|line| line.contains(&label)).count()
        };
        let before = text();
        let of_one = series(&before, "gone");
        assert!(of_one >= 12, "{before}");
        metrics.forget_partner("gone");
        let after = text();
        assert_eq!(series(&after, "gone"), 0, "{after}");
        assert_eq!(series(&after, "stays"), of_one);
    }
}
