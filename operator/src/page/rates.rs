//! Rates of the last hour, from what the pods of all pools say that they counted. A pod that comes or goes,
//! or begins anew, is no growth and no fall.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use xmpp_edge_page::{
    board::Contents,
    model::Section,
    rates::{EDGE_RATES, Rates, SAMPLE},
};

use crate::proxy_status::{Reports, model::Totals, poll::PodKey};

/// See the module.
#[derive(Debug)]
pub struct PodRates {
    reports: Arc<Reports>,
    state: Mutex<PodSamples>,
}

#[derive(Debug)]
struct PodSamples {
    rates: Rates<5>,
    pods: HashMap<PodKey, (Option<Timestamp>, Totals)>,
    /// All growth that was seen.
    grown: [u64; 5],
}

impl PodRates {
    #[must_use]
    pub fn new(reports: Arc<Reports>) -> Self {
        let state = PodSamples {
            rates: Rates::new(EDGE_RATES),
            pods: HashMap::new(),
            grown: [0; 5],
        };
        Self {
            reports,
            state: Mutex::new(state),
        }
    }

    /// Samples until dropped.
    pub async fn follow(&self) {
        let mut tick = interval(SAMPLE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.state.lock().sample(self.reports.totals());
        }
    }

    /// Adds what there is to the page: nothing where no pod was asked, as only who leads asks.
    pub(super) fn show(&self, contents: &mut Contents) {
        let state = self.state.lock();
        if state.pods.is_empty() {
            return;
        }
        for (number, rate) in state.rates.records().iter().enumerate() {
            contents.add(Section::Rate, number.to_string(), rate);
        }
    }
}

impl PodSamples {
    fn sample(&mut self, totals: Vec<(PodKey, Option<Timestamp>, Totals)>) {
        let mut before = std::mem::take(&mut self.pods);
        for (pod, started, now) in totals {
            let known = before.remove(&pod).filter(|(began, _)| *began == started);
            if let Some((_, then)) = known {
                let (now, then) = (array(now), array(then));
                for (grown, (now, then)) in self.grown.iter_mut().zip(now.into_iter().zip(then)) {
                    *grown = grown.saturating_add(now.saturating_sub(then));
                }
            }
            self.pods.insert(pod, (started, now));
        }
        self.rates.sample(self.grown);
    }
}

/// In the order of [`EDGE_RATES`].
fn array(totals: Totals) -> [u64; 5] {
    [
        totals.inbound_stanzas,
        totals.outbound_stanzas,
        totals.refused_stanzas,
        totals.bounced_stanzas,
        totals.failed_attempts,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_comes_goes_or_begins_anew_is_no_growth_and_no_fall() {
        let rates = PodRates::new(Arc::default());
        let pod = |name: &str, began: i64, inbound_stanzas: u64| {
            let key = ("chat".to_owned(), name.to_owned());
            let totals = Totals {
                inbound_stanzas,
                ..Totals::default()
            };
            (key, Timestamp::from_second(began).ok(), totals)
        };
        let mut state = rates.state.lock();
        for pods in [
            vec![pod("a", 1, 1_000)],
            vec![pod("a", 1, 1_010), pod("b", 1, 500)],
            vec![pod("b", 1, 503)],
            vec![pod("b", 2, 900), pod("a", 1, 2_000)],
            vec![pod("b", 2, 907), pod("a", 1, 1)],
        ] {
            state.sample(pods);
        }
        assert_eq!(state.rates.records()[0].counts, [10, 3, 0, 7]);
    }
}
