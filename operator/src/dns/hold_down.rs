//! Hold-down on the way into DNS: a pool whose pods come and go is not led to again at once.
//!
//! Each time that the last ready pod goes is a flap. A pool that comes back waits, after the first flap
//! 5 s, after each further one twice as long, at most a minute, before it counts as serving; ten
//! minutes in service and the flaps are forgotten. On the way out nothing is held, and the switches
//! of the spec are no flaps. Pure: the time is given.

use std::time::{Duration, Instant};

use super::wanted::Availability;

/// After the first flap.
const FIRST: Duration = Duration::from_secs(5);
/// At most.
const LONGEST: Duration = Duration::from_secs(60);
/// In service for so long, and what was before counts no more.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

/// Of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldDown {
    flaps: u32,
    /// Since when it serves by its pods; `None` while it does not.
    serving_since: Option<Instant>,
}

impl HoldDown {
    /// What a pool counts as whose pods say `seen`, and after what time that may be another although
    /// nothing changes.
    pub fn observe(
        &mut self,
        seen: Availability,
        now: Instant,
    ) -> (Availability, Option<Duration>) {
        match seen {
            Availability::Serving => {}
            Availability::Unready => {
                if let Some(since) = self.serving_since.take() {
                    let forgotten = now.duration_since(since) >= FORGOTTEN;
                    let before = if forgotten { 0 } else { self.flaps };
                    self.flaps = before.saturating_add(1);
                }
                return (seen, None);
            }
            // That says nothing of the pods.
            Availability::OutOfService | Availability::Removed => return (seen, None),
        }
        let since = *self.serving_since.get_or_insert(now);
        let served = now.duration_since(since);
        if served >= FORGOTTEN {
            self.flaps = 0;
        }
        match self.pause().checked_sub(served) {
            None | Some(Duration::ZERO) => (Availability::Serving, None),
            Some(left) => (Availability::Unready, Some(left)),
        }
    }

    fn pause(&self) -> Duration {
        match self.flaps {
            0 => Duration::ZERO,
            flaps => FIRST.saturating_mul(1 << (flaps - 1).min(16)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Availability::{OutOfService, Serving, Unready};

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_first_way_in_is_not_held_and_none_out() {
        let start = Instant::now();
        let mut held = HoldDown::default();
        assert_eq!(held.observe(Unready, start), (Unready, None));
        assert_eq!(held.observe(Serving, start), (Serving, None));
        assert_eq!(held.observe(Unready, start), (Unready, None));
    }

    #[test]
    fn each_flap_doubles_the_pause_up_to_a_minute() {
        let mut now = Instant::now();
        let mut held = HoldDown::default();
        held.observe(Serving, now);
        for expected in [5, 10, 20, 40, 60, 60] {
            assert_eq!(held.observe(Unready, now).0, Unready);
            assert_eq!(
                held.observe(Serving, now),
                (Unready, Some(seconds(expected)))
            );
            now += seconds(expected - 1);
            assert_eq!(held.observe(Serving, now), (Unready, Some(seconds(1))));
            now += seconds(1);
            assert_eq!(held.observe(Serving, now), (Serving, None));
        }
    }

    #[test]
    fn ten_minutes_in_service_and_the_flaps_are_forgotten() {
        let start = Instant::now();
        let mut held = HoldDown::default();
        held.observe(Serving, start);
        for _ in 0..5 {
            held.observe(Unready, start);
            held.observe(Serving, start);
        }
        let later = start + seconds(600);
        assert_eq!(held.observe(Serving, later), (Serving, None));
        held.observe(Unready, later);
        assert_eq!(
            held.observe(Serving, later),
            (Unready, Some(seconds(5))),
            "one flap is all there is"
        );
    }

    #[test]
    fn the_switches_of_the_spec_are_no_flaps() {
        let start = Instant::now();
        let mut held = HoldDown::default();
        for _ in 0..5 {
            held.observe(Serving, start);
            assert_eq!(held.observe(OutOfService, start), (OutOfService, None));
        }
        assert_eq!(held.observe(Serving, start), (Serving, None));
        held.observe(Unready, start);
        held.observe(Serving, start);
        let later = start + seconds(5);
        assert_eq!(held.observe(Serving, later), (Serving, None));
        held.observe(OutOfService, later);
        assert_eq!(
            held.observe(Serving, later),
            (Serving, None),
            "what was waited for is not waited for again"
        );
    }

    #[test]
    fn a_pod_that_flaps_for_an_hour_changes_dns_a_few_times_and_not_hundreds() {
        let start = Instant::now();
        let mut held = HoldDown::default();
        let mut changes = 0;
        let mut last = Unready;
        for second in 0..3600 {
            // Ready for two seconds of every four.
            let seen = if second % 4 < 2 { Serving } else { Unready };
            let (now, _) = held.observe(seen, start + seconds(second));
            changes += u32::from(now != last);
            last = now;
        }
        assert!(changes <= 4, "{changes}");
    }
}
