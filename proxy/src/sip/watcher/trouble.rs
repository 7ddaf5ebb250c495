//! What went wrong with a watch, in a row, and when it goes on.

use std::time::{Duration, Instant};

use super::exchange::WatchMoment;

/// Most between two tries after a failure.
const MOST_BACKOFF: Duration = Duration::from_secs(60);
/// A subscription that ends at once is not taken up again before this.
const ANEW: Duration = Duration::from_secs(30);
/// Who has no presence agent now may have one in an hour; most time for a notifier that gave up.
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    failures: u32,
    /// How often in a row the notifier gave up without saying for how long.
    given_up: u32,
    /// Since when there was no success.
    since: Option<Instant>,
    /// When it was last taken up anew at once.
    anew: Option<Instant>,
}

impl Trouble {
    /// Since when there was no success; none: there was.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether nothing was put off since the last success.
    pub(super) fn is_first(&self) -> bool {
        self.failures == 0
    }

    /// Something went wrong that is not put off.
    pub(super) fn begins(&mut self, moment: WatchMoment) {
        self.since.get_or_insert(moment.now);
    }

    /// The dialog is gone: another one is opened now or, where that was just done, in a moment.
    pub(super) fn anew(&mut self, moment: WatchMoment) -> Instant {
        self.begins(moment);
        let earliest = self.anew.map(|last| last + ANEW);
        let at = earliest.map_or(moment.now, |earliest| earliest.max(moment.now));
        self.anew = Some(at);
        at
    }

    /// When what failed is tried again: each time later, up to [`MOST_BACKOFF`].
    pub(super) fn later(&mut self, moment: WatchMoment) -> Instant {
        moment.now + self.pause(moment)
    }

    /// When it is tried again though the server keeps what each try leaves there: as [`Self::later`], then each hour.
    pub(super) fn much_later(&mut self, moment: WatchMoment) -> Instant {
        let is_long = Duration::from_secs(1) * 2_u32.pow(self.failures.min(6)) > MOST_BACKOFF;
        let pause = self.pause(moment);
        moment.now + if is_long { HOUR } else { pause }
    }

    /// There is no presence agent, or none for this.
    pub(super) fn in_an_hour(&mut self, moment: WatchMoment) -> Instant {
        self.begins(moment);
        moment.now + HOUR
    }

    /// The notifier gave up and did not say for how long.
    pub(super) fn given_up(&mut self, moment: WatchMoment) -> Instant {
        let doubled = MOST_BACKOFF * 2_u32.pow(self.given_up.min(6));
        self.given_up += 1;
        moment.now + doubled.min(HOUR)
    }

    pub(super) fn success(&mut self) {
        *self = Self {
            anew: self.anew,
            ..Self::default()
        };
    }

    fn pause(&mut self, moment: WatchMoment) -> Duration {
        self.begins(moment);
        let doubled = Duration::from_secs(1) * 2_u32.pow(self.failures.min(6));
        self.failures += 1;
        doubled
            .min(MOST_BACKOFF)
            .mul_f64(1.0 - moment.jitter / 10.0)
    }
}
