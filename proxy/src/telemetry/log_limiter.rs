//! Lines of the log that others can cause at will: a few a minute for each cause, then a count.
//!
//! In the rooms below `app` every line of level info or above is written by [`limited!`]; a test over
//! the sources (`tests/tests/docs.rs`) finds those that are not.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use xmpp_edge_crds::verdict::Direction;

use super::metrics::direction_label;

/// Lines for one cause between two reports; then they are only counted.
pub const LINES: u64 = 10;

/// What was logged since the last report. Causes are words of enums and partners' names, or `other`:
/// their number is bounded by the configuration, never by what a peer says.
#[derive(Debug, Default)]
pub struct LogLimiter {
    causes: Mutex<HashMap<LogCause, Arc<LogLines>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LogCause {
    what: &'static str,
    partner: String,
    direction: &'static str,
    reason: &'static str,
}

/// The lines of one cause. Who logs often holds it: asking costs one atomic addition.
#[derive(Debug, Default)]
pub struct LogLines {
    since_report: AtomicU64,
}

impl LogLines {
    /// Whether this one is to be written out.
    pub fn allow(&self) -> bool {
        self.since_report.fetch_add(1, Ordering::Relaxed) < LINES
    }
}

impl LogLimiter {
    /// The lines of this cause: of what happens, with whom, and why.
    pub fn lines(
        &self,
        what: &'static str,
        partner: Option<&str>,
        direction: Direction,
        reason: &'static str,
    ) -> Arc<LogLines> {
        self.of(LogCause {
            what,
            partner: partner.unwrap_or("other").to_owned(),
            direction: direction_label(direction),
            reason,
        })
    }

    /// The lines of a cause for which there is no partner yet.
    pub fn lines_of(&self, what: &'static str, reason: &'static str) -> Arc<LogLines> {
        self.of(LogCause {
            what,
            partner: String::new(),
            direction: "",
            reason,
        })
    }

    fn of(&self, cause: LogCause) -> Arc<LogLines> {
        Arc::clone(self.causes.lock().entry(cause).or_default())
    }

    /// Says how many were not written out, and begins anew. Called about once a minute.
    pub fn report(&self) {
        for (cause, more) in self.take() {
            tracing::info!(
                partner = cause.partner,
                direction = cause.direction,
                reason = cause.reason,
                suppressed = more,
                "{}: as many more in the last minute",
                cause.what
            );
        }
    }

    fn take(&self) -> Vec<(LogCause, u64)> {
        let mut suppressed = Vec::new();
        self.causes.lock().retain(|cause, lines| {
            let count = lines.since_report.swap(0, Ordering::Relaxed);
            if count > LINES {
                suppressed.push((cause.clone(), count - LINES));
            }
            // Held by a stream, or spoken of a moment ago.
            Arc::strong_count(lines) > 1 || count > 0
        });
        suppressed
    }
}

/// Writes a line that a peer can cause, where its cause has one left: `limited!(info, lines, …)` with
/// [`LogLines`] and what `tracing::info!` takes.
macro_rules! limited {
    ($level:ident, $lines:expr, $($line:tt)+) => {
        if $lines.allow() {
            tracing::$level!($($line)+);
        }
    };
}
pub(crate) use limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_lines_and_the_rest_is_counted_once() {
        let limiter = LogLimiter::default();
        let say = |partner, reason| {
            let lines = limiter.lines("refused", Some(partner), Direction::Inbound, reason);
            lines.allow()
        };
        let lines = (0..1000).filter(|_| say("p", "Contact")).count();
        assert_eq!(lines as u64, LINES);
        assert!(say("p", "Content") && say("q", "Contact"));
        let suppressed: Vec<_> = limiter.take().iter().map(|(_, more)| *more).collect();
        assert_eq!(suppressed, [1000 - LINES]);
        assert!(say("p", "Contact"));
        assert!(limiter.take().is_empty());
    }

    #[test]
    fn a_held_cause_goes_on_counting_and_one_that_is_silent_is_forgotten() {
        let limiter = LogLimiter::default();
        let held = limiter.lines("audited", Some("p"), Direction::Outbound, "Contact");
        for _ in 0..=LINES {
            held.allow();
        }
        assert_eq!(limiter.take().len(), 1);
        assert!(limiter.take().is_empty() && held.allow());
        drop(held);
        limiter.take();
        limiter.take();
        assert!(limiter.causes.lock().is_empty());
    }
}
