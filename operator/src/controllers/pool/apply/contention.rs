//! Somebody else who writes our objects as we do: another operator that watches the same namespace.
//!
//! Both would write them for ever, once a second each. Who notices leaves the object alone for a while
//! and says so.

use std::{collections::HashMap, time::Duration};

use kube::{Resource, runtime::events::EventType};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Applier, ApplyError, ChildKey};

/// An object that another operator rewrote is written again once, as a leader that lost its lease may
/// have had a last word; the next time within this it is left alone for as long.
const PAUSE: Duration = Duration::from_secs(60);

/// Objects that another operator rewrote.
#[derive(Debug, Default)]
pub(super) struct Contended {
    objects: Mutex<HashMap<ChildKey, Contention>>,
}

#[derive(Clone, Copy, Debug)]
enum Contention {
    /// Seen once.
    Seen(Instant),
    /// Left alone from then on.
    Held(Instant),
}

/// What to do with an object that another operator rewrote.
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
    pub(super) fn seen(&self, key: &ChildKey, now: Instant) -> Rewritten {
        let mut objects = self.objects.lock();
        let (next, verdict) = match objects.get(key) {
            Some(Contention::Seen(at)) if now.duration_since(*at) < PAUSE => {
                (Contention::Held(now), Rewritten::LeaveAlone { news: true })
            }
            Some(Contention::Held(at)) if now.duration_since(*at) < PAUSE => {
                return Rewritten::LeaveAlone { news: false };
            }
            // It is tried again, and found out at once whether it goes on.
            Some(Contention::Held(_) | Contention::Seen(_)) | None => {
                (Contention::Seen(now), Rewritten::WriteAgain)
            }
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
        let (contended, begun) = (Contended::default(), Instant::now());
        let key = (ChildKind::NetworkPolicy, "n".to_owned(), "hq".to_owned());
        let seen = |second| contended.seen(&key, begun + Duration::from_secs(second));
        let seen: Vec<Rewritten> = (0..600).map(seen).collect();
        let count = |wanted| seen.iter().filter(|it| **it == wanted).count();
        let writes = count(Rewritten::WriteAgain);
        assert!((9..=12).contains(&writes), "{writes} in ten minutes");
        let told = count(Rewritten::LeaveAlone { news: true });
        assert!((9..=12).contains(&told), "told {told} times");
        let later = contended.seen(&key, begun + Duration::from_secs(700));
        assert_eq!(later, Rewritten::WriteAgain, "it was at rest");
    }
}
