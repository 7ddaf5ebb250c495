//! Sums over series, for the page of the admin port. They take as long as there are series: never asked
//! for on the path of a stanza.

use serde::Serialize;

use super::Metrics;

/// What was counted since the process began. A partner that is removed takes its counts along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricTotals {
    pub inbound_stanzas: u64,
    pub outbound_stanzas: u64,
    pub refused_stanzas: u64,
    pub bounced_stanzas: u64,
    pub failed_attempts: u64,
}

/// How many stanzas of a partner policy refused for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalCount {
    pub partner: String,
    pub direction: &'static str,
    pub reason: &'static str,
    pub count: u64,
}

impl Metrics {
    #[must_use]
    pub fn totals(&self) -> MetricTotals {
        let mut totals = MetricTotals::default();
        self.stanzas.each(|labels, counter| {
            let total = match labels.direction {
                "inbound" => &mut totals.inbound_stanzas,
                _ => &mut totals.outbound_stanzas,
            };
            *total += counter.get();
        });
        self.refused
            .each(|_, counter| totals.refused_stanzas += counter.get());
        self.bounced
            .each(|_, counter| totals.bounced_stanzas += counter.get());
        self.attempts.each(|labels, counter| {
            // A target that is only slow has not failed.
            if !matches!(labels.outcome, "Ok" | "TcpSilent") {
                totals.failed_attempts += counter.get();
            }
        });
        totals
    }

    /// Each series of `stanzas_refused_total`.
    #[must_use]
    pub fn refusals(&self) -> Vec<RefusalCount> {
        let mut refusals = Vec::new();
        self.refused.each(|labels, counter| {
            refusals.push(RefusalCount {
                partner: labels.partner.clone(),
                direction: labels.direction,
                reason: labels.reason,
                count: counter.get(),
            });
        });
        refusals
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::metrics::StanzaTally;
    use xmpp_edge_crds::verdict::Direction;

    use super::*;
    use crate::telemetry::metrics::ReasonFamily;

    #[test]
    fn totals_are_of_all_partners_and_a_removed_one_takes_its_own_along() {
        let metrics = Metrics::new();
        for partner in ["a", "b"] {
            metrics
                .pair(Some(partner), Direction::Inbound)
                .add(StanzaTally {
                    messages: 1,
                    bytes: 10,
                    ..StanzaTally::default()
                });
            metrics
                .pair(Some(partner), Direction::Outbound)
                .add(StanzaTally {
                    iqs: 1,
                    bytes: 10,
                    ..StanzaTally::default()
                });
            metrics.attempt(Some(partner), Direction::Outbound, "tcp", "TcpRefused");
            metrics.attempt(Some(partner), Direction::Outbound, "tcp", "TcpSilent");
            metrics.attempt(Some(partner), Direction::Outbound, "dns", "Ok");
            metrics.bounced(Some(partner), Direction::Outbound, "dropped", 3);
            let refused = ReasonFamily::Refused;
            let counter = metrics.reason(refused, Some(partner), Direction::Inbound, "Contact");
            counter.inc();
        }
        let expected = MetricTotals {
            inbound_stanzas: 2,
            outbound_stanzas: 2,
            refused_stanzas: 2,
            bounced_stanzas: 6,
            failed_attempts: 2,
        };
        assert_eq!(metrics.totals(), expected);
        metrics.forget_partner("a");
        assert_eq!(metrics.totals().bounced_stanzas, 3);
        let refusals = metrics.refusals();
        assert_eq!(refusals.len(), 1);
        assert_eq!((&*refusals[0].partner, refusals[0].count), ("b", 1));
    }
}
