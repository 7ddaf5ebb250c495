//! When to try again: at once after the first failure, then a quarter of a second, doubling, with
//! jitter, to a minute. The short first steps bridge the restart of a partner's server.

use std::time::Duration;

/// Longest pause between tries.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The first pause.
const FIRST: Duration = Duration::from_millis(250);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure. `jitter` is random in 0..1 and takes up to half away.
    pub fn failed(&mut self, jitter: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Duration::ZERO,
            more => {
                let doubled = FIRST.saturating_mul(1 << (more - 2).min(8)).min(LONGEST);
                doubled.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_from_nothing_to_a_minute_and_starts_over() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.failed(0.5), Duration::ZERO);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let pause = backoff.failed(0.0);
            assert!(pause >= last && pause <= LONGEST);
            last = pause;
        }
        assert_eq!(last, LONGEST);
        assert!(backoff.failed(1.0) >= LONGEST / 2);
        backoff.succeeded();
        assert_eq!(backoff.failed(0.9), Duration::ZERO);
    }
}
