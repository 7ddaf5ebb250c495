//! What is counted of SIP servers inside.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use xmpp_edge_crds::verdict::Direction;

use super::{Metrics, direction_label};

/// Counted by links to SIP servers.
#[derive(Debug, Default)]
pub(super) struct SipCounters {
    requests: Family<SipRequestLabels, Counter>,
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
struct UntranslatedLabels {
    direction: &'static str,
    kind: &'static str,
}

impl SipCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "sip_requests",
            "SIP requests by their final code, inbound those to a SIP server",
            self.requests.clone(),
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
