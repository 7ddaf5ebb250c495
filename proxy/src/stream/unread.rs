//! When a stream was left unread, though its peer may have said something.
//!
//! A stream is not read while a queue that its stanzas go to is full, or its rate is used up. What its peer
//! says meanwhile is not heard, answers to questions of ours among it: they may come on another stream than
//! the one that asked. The peer's silence counts from when all that it may answer on is read again, and at
//! most [`EXCUSED`] times as long as an answer may take, so that nobody keeps stanzas unconfirmed for ever.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{
    Stream,
    egress::{Confirmation, ProbeKind},
    registry::StreamRegistry,
};
use crate::negotiation::{Pair, Side};

/// An answer is waited for so many times as long as it may take, however long its stream was left unread.
pub(super) const EXCUSED: u32 = 3;

/// Whether a stream is left unread, and when it was last. Told by its task, read by others.
#[derive(Debug)]
pub struct UnreadTime {
    opened: Instant,
    is_now: AtomicBool,
    /// Milliseconds after `opened`, and one more; 0: never.
    last: AtomicU64,
}

impl UnreadTime {
    #[must_use]
    pub fn new(opened: Instant) -> Self {
        Self {
            opened,
            is_now: AtomicBool::new(false),
            last: AtomicU64::new(0),
        }
    }

    /// Whether the stream is left unread from here on.
    pub fn note(&self, is_unread: bool) {
        // Told at every turn of the stream: a change is seldom.
        if self.is_now.load(Ordering::Relaxed) == is_unread {
            return;
        }
        let age = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last.store(age + 1, Ordering::Relaxed);
        self.is_now.store(is_unread, Ordering::Relaxed);
    }

    /// When it was left unread last: `now` where it is.
    #[must_use]
    pub fn last(&self, now: Instant) -> Option<Instant> {
        if self.is_now.load(Ordering::Relaxed) {
            return Some(now);
        }
        let age = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.opened + Duration::from_millis(age))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_unread_until_now_while_it_is_and_until_then_afterwards() {
        let opened = Instant::now();
        let unread = UnreadTime::new(opened);
        let later = opened + Duration::from_secs(3600);
        unread.note(false);
        assert_eq!(unread.last(later), None, "it was always read");
        unread.note(true);
        assert_eq!(unread.last(later), Some(later));
        unread.note(false);
        let last = unread.last(later).expect("it was");
        assert!(last >= opened && last < later);
    }
}
