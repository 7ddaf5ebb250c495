//! What policy did to the stanzas of one pair, by reason: counted and logged without a look-up.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use xmpp_edge_crds::verdict::Direction;

use super::{Metrics, ReasonFamily};
use crate::telemetry::log_limiter::{LogLimiter, LogLines};

/// Held by the stream that receives the pair: the labels of a reason are looked up once for it, at its
/// first stanza. Reasons are words of an enum, about ten.
#[derive(Debug)]
pub struct ReasonCounters {
    partner: Option<String>,
    direction: Direction,
    refused: Vec<ReasonCounter>,
    audited: Vec<ReasonCounter>,
}

#[derive(Debug)]
struct ReasonCounter {
    reason: &'static str,
    counter: Counter,
    lines: Arc<LogLines>,
}

impl ReasonCounters {
    /// Of pairs with the partner of this object.
    #[must_use]
    pub fn new(partner: Option<&str>, direction: Direction) -> Self {
        Self {
            partner: partner.map(str::to_owned),
            direction,
            refused: Vec::new(),
            audited: Vec::new(),
        }
    }

    /// Label of the partner.
    #[must_use]
    pub fn partner(&self) -> &str {
        self.partner.as_deref().unwrap_or(super::OTHER)
    }

    /// A stanza was refused. Answers the lines that this reason has in the log.
    pub fn refused(
        &mut self,
        metrics: &Metrics,
        log: &LogLimiter,
        reason: &'static str,
    ) -> &LogLines {
        let partner = self.partner.as_deref();
        let look_up = || {
            let counter = metrics.reason(ReasonFamily::Refused, partner, self.direction, reason);
            let lines = log.lines("refused", partner, self.direction, reason);
            (counter, lines)
        };
        count(&mut self.refused, reason, look_up)
    }

    /// A stanza was delivered that mode `Enforce` would have refused. As [`Self::refused`].
    pub fn audited(
        &mut self,
        metrics: &Metrics,
        log: &LogLimiter,
        reason: &'static str,
    ) -> &LogLines {
        let partner = self.partner.as_deref();
        let look_up = || {
            let counter = metrics.reason(ReasonFamily::Audited, partner, self.direction, reason);
            let lines = log.lines("audited", partner, self.direction, reason);
            (counter, lines)
        };
        count(&mut self.audited, reason, look_up)
    }
}

fn count<'a>(
    known: &'a mut Vec<ReasonCounter>,
    reason: &'static str,
    look_up: impl FnOnce() -> (Counter, Arc<LogLines>),
) -> &'a LogLines {
    let at = match known.iter().position(|own| own.reason == reason) {
        Some(at) => at,
        None => {
            let (counter, lines) = look_up();
            known.push(ReasonCounter {
                reason,
                counter,
                lines,
            });
            known.len() - 1
        }
    };
    known[at].counter.inc();
    &known[at].lines
}
