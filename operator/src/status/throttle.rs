//! When a status was written last, so that what can wait waits; and how many objects are ready.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::time::Instant;
use xmpp_edge_crds::kinds::conditions::ConditionType;

/// Counts, latencies and times alone are written at most this often an object.
const PAUSE: Duration = Duration::from_secs(300);

/// How a status that should be differs from the one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Significance {
    None,
    /// In counts, latencies, times.
    Deferrable,
    Immediate,
}

impl Significance {
    /// Whether conditions say the same; the messages of those in `moving` may differ.
    #[must_use]
    pub fn conditions_same(old: &[Condition], new: &[Condition], moving: &[ConditionType]) -> bool {
        old.len() == new.len()
            && new.iter().all(|new| {
                let old = old.iter().find(|old| old.type_ == new.type_);
                let moves = moving.iter().any(|it| it.as_str() == new.type_);
                old.is_some_and(|old| {
                    old.status == new.status
                        && old.reason == new.reason
                        && old.observed_generation == new.observed_generation
                        && (moves || old.message == new.message)
                })
            })
    }
}

/// When statuses of a namespace were written last.
#[derive(Debug)]
pub struct StatusThrottle {
    begun: Instant,
    last: HashMap<(&'static str, String), Instant>,
    /// When the next that waits is due.
    next: Option<Instant>,
}

impl Default for StatusThrottle {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            last: HashMap::new(),
            next: None,
        }
    }
}

impl StatusThrottle {
    /// Whether to write now; it then counts as written.
    pub fn due(&mut self, kind: &'static str, name: &str, difference: Significance) -> bool {
        let now = Instant::now();
        let key = (kind, name.to_owned());
        match difference {
            Significance::None => return false,
            Significance::Deferrable => {
                // What others wrote before this process led counts as written then.
                let due = self.last.get(&key).copied().unwrap_or(self.begun) + PAUSE;
                if now < due {
                    self.next = Some(self.next.map_or(due, |next| next.min(due)));
                    return false;
                }
            }
            Significance::Immediate => {}
        }
        self.last.insert(key, now);
        true
    }

    /// How long until something that waits is due; asking resets it.
    pub fn until_due(&mut self) -> Option<Duration> {
        let next = self.next.take()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Forgets objects that are gone.
    pub fn retain(&mut self, exists: impl Fn(&'static str, &str) -> bool) {
        self.last.retain(|(kind, name), _| exists(kind, name));
    }
}

/// How many objects of a kind have which `Ready`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<&'static str, i64>);

impl Counts {
    /// Counts an object by its condition `Ready`.
    pub fn add(&mut self, conditions: &[Condition]) {
        let ready = conditions
            .iter()
            .find(|it| it.type_ == ConditionType::Ready.as_str());
        let label = match ready.map(|ready| ready.status.as_str()) {
            Some("True") => "True",
            Some("False") => "False",
            _ => "Unknown",
        };
        *self.0.entry(label).or_default() += 1;
    }
}
