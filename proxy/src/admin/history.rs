//! What page and `/status` show of what was before: rates, and what policy refused. Sampled from the metrics, so that
//! nothing is noted on the path of a stanza. Memory is a constant for the rates, and for refusals at most
//! that of the metric itself.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{remedy, verdict::Direction};
use xmpp_edge_page::{
    board::Contents,
    model::{RefusalRecord, Section},
    rates::{EDGE_RATES, Rates, SAMPLE},
};

use super::status::RefusalStatus;
use crate::telemetry::metrics::{MetricTotals, Metrics, RefusalCount, direction_label};

/// Refusals that are shown: those that grew last.
const REFUSALS: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct RecentHistory {
    state: Mutex<Samples>,
}

#[derive(Debug)]
struct Samples {
    rates: Rates<5>,
    refusals: HashMap<RefusalKey, RefusalSeen>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RefusalKey {
    partner: String,
    direction: &'static str,
    reason: &'static str,
}

#[derive(Debug)]
struct RefusalSeen {
    count: u64,
    last_time: Timestamp,
}

impl Default for RecentHistory {
    fn default() -> Self {
        let rates = Rates::new(EDGE_RATES);
        let refusals = HashMap::new();
        Self {
            state: Mutex::new(Samples { rates, refusals }),
        }
    }
}

impl RecentHistory {
    /// Samples these metrics until `stop`.
    pub async fn follow(&self, metrics: &Metrics, stop: &CancellationToken) {
        let mut tick = interval(SAMPLE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.sample(metrics.totals(), metrics.refusals(), Timestamp::now());
        }
    }

    fn sample(&self, totals: MetricTotals, refusals: Vec<RefusalCount>, now: Timestamp) {
        let mut state = self.state.lock();
        state.rates.sample([
            totals.inbound_stanzas,
            totals.outbound_stanzas,
            totals.refused_stanzas,
            totals.bounced_stanzas,
            totals.failed_attempts,
        ]);
        let mut before = std::mem::take(&mut state.refusals);
        state.refusals = refusals
            .into_iter()
            .filter(|refusal| refusal.count > 0)
            .map(|refusal| {
                let key = RefusalKey {
                    partner: refusal.partner,
                    direction: refusal.direction,
                    reason: refusal.reason,
                };
                let count = refusal.count;
                let unchanged = before.remove(&key).filter(|known| known.count == count);
                let last_time = unchanged.map_or(now, |known| known.last_time);
                (key, RefusalSeen { count, last_time })
            })
            .collect();
    }

    /// The newest refusals first, at most [`REFUSALS`].
    #[must_use]
    pub fn refusals(&self) -> Vec<RefusalStatus> {
        let state = self.state.lock();
        let refusals = state.newest().map(|(key, seen)| RefusalStatus {
            partner: key.partner.clone(),
            direction: if key.direction == direction_label(Direction::Outbound) {
                Direction::Outbound
            } else {
                Direction::Inbound
            },
            reason: key.reason,
            count: seen.count,
            last_time: seen.last_time,
        });
        refusals.collect()
    }

    /// Adds what there is to the page.
    pub(super) fn show(&self, contents: &mut Contents) {
        let state = self.state.lock();
        for (number, rate) in state.rates.records().iter().enumerate() {
            contents.add(Section::Rate, number.to_string(), rate);
        }
        for (key, seen) in state.newest() {
            let record = RefusalRecord {
                partner: key.partner.clone(),
                direction: key.direction,
                reason: key.reason.to_owned(),
                count: seen.count,
                last_time: seen.last_time,
                remedy: remedy::of_refusal(key.reason),
            };
            contents.add(Section::Refusal, record.key(), &record);
        }
    }
}

impl Samples {
    fn newest(&self) -> impl Iterator<Item = (&RefusalKey, &RefusalSeen)> {
        let mut refusals: Vec<_> = self.refusals.iter().collect();
        refusals.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.last_time));
        refusals.into_iter().take(REFUSALS)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refusal_keeps_its_time_until_it_grows_and_goes_with_its_partner() {
        let history = RecentHistory::default();
        let refusals = |counts: &[(&str, u64)]| {
            let of = |(partner, count): &(&str, u64)| RefusalCount {
                partner: (*partner).to_owned(),
                direction: "inbound",
                reason: "Contact",
                count: *count,
            };
            counts.iter().map(of).collect::<Vec<_>>()
        };
        let first = Timestamp::now();
        let later = first + Duration::from_secs(10);
        let totals = MetricTotals::default();
        history.sample(totals, refusals(&[("a", 1), ("b", 5), ("none", 0)]), first);
        history.sample(totals, refusals(&[("a", 2), ("b", 5)]), later);
        let time = |partner: &str| {
            let state = history.state.lock();
            let mut found = state
                .refusals
                .iter()
                .filter(|(key, _)| key.partner == partner);
            found.next().map(|(_, seen)| seen.last_time)
        };
        assert_eq!(time("a"), Some(later));
        assert_eq!(time("b"), Some(first));
        assert_eq!(time("none"), None);
        history.sample(totals, refusals(&[("a", 2)]), later);
        assert_eq!(time("b"), None);
    }
}
