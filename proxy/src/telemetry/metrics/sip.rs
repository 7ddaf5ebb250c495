//! What is counted of SIP servers inside.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use xmpp_edge_crds::verdict::Direction;

use super::{Metrics, direction_label};

/// Counted by links to SIP servers.
#[derive(Debug)]
pub(super) struct SipCounters {
    requests: Family<SipRequestLabels, Counter>,
    seconds: Family<SipMethodLabels, Histogram, fn() -> Histogram>,
    untranslated: Family<UntranslatedLabels, Counter>,
    late_errors: Counter,
    subscriptions: Family<SubscriptionLabels, Gauge>,
    sessions: Gauge,
}

/// Subscriptions of one SIP server: how many there are, and how many of them may see somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionCounts {
    /// The edge watches on behalf of users of partners.
    pub watcher: (usize, usize),
    /// The edge notifies users of SIP.
    pub notifier: (usize, usize),
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SubscriptionLabels {
    role: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SipRequestLabels {
    direction: &'static str,
    method: &'static str,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SipMethodLabels {
    direction: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UntranslatedLabels {
    direction: &'static str,
    kind: &'static str,
}

fn seconds_histogram() -> Histogram {
    // A partner's server answers as it likes, and a SIP server waits for half a minute.
    Histogram::new([0.002, 0.01, 0.05, 0.1, 0.35, 0.5, 1.0, 2.5, 5.0, 10.0, 32.0])
}

impl Default for SipCounters {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds_histogram),
            untranslated: Family::default(),
            late_errors: Counter::default(),
            subscriptions: Family::default(),
            sessions: Gauge::default(),
        }
    }
}

impl SipCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "sip_requests",
            "SIP requests by their final code, inbound those to a SIP server",
            self.requests.clone(),
        );
        registry.register(
            "sip_request_seconds",
            "From a SIP request that waits for somebody's answer to its final code",
            self.seconds.clone(),
        );
        registry.register(
            "sip_untranslated",
            "Stanzas and SIP messages that mean nothing on the other side and were settled",
            self.untranslated.clone(),
        );
        registry.register(
            "sip_late_errors",
            "Errors that came for SIP messages that had been answered already",
            self.late_errors.clone(),
        );
        registry.register(
            "sip_subscriptions",
            "Subscriptions to presence at SIP servers, of which the edge is watcher or notifier",
            self.subscriptions.clone(),
        );
        registry.register(
            "sip_sessions",
            "Sessions of messages with SIP servers of dialect Lync, whoever began them",
            self.sessions.clone(),
        );
    }
}

impl Metrics {
    /// A request was answered finally; `code`: none in time. Codes are three digits, so that there are 600 labels at
    /// most.
    pub fn sip_request(
        &self,
        direction: Direction,
        method: Option<&'static str>,
        code: Option<u16>,
    ) {
        let labels = SipRequestLabels {
            direction: direction_label(direction),
            method: method.unwrap_or("other"),
            code: code.map_or_else(|| "none".to_owned(), |code| code.to_string()),
        };
        self.sip.requests.get_or_create_owned(&labels).inc();
    }

    /// A request that was in work has its final code after so long.
    pub fn sip_answered(&self, direction: Direction, method: Option<&'static str>, took: Duration) {
        let labels = SipMethodLabels {
            direction: direction_label(direction),
            method: method.unwrap_or("other"),
        };
        let seconds = self.sip.seconds.get_or_create_owned(&labels);
        seconds.observe(took.as_secs_f64());
    }

    /// Something was settled that has no words on the other side.
    pub fn sip_untranslated(&self, direction: Direction, kind: &'static str) {
        let direction = direction_label(direction);
        let labels = UntranslatedLabels { direction, kind };
        self.sip.untranslated.get_or_create_owned(&labels).inc();
    }

    /// The subscriptions of one SIP server are these in place of those.
    pub fn sip_subscriptions(&self, before: SubscriptionCounts, now: SubscriptionCounts) {
        for (role, (was, was_active), (is, is_active)) in [
            ("watcher", before.watcher, now.watcher),
            ("notifier", before.notifier, now.notifier),
        ] {
            for (state, was, is) in [
                ("active", was_active, is_active),
                ("pending", was - was_active, is - is_active),
            ] {
                let gauge = self
                    .sip
                    .subscriptions
                    .get_or_create_owned(&SubscriptionLabels { role, state });
                let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
                gauge.inc_by(count(is) - count(was));
            }
        }
    }

    /// The sessions of one SIP server are so many in place of so many.
    pub fn sip_sessions(&self, before: usize, now: usize) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.sip.sessions.inc_by(count(now) - count(before));
    }

    /// An error came for what had its final code.
    pub fn sip_late_error(&self) {
        self.sip.late_errors.inc();
    }
}
