//! What is counted of SIP servers inside.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
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

    /// An error came for what had its final code.
    pub fn sip_late_error(&self) {
        self.sip.late_errors.inc();
    }
}
