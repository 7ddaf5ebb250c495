//! When to try again. While stanzas may wait: after a fifth of a second, growing to two, with jitter.
//! Once a next hop has been away for longer than that, or refuses: growing to a minute.

use std::time::{Duration, Instant};

/// Longest pause between tries.
pub const LONGEST: Duration = Duration::from_secs(60);
/// Longest pause while something waits, and what waits may still be delivered in time.
pub const LONGEST_WAITING: Duration = Duration::from_secs(2);

/// The first pause.
const FIRST: Duration = Duration::from_millis(200);
/// The first pause after a refusal that was not the first in a row.
const FIRST_REFUSED: Duration = Duration::from_millis(250);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
    /// The same, whatever time was between them.
    refusals: u32,
    row: Option<FailureRow>,
    /// When the try under way began, where it is not one of a row of them.
    began: Option<Instant>,
}

/// When the first and the last failure in a row came.
#[derive(Clone, Copy, Debug)]
struct FailureRow {
    first: Instant,
    last: Instant,
}

impl FailureRow {
    /// The longest pause until the next try, had somebody wanted it.
    fn pause(self) -> Duration {
        let failing = self.last.saturating_duration_since(self.first);
        (failing / 4).clamp(LONGEST_WAITING, LONGEST)
    }
}

impl Backoff {
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A first try begins then, because something came.
    pub fn begins(&mut self, at: Instant) {
        self.began = Some(at);
    }

    /// One more failure. One of a try that nobody wanted for longer than the pause that was due begins a new
    /// row: nobody knows what was between them.
    pub fn failed(&mut self, now: Instant) {
        let began = self.began.take();
        let gap = |row: &FailureRow| {
            let began = began.unwrap_or(row.last);
            began.saturating_duration_since(row.last)
        };
        let is_long_ago = |row: &FailureRow| now.saturating_duration_since(row.last) > 2 * LONGEST;
        if self.row.as_ref().is_none_or(is_long_ago) {
            self.refusals = 0;
        }
        let row = self
            .row
            .filter(|row| gap(row) <= 2 * row.pause() && !is_long_ago(row));
        if row.is_none() {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.refusals = self.refusals.saturating_add(1);
        self.row = Some(FailureRow {
            first: row.map_or(now, |row| row.first),
            last: now,
        });
    }

    /// How long all tries have failed.
    #[must_use]
    pub fn failing_for(&self, now: Instant) -> Duration {
        self.row.map_or(Duration::ZERO, |row| {
            now.saturating_duration_since(row.first)
        })
    }

    /// The pause while stanzas wait. `jitter` is random in 0..1 and takes up to half away.
    #[must_use]
    pub fn short_pause(&self, jitter: f64) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(8);
        jittered(
            FIRST.saturating_mul(1 << doublings).min(LONGEST_WAITING),
            jitter,
        )
    }

    /// The pause after a next hop was away for longer than stanzas wait: a quarter of the time since.
    #[must_use]
    pub fn long_pause(&self, now: Instant, jitter: f64) -> Duration {
        let pause = self.failing_for(now) / 4;
        jittered(pause.clamp(LONGEST_WAITING, LONGEST), jitter)
    }

    /// The pause after a refusal: none after the first, then doubling.
    #[must_use]
    pub fn pause_after_refusal(&self, jitter: f64) -> Duration {
        match self.refusals {
            0 | 1 => Duration::ZERO,
            more => {
                let doublings = (more - 2).min(8);
                jittered(
                    FIRST_REFUSED.saturating_mul(1 << doublings).min(LONGEST),
                    jitter,
                )
            }
        }
    }
}

fn jittered(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_stanzas_wait_the_pause_grows_from_a_fifth_of_a_second_to_two() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(now);
        assert_eq!(backoff.short_pause(0.0), FIRST);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            backoff.failed(now);
            let pause = backoff.short_pause(0.0);
            assert!(pause >= last && pause <= LONGEST_WAITING);
            last = pause;
        }
        assert_eq!(last, LONGEST_WAITING);
        assert!(backoff.short_pause(1.0) >= LONGEST_WAITING / 2);
    }

    #[test]
    fn with_nothing_waiting_the_pause_grows_to_a_minute_and_starts_over() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let mut last = Duration::ZERO;
        for seconds in (0..600).step_by(20) {
            let now = start + Duration::from_secs(seconds);
            backoff.failed(now);
            let pause = backoff.long_pause(now, 0.0);
            assert!(pause >= last && pause <= LONGEST);
            last = pause;
        }
        assert_eq!(last, LONGEST);
        backoff.succeeded();
        assert_eq!(backoff.failing_for(start), Duration::ZERO);
    }

    #[test]
    fn failures_with_a_long_silence_between_them_are_no_row() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        backoff.failed(start);
        let later = start + 3 * LONGEST;
        backoff.failed(later);
        assert_eq!(backoff.failing_for(later), Duration::ZERO);
        assert_eq!(backoff.short_pause(0.0), FIRST);
    }

    #[test]
    fn an_outage_is_new_where_nobody_tried_for_longer_than_was_due() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        // Down for 25 s, with one message.
        backoff.begins(start);
        for seconds in 0..=20 {
            backoff.failed(after(seconds));
        }
        assert_eq!(backoff.failing_for(after(20)), Duration::from_secs(20));
        // Stanzas come on: nobody can say that it was back.
        backoff.begins(after(26));
        backoff.failed(after(26));
        assert_eq!(backoff.failing_for(after(26)), Duration::from_secs(26));
        // Back for half a minute in which nobody wrote, then down again.
        backoff.begins(after(58));
        backoff.failed(after(58));
        assert_eq!(backoff.failing_for(after(58)), Duration::ZERO);
        assert_eq!(backoff.short_pause(0.0), FIRST);
    }

    #[test]
    fn refusals_are_counted_on_whatever_time_was_between_them() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        for seconds in [0, 10, 20, 30, 40] {
            let now = start + Duration::from_secs(seconds);
            backoff.begins(now);
            backoff.failed(now);
        }
        assert_eq!(backoff.pause_after_refusal(0.0), 8 * FIRST_REFUSED);
    }

    #[test]
    fn after_refusals_the_pause_grows_from_nothing_to_a_minute() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(now);
        assert_eq!(backoff.pause_after_refusal(0.5), Duration::ZERO);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            backoff.failed(now);
            let pause = backoff.pause_after_refusal(0.0);
            assert!(pause >= last && pause <= LONGEST);
            last = pause;
        }
        assert_eq!(last, LONGEST);
    }
}
