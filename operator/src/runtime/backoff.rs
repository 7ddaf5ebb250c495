//! How long to wait after a failure: doubling, with jitter, up to a bound.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::runtime::utils::Backoff as WatchBackoff;

/// Doubles from `first` to `most`; each wait is between half of it and the whole.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    current: ExponentialBackoff,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        // Jitter adds up to as much again.
        let builder = ExponentialBuilder::new()
            .with_min_delay(first / 2)
            .with_max_delay(most / 2)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        Self {
            current: builder.build(),
            builder,
        }
    }

    /// For calls to the API server: half a second to ten.
    #[must_use]
    pub fn api_server() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(10))
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        self.current
            .next()
            .expect("a backoff without a bound of tries has no end")
    }

    /// It went well: the next failure waits little again.
    pub fn succeeded(&mut self) {
        self.current = self.builder.build();
    }
}

/// In `[0, 1)`; 0 where the system gives no random bytes, which jitter can bear.
#[must_use]
pub fn fraction() -> f64 {
    let mut bytes = [0_u8; 4];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.wait())
    }
}

impl WatchBackoff for Backoff {
    fn reset(&mut self) {
        self.succeeded();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_bounds_and_start_over_after_success() {
        let (first, most) = (Duration::from_millis(100), Duration::from_millis(800));
        let mut backoff = Backoff::new(first, most);
        for whole in [100_u32, 200, 400, 800, 800, 800] {
            let (wait, whole) = (backoff.wait(), Duration::from_millis(whole.into()));
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        }
        backoff.succeeded();
        assert!(backoff.wait() <= first);
    }
}
