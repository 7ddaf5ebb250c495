//! When a stream was left unread, though its peer may have said something: while a queue that its stanzas go to is
//! full, or its rate is used up.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

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
