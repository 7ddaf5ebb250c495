//! Whether a peer that has not answered a question of ours is silent, or was not heard.
//!
//! A stream is not read while a queue that its stanzas go to is full, or its rate is used up. What its peer
//! says meanwhile is not heard, answers to questions of ours among it: they may come on another stream than
//! the one that asked. The peer's silence counts from when all that it may answer on is read again, and at
//! most [`EXCUSED`] times as long as an answer may take, so that nobody keeps stanzas unconfirmed for ever.

use std::time::{Duration, Instant};

use super::{
    Stream,
    egress::{Confirmation, ProbeKind},
    registry::StreamRegistry,
};
use crate::negotiation::{Pair, Side};

/// An answer is waited for so many times as long as it may take, however long its stream was left unread.
const EXCUSED: u32 = 3;

impl StreamRegistry {
    /// When a stream of that side on which stanzas of this pair come was left unread last.
    fn last_unread(&self, side: Side, pair: &Pair, now: Instant) -> Option<Instant> {
        let all = self.all().into_iter();
        all.filter(|entry| entry.side == side)
            .filter_map(|entry| Some((entry.unread.last(now)?, entry)))
            .filter(|(_, entry)| entry.facts().receives.contains(pair))
            .map(|(last, _)| last)
            .max()
    }
}

impl Stream {
    /// When a question of ours that was asked at `since` is unanswered for too long, as far as is known now.
    pub(super) fn answer_due(&self, since: Instant, limit: Duration) -> Instant {
        let heeded = since.max(self.keepalive.unread());
        (heeded + limit).min(since + EXCUSED * limit)
    }

    /// Whether a question of ours that was asked at `since` is unanswered for longer than `limit`, during
    /// all of which an answer would have been heard.
    pub(super) fn is_unanswered(&mut self, since: Instant, limit: Duration, now: Instant) -> bool {
        if now < self.answer_due(since, limit) {
            return false;
        }
        if let Some(last) = self.answers_unread(now) {
            self.keepalive.was_unread(last);
        }
        now >= self.answer_due(since, limit)
    }

    /// When that was left unread last which may hold an answer: this stream, and where the peer answers on
    /// any of its own, those.
    fn answers_unread(&self, now: Instant) -> Option<Instant> {
        let own = self.entry.unread.last(now);
        let answers_anywhere = match self.sender.buffer.confirmation() {
            Confirmation::Probe {
                by: ProbeKind::Ping,
                ..
            }
            | Confirmation::Written => true,
            Confirmation::Probe {
                by: ProbeKind::Dialback,
                ..
            }
            | Confirmation::Acks { .. } => false,
        };
        let route = self.sender.routes.first().filter(|_| answers_anywhere);
        let others = route.and_then(|route| {
            let back = route.pair.reversed();
            self.context.streams.last_unread(self.side, &back, now)
        });
        own.max(others)
    }
}
