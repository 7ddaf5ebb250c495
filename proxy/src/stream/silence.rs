//! Whether a peer that has not answered a question of ours is silent, or was not heard.
//!
//! A stream is not read while a queue that its stanzas go to is full, or its rate is used up. What its peer
//! says meanwhile is not heard, answers to questions of ours among it: they may come on another stream than
//! the one that asked. The peer's silence counts from when all that it may answer on is read again, and at
//! most [`EXCUSED`] times as long as an answer may take, so that nobody keeps stanzas unconfirmed for ever.
//!
//! Two such streams, of a server inside and of a partner, can wait for each other: each for room that the
//! answer makes which stands in the other. So one that may hold an answer and found no room for a while is
//! read on ([`READ_ON_AFTER`]), at the cost of more memory: what its pair holds alone counts no more, only
//! what all of its partner hold.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Command, Stream,
    egress::{Confirmation, ProbeKind},
    registry::{StreamInfo, StreamRegistry},
};
use crate::negotiation::{Pair, Side};

/// An answer is waited for so many times as long as it may take, however long its stream was left unread.
const EXCUSED: u32 = 3;
/// A stream that may hold it is read on once it was left unread for this part of that time without a break: half.
const READ_ON_AFTER: u32 = 2;

impl StreamRegistry {
    /// The streams of that side on which stanzas of this pair come, as far as they were ever left unread.
    fn left_unread(&self, side: Side, pair: &Pair, now: Instant) -> Vec<Arc<StreamInfo>> {
        let all = self.all().into_iter();
        all.filter(|entry| entry.side == side && entry.unread.last(now).is_some())
            .filter(|entry| entry.facts().receives.contains(pair))
            .collect()
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
        for entry in self.answers_come_on(now) {
            if let Some(last) = entry.unread.last(now) {
                self.keepalive.was_unread(last);
            }
            let unread = entry.unread.since();
            if unread.is_some_and(|since| now.duration_since(since) >= limit / READ_ON_AFTER) {
                entry.handle.tell(Command::ReadOn);
            }
        }
        now >= self.answer_due(since, limit)
    }

    /// The streams on which the peer may answer: this one, and where it does on any of its own, those that were
    /// left unread.
    fn answers_come_on(&self, now: Instant) -> Vec<Arc<StreamInfo>> {
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
        let mut all = vec![Arc::clone(&self.entry)];
        if let Some(route) = self.sender.routes.first().filter(|_| answers_anywhere) {
            let back = route.pair.reversed();
            all.extend(self.context.streams.left_unread(self.side, &back, now));
        }
        all
    }

    /// What its peer says is wanted now: it waits no more for room that its pair alone lacks.
    pub(super) fn read_on(&mut self) {
        self.receiver.lift_pair_bound();
        self.full = None;
        self.take_partial();
    }
}
