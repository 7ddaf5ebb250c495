//! Writes that failed: the same is not sent again before its time, and another form of it at once.
//!
//! What the API server refuses it refuses again, at each of the looks that traffic causes. Each object
//! has a time of its own, so that one that always fails holds up no other.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How long what failed is remembered once its time has come, so that its failures are counted on.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Failed writes by object. `E` is what is to be known of the failure.
#[derive(Debug)]
pub struct HeldBack<K, E = ()> {
    writes: HashMap<K, HeldWrite<E>>,
}

#[derive(Debug)]
struct HeldWrite<E> {
    fingerprint: u64,
    /// How often it failed in a row.
    failures: u32,
    until: Instant,
    /// Whether [`HeldBack::due`] said that its time has come.
    told: bool,
    cause: E,
}

/// How long a write that failed is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The same each time.
    Even(Duration),
    /// Twice as long with each failure in a row, up to a bound.
    Growing { first: Duration, most: Duration },
}

impl Pause {
    /// After so many failures before this one.
    fn after(self, failures: u32) -> Duration {
        match self {
            Self::Even(pause) => pause,
            Self::Growing { first, most } => first.saturating_mul(1 << failures.min(16)).min(most),
        }
    }
}

impl<K, E> Default for HeldBack<K, E> {
    fn default() -> Self {
        Self {
            writes: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, E> HeldBack<K, E> {
    /// Why this very write is not to be tried now, and when it is.
    pub fn holds(&self, key: &K, fingerprint: u64, now: Instant) -> Option<(&E, Instant)> {
        let held = self.writes.get(key)?;
        let holds = held.fingerprint == fingerprint && now < held.until;
        holds.then_some((&held.cause, held.until))
    }

    /// A write failed; until when it is held back.
    pub fn failed(
        &mut self,
        now: Instant,
        key: K,
        fingerprint: u64,
        pause: Pause,
        cause: E,
    ) -> Instant {
        let failures = self.writes.get(&key).map_or(0, |held| held.failures);
        let until = now + pause.after(failures);
        let held = HeldWrite {
            fingerprint,
            failures: failures.saturating_add(1),
            until,
            told: false,
            cause,
        };
        self.writes.insert(key, held);
        until
    }

    /// Why a write failed last, whether its time has come or not.
    #[must_use]
    pub fn cause(&self, key: &K) -> Option<&E> {
        self.writes.get(key).map(|held| &held.cause)
    }

    /// How often a write failed in a row.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.writes.get(key).map_or(0, |held| held.failures)
    }

    /// It went well, or is not wanted any more.
    pub fn forget(&mut self, key: &K) {
        self.writes.remove(key);
    }

    /// Says once of each write whose time has come that it has; when the next one's does.
    pub fn due(&mut self, now: Instant, mut come: impl FnMut(&K)) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        self.writes.retain(|key, held| {
            if held.until > now {
                next = Some(next.map_or(held.until, |next| next.min(held.until)));
                return true;
            }
            if !held.told {
                held.told = true;
                come(key);
            }
            now < held.until + REMEMBERED
        });
        next
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWING: Pause = Pause::Growing {
        first: Duration::from_secs(1),
        most: Duration::from_secs(60),
    };

    #[test]
    fn the_same_waits_longer_with_each_failure_and_another_form_or_object_not_at_all() {
        let (mut held, mut now) = (HeldBack::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let until = held.failed(now, "a", 1, GROWING, "why");
            assert_eq!(held.holds(&"a", 1, now), Some((&"why", until)));
            assert_eq!(held.holds(&"a", 2, now), None, "another form");
            assert_eq!(held.holds(&"b", 1, now), None, "another object");
            pauses.push(until.duration_since(now).as_secs());
            now = until;
            assert_eq!(held.holds(&"a", 1, now), None, "its time has come");
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        held.forget(&"a");
        let until = held.failed(now, "a", 1, GROWING, "why");
        assert_eq!(
            until.duration_since(now).as_secs(),
            1,
            "it went well between"
        );
    }

    #[test]
    fn that_the_time_has_come_is_said_once_and_remembered_for_a_while() {
        let (mut held, begun) = (HeldBack::default(), Instant::now());
        let minute = Pause::Even(Duration::from_secs(60));
        held.failed(begun, "a", 1, minute, ());
        let mut told = Vec::new();
        let at = |second| begun + Duration::from_secs(second);
        assert_eq!(held.due(at(59), |key| told.push(*key)), Some(at(60)));
        assert_eq!(held.due(at(60), |key| told.push(*key)), None);
        assert_eq!(held.due(at(61), |key| told.push(*key)), None);
        assert_eq!(told, ["a"]);
        assert!(!held.is_empty());
        held.due(at(660), |_| ());
        assert!(held.is_empty(), "nobody offered it again");
    }
}
