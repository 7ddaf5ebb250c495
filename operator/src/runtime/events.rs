//! Events on transitions, for those who look with `kubectl describe`. An Event that cannot be
//! written is logged and forgotten: the condition says the same.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::status::condition::transitions;

/// Longest note: the API server takes 1 kB.
const MAX_NOTE: usize = 1000;

/// Writes Events as this operator.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// `identity` is this replica's.
    #[must_use]
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: "xmpp-edge-operator".to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// One Event for each condition that is news.
    pub async fn transitions(
        &self,
        object: &ObjectReference,
        old: &[Condition],
        new: &[Condition],
    ) {
        for condition in transitions(old, new) {
            let kind = if condition.status == "False" {
                EventType::Warning
            } else {
                EventType::Normal
            };
            let text = format!(
                "{}={}: {}",
                condition.type_, condition.status, condition.message
            );
            self.publish(object, kind, &condition.reason, &text, "Reconcile")
                .await;
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
