//! Events, for those who look with `kubectl describe`. An Event that cannot be
//! written is logged and forgotten: the condition says the same. So few are written for a namespace that
//! thousands of partners that an uplink takes along are no storm.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::metrics::Metrics;

/// Events of one namespace: so many at once,
const BURST: u32 = 25;
/// and then one in so long.
const PERIOD: Duration = Duration::from_secs(10);
/// Longest note: the API server takes 1 kB.
const MAX_NOTE: usize = 1000;

/// Writes Events as this operator.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    limits: Arc<Mutex<EventLimits>>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// `identity` is this replica's.
    #[must_use]
    pub fn new(client: Client, identity: &str, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter {
            controller: "xmpp-edge-operator".to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            limits: Arc::default(),
            metrics,
        }
    }

    /// One Event. `action` is what the operator was doing, in one word.
    pub async fn publish(
        &self,
        object: &ObjectReference,
        kind: EventType,
        reason: &str,
        note: &str,
        action: &str,
    ) {
        let namespace = object.namespace.clone().unwrap_or_default();
        if !self.limits.lock().take(&namespace, Instant::now()) {
            self.metrics.events_dropped.inc();
            let name = object.name.as_deref().unwrap_or_default();
            tracing::debug!(
                namespace,
                name,
                reason,
                note,
                "an Event too many is not written"
            );
            return;
        }
        let mut note = note.to_owned();
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            let name = object.name.as_deref().unwrap_or_default();
            tracing::warn!(name, reason, %error, "an Event could not be written");
        }
    }
}

/// What each namespace may write still. Namespaces are the administrator's to name, so that there are few.
#[derive(Debug, Default)]
struct EventLimits {
    /// When the next Event was due, had all been written one in [`PERIOD`].
    due: HashMap<String, Instant>,
}

impl EventLimits {
    /// Whether one more may be written now.
    fn take(&mut self, namespace: &str, now: Instant) -> bool {
        let due = self.due.entry(namespace.to_owned()).or_insert(now);
        let due_now = (*due).max(now);
        if due_now.duration_since(now) > PERIOD * (BURST - 1) {
            return false;
        }
        *due = due_now + PERIOD;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_25_events_at_once_then_one_in_ten_seconds_and_takes_none_from_another() {
        let mut limits = EventLimits::default();
        let begun = Instant::now();
        let mut written = |namespace: &str, after: Duration| {
            (0..1000)
                .filter(|_| limits.take(namespace, begun + after))
                .count()
        };
        assert_eq!(written("a", Duration::ZERO), 25);
        assert_eq!(written("b", Duration::ZERO), 25);
        assert_eq!(written("a", Duration::from_secs(9)), 0);
        assert_eq!(written("a", Duration::from_secs(60)), 6);
        assert_eq!(written("a", Duration::from_secs(6000)), 25);
    }
}
