//! Lines of the log that others can cause at will: a few a minute for each cause, then a count.

use std::collections::HashMap;

use parking_lot::Mutex;
use xmpp_edge_crds::verdict::Direction;

use super::metrics::direction_label;

/// Lines for one cause between two reports; then they are only counted.
const LINES: u64 = 10;

/// What was logged since the last report. Causes are words of enums and partners' names, or `other`.
#[derive(Debug, Default)]
pub struct LogLimiter {
    since_report: Mutex<HashMap<Cause, u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cause {
    what: &'static str,
    partner: String,
    direction: &'static str,
    reason: &'static str,
}

impl LogLimiter {
    /// Whether this one is to be written out.
    pub fn is_worth_a_line(
        &self,
        what: &'static str,
        partner: &str,
        direction: Direction,
        reason: &'static str,
    ) -> bool {
        let cause = Cause {
            what,
            partner: partner.to_owned(),
            direction: direction_label(direction),
            reason,
        };
        let mut since_report = self.since_report.lock();
        let count = since_report.entry(cause).or_default();
        *count += 1;
        *count <= LINES
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

    fn take(&self) -> Vec<(Cause, u64)> {
        let all = std::mem::take(&mut *self.since_report.lock());
        all.into_iter()
            .filter_map(|(cause, count)| Some((cause, count.checked_sub(LINES)?)))
            .filter(|(_, more)| *more > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_lines_and_the_rest_is_counted_once() {
        let repeats = LogLimiter::default();
        let say = |partner, reason| {
            repeats.is_worth_a_line("refused", partner, Direction::Inbound, reason)
        };
        let lines = (0..1000).filter(|_| say("p", "Contact")).count();
        assert_eq!(lines as u64, LINES);
        assert!(say("p", "Content") && say("q", "Contact"));
        let suppressed: Vec<_> = repeats.take().iter().map(|(_, more)| *more).collect();
        assert_eq!(suppressed, [1000 - LINES]);
        assert!(say("p", "Contact"));
        assert!(repeats.take().is_empty());
    }
}
