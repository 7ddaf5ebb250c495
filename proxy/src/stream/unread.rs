//! When a stream was left unread, though its peer may have said something: while a queue that its stanzas go to is
//! full, or its rate is used up.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Whether a stream is left unread, since when, and when it was last. Told by its task, read by others.
#[derive(Debug)]
pub struct UnreadTime {
    opened: Instant,
    /// Milliseconds after `opened`, and one more; 0: it is read.
    since: AtomicU64,
    /// Alike; 0: never.
    last: AtomicU64,
}

impl UnreadTime {
    #[must_use]
    pub fn new(opened: Instant) -> Self {
        Self {
            opened,
            since: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Whether the stream is left unread from here on.
    pub fn note(&self, is_unread: bool) {
        // Told at every turn of the stream: a change is seldom.
        if (self.since.load(Ordering::Relaxed) != 0) == is_unread {
            return;
        }
        let age = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        if is_unread {
            self.since.store(age + 1, Ordering::Relaxed);
        } else {
            self.last.store(age + 1, Ordering::Relaxed);
            self.since.store(0, Ordering::Relaxed);
        }
    }

    /// Since when it is left unread without a break, where it is.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.time(&self.since)
    }

    /// When it was left unread last: `now` where it is.
    #[must_use]
    pub fn last(&self, now: Instant) -> Option<Instant> {
        match self.since() {
            Some(_) => Some(now),
            None => self.time(&self.last),
        }
    }

    fn time(&self, of: &AtomicU64) -> Option<Instant> {
        let age = of.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.opened + Duration::from_millis(age))
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
        let since = unread.since().expect("it is");
        assert!(since >= opened && since < later);
        unread.note(true);
        assert_eq!(unread.since(), Some(since), "without a break");
        unread.note(false);
        let last = unread.last(later).expect("it was");
        assert!(last >= opened && last < later);
        assert_eq!(unread.since(), None);
    }
}
