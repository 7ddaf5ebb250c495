//! Since when no trunk leads to where stanzas go, and why none does: how long they wait follows from that.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    config::trunk_name::TrunkName,
    routing::failure::{Failure, FailureKind},
};

/// So long stanzas wait for a trunk at all; where none has led there for longer they are answered at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Why no trunk leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbsenceCause {
    /// None stands.
    NoTrunk,
    /// One stands, to a sidecar that does not reach its server.
    ServerDown {
        instance: TrunkName,
        /// What the server said, or the network.
        text: String,
    },
}

/// That no trunk leads there.
#[derive(Clone, Debug)]
pub struct Absence {
    pub since: Instant,
    pub since_time: Timestamp,
    pub cause: AbsenceCause,
}

impl Absence {
    /// As the answer to what waits for `who`, an edge or a sidecar. Refused: no longer waited for.
    #[must_use]
    pub(super) fn failure(&self, who: &str, now: Instant) -> Failure {
        let kind = if self.is_long(now) {
            FailureKind::Refused
        } else {
            FailureKind::Unreachable
        };
        let time = self.since_time.strftime("%H:%M:%S");
        let text = match &self.cause {
            AbsenceCause::NoTrunk => format!("no {who} is connected since {time}"),
            AbsenceCause::ServerDown { instance, text } => {
                format!("the server beside {instance}, {who}, is away since {time}: {text}")
            }
        };
        Failure::new(kind, text)
    }

    #[must_use]
    pub(super) fn is_long(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PATIENCE
    }
}

/// Whether a trunk leads to each of the places that trunks lead to, and since when none does.
#[derive(Debug)]
pub(super) struct TrunkWays {
    /// When none had been there yet.
    began: (Instant, Timestamp),
    ways: HashMap<String, TrunkWay>,
}

#[derive(Clone, Copy, Debug)]
enum TrunkWay {
    Leads,
    Gone(Instant, Timestamp),
}

impl Default for TrunkWays {
    fn default() -> Self {
        Self {
            began: (Instant::now(), Timestamp::now()),
            ways: HashMap::new(),
        }
    }
}

impl TrunkWays {
    /// Whether a trunk leads there now.
    pub(super) fn note(&mut self, key: &str, leads: bool) {
        match (self.ways.get_mut(key), leads) {
            (Some(way @ TrunkWay::Leads), false) => {
                *way = TrunkWay::Gone(Instant::now(), Timestamp::now())
            }
            (Some(way), true) => *way = TrunkWay::Leads,
            (None, true) => {
                self.ways.insert(key.to_owned(), TrunkWay::Leads);
            }
            (Some(TrunkWay::Gone(..)) | None, false) => {}
        }
    }

    /// Since when none does; where one leads there, since now.
    pub(super) fn absent_since(&self, key: &str) -> (Instant, Timestamp) {
        match self.ways.get(key) {
            None => self.began,
            Some(TrunkWay::Gone(since, time)) => (*since, *time),
            Some(TrunkWay::Leads) => (Instant::now(), Timestamp::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absence(cause: AbsenceCause) -> Absence {
        Absence {
            since: Instant::now(),
            since_time: Timestamp::UNIX_EPOCH,
            cause,
        }
    }

    #[test]
    fn what_waits_is_told_who_is_away_since_when_and_is_not_kept_for_ever() {
        let absence_of_all = absence(AbsenceCause::NoTrunk);
        let soon = absence_of_all.failure("sidecar of org.example", absence_of_all.since);
        assert_eq!(soon.kind, FailureKind::Unreachable);
        let text = "no sidecar of org.example is connected since 00:00:00";
        assert_eq!(&*soon.text, text);
        let later = absence_of_all.since + PATIENCE;
        let late = absence_of_all.failure("sidecar of org.example", later);
        assert_eq!(late.kind, FailureKind::Refused);
        let down = absence(AbsenceCause::ServerDown {
            instance: "prosody-0".parse().expect("a name"),
            text: "connection refused".to_owned(),
        });
        let said = down.failure("sidecar of org.example", down.since);
        let text = "the server beside prosody-0, sidecar of org.example, is away since 00:00:00: connection refused";
        assert_eq!(&*said.text, text);
    }

    #[test]
    fn absence_counts_from_when_the_last_way_went() {
        let mut ways = TrunkWays::default();
        let began = ways.absent_since("org").0;
        ways.note("org", false);
        assert_eq!(ways.absent_since("org").0, began, "none was there yet");
        ways.note("org", true);
        ways.note("org", false);
        let gone = ways.absent_since("org").0;
        assert!(gone > began);
        ways.note("org", false);
        assert_eq!(ways.absent_since("org").0, gone);
        assert_eq!(ways.absent_since("other").0, began);
    }
}
