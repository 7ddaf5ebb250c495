//! Rates of the last hour: how much counters grew, in samples of a constant number, so that memory is
//! bounded whatever is counted.

use std::{collections::VecDeque, time::Duration};

use crate::model::RateRecord;

/// Between two samples.
pub const SAMPLE: Duration = Duration::from_secs(10);
/// Samples that are kept: an hour.
const SAMPLES: usize = 360;

/// What is counted where an edge's rates are shown.
pub const EDGE_RATES: [&str; 5] = [
    "Stanzas inbound",
    "Stanzas outbound",
    "Stanzas refused by policy",
    "Stanzas that could not be handed on",
    "Failed steps of attempts",
];

/// How `N` counters grew. Takes `SAMPLES * N * 4` bytes, about.
#[derive(Debug)]
pub struct Rates<const N: usize> {
    labels: [&'static str; N],
    last: Option<[u64; N]>,
    grown: VecDeque<[u32; N]>,
}

impl<const N: usize> Rates<N> {
    #[must_use]
    pub fn new(labels: [&'static str; N]) -> Self {
        Self {
            labels,
            last: None,
            grown: VecDeque::with_capacity(SAMPLES),
        }
    }

    /// Takes totals, [`SAMPLE`] after those before. A total that fell (a counter that is gone) counts
    /// as not grown.
    pub fn sample(&mut self, totals: [u64; N]) {
        if let Some(last) = self.last.replace(totals) {
            let mut grown = [0; N];
            for (grown, (total, last)) in grown.iter_mut().zip(totals.into_iter().zip(last)) {
                *grown = u32::try_from(total.saturating_sub(last)).unwrap_or(u32::MAX);
            }
            while self.grown.len() >= SAMPLES {
                self.grown.pop_front();
            }
            self.grown.push_back(grown);
        }
    }

    /// One record for each counter.
    #[must_use]
    pub fn records(&self) -> Vec<RateRecord> {
        let labels = self.labels.iter().enumerate();
        labels
            .map(|(at, label)| RateRecord {
                label,
                seconds: SAMPLE.as_secs(),
                counts: self.grown.iter().map(|grown| grown[at]).collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_samples_takes_no_more_than_an_hour_of_them() {
        let mut rates = Rates::new(["in", "out"]);
        let held = rates.grown.capacity();
        for second in 0..8_640_u64 {
            rates.sample([second * 7, second]);
        }
        assert_eq!(rates.grown.len(), SAMPLES);
        assert_eq!(rates.grown.capacity(), held);
        let records = rates.records();
        assert!(records[0].counts.iter().all(|grown| *grown == 7));
        assert_eq!(records[1].counts.len(), SAMPLES);
    }

    #[test]
    fn what_was_counted_before_the_first_sample_is_no_growth_and_a_fall_is_none_either() {
        let mut rates = Rates::new(["in"]);
        for total in [1_000_000, 1_000_004, 3, 5] {
            rates.sample([total]);
        }
        assert_eq!(rates.records()[0].counts, [4, 0, 2]);
    }
}
