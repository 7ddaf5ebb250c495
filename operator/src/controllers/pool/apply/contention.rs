//! Somebody else who writes our objects: another operator that watches the same namespace, or whatever sets one of
//! their fields (an autoscaler, a policy engine).
//!
//! Both would write them for ever. Who notices leaves the object alone for a while and says so.

use std::{collections::HashMap, time::Duration};

use kube::{Resource, runtime::events::EventType};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Applier, ApplyError, ChildKey};

/// An object that was rewritten is written again as often as its [`Rewriter`] gets; the next time within this it is
/// left alone for as long.
const PAUSE: Duration = Duration::from_secs(60);

/// Who rewrote an object, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rewriter {
    /// It left a print of its own.
    Operator,
    /// It left ours.
    Somebody,
}

impl Rewriter {
    /// How often its form is written over.
    fn chances(self) -> u32 {
        match self {
            // A leader that lost its lease may have had a last word.
            Self::Operator => 1,
            // People correct what they wrote.
            Self::Somebody => 2,
        }
    }
}

/// Objects that somebody rewrote.
#[derive(Debug, Default)]
pub(super) struct Contended {
    objects: Mutex<HashMap<ChildKey, Contention>>,
}

#[derive(Clone, Copy, Debug)]
enum Contention {
    /// Seen so often since then.
    Seen(u32, Instant),
    /// Left alone from then on.
    Held(Instant),
}

/// What to do with an object that somebody rewrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rewritten {
    WriteAgain,
    /// Leave it alone; `news` where that begins now.
    LeaveAlone {
        news: bool,
    },
}

impl Contended {
    /// An object was rewritten.
    pub(super) fn seen(&self, key: &ChildKey, by: Rewriter, now: Instant) -> Rewritten {
        let mut objects = self.objects.lock();
        let again = |at: &Instant| now.duration_since(*at) < PAUSE;
        let (next, verdict) = match objects.get(key) {
            Some(Contention::Held(at)) if again(at) => {
                return Rewritten::LeaveAlone { news: false };
            }
            Some(Contention::Seen(times, at)) if again(at) && *times >= by.chances() => {
                (Contention::Held(now), Rewritten::LeaveAlone { news: true })
            }
            Some(Contention::Seen(times, at)) if again(at) => {
                (Contention::Seen(times + 1, *at), Rewritten::WriteAgain)
            }
            // It is tried again, and found out at once whether it goes on.
            Some(Contention::Held(_)) => {
                let chances = by.chances();
                (Contention::Seen(chances, now), Rewritten::WriteAgain)
            }
            Some(Contention::Seen(..)) | None => (Contention::Seen(1, now), Rewritten::WriteAgain),
        };
        objects.insert(key.clone(), next);
        verdict
    }

    pub(super) fn retain(&self, exists: impl Fn(&ChildKey) -> bool) {
        self.objects.lock().retain(|key, _| exists(key));
    }
}

impl Applier<'_> {
    /// Says it where people look.
    pub(super) async fn tell_contention(&self, error: &ApplyError) {
        let metrics = &self.context.metrics;
        metrics.failed("EdgePool", error.reason());
        let note = error.to_string();
        tracing::warn!(namespace = self.namespace, "{note}");
        let reference = self.pool.object_ref(&());
        let events = &self.context.events;
        events
            .publish(
                &reference,
                EventType::Warning,
                error.reason(),
                &note,
                "Reconcile",
            )
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::pool::plan::ChildKind;

    #[test]
    fn an_object_that_somebody_rewrites_is_written_about_once_a_minute() {
        for by in [Rewriter::Operator, Rewriter::Somebody] {
            let (contended, begun) = (Contended::default(), Instant::now());
            let key = (ChildKind::NetworkPolicy, "n".to_owned(), "hq".to_owned());
            let seen = |second| contended.seen(&key, by, begun + Duration::from_secs(second));
            let seen: Vec<Rewritten> = (0..600).map(seen).collect();
            let count = |wanted| seen.iter().filter(|it| **it == wanted).count();
            let writes = count(Rewritten::WriteAgain);
            assert!((9..=12).contains(&writes), "{writes} in ten minutes");
            let told = count(Rewritten::LeaveAlone { news: true });
            assert!((9..=12).contains(&told), "told {told} times");
            let later = contended.seen(&key, by, begun + Duration::from_secs(700));
            assert_eq!(later, Rewritten::WriteAgain, "it was at rest");
        }
    }

    /// As an autoscaler does, every 15 s.
    #[test]
    fn who_leaves_the_print_is_written_over_twice_and_the_third_time_within_a_minute_left_alone() {
        let (contended, begun) = (Contended::default(), Instant::now());
        let key = (ChildKind::Deployment, "n".to_owned(), "hq".to_owned());
        let at = |second| {
            let now = begun + Duration::from_secs(second);
            contended.seen(&key, Rewriter::Somebody, now)
        };
        for second in [0, 15] {
            assert_eq!(at(second), Rewritten::WriteAgain);
        }
        assert_eq!(at(30), Rewritten::LeaveAlone { news: true });
        assert_eq!(at(45), Rewritten::LeaveAlone { news: false });
        assert_eq!(at(90), Rewritten::WriteAgain);
        assert_eq!(at(105), Rewritten::LeaveAlone { news: true });
        // Somebody who edits now and then.
        for minute in 5..20 {
            assert_eq!(at(minute * 60), Rewritten::WriteAgain);
        }
    }
}
