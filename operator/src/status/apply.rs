//! Hands a status in to be written, for every kind alike: on the form of the object that it was decided
//! on, never over a newer one, with an Event where a condition is news. What it says is decided
//! elsewhere.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope, api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{Client, Resource, ResourceExt, runtime::events::EventType};
use serde::{Serialize, de::DeserializeOwned};
use xmpp_edge_crds::kinds::{PartnerStatus, PolicyStatus, PoolStatus, conditions::ConditionType};

use super::{
    condition::{find, transitions},
    queue::{StatusQueue, WriteError, apply_status},
};
use crate::runtime::{caches::Caches, decoded::Decoded, events::Events, store::ObjectStore};

/// What writing statuses takes.
#[derive(Clone)]
pub struct StatusMeans {
    pub client: Client,
    pub caches: Arc<Caches>,
    pub events: Events,
    pub queue: StatusQueue,
}

impl fmt::Debug for StatusMeans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusMeans")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// A kind's controller, as the one writer of its statuses.
#[derive(Debug)]
pub struct StatusWriter<K: 'static> {
    pub kind: &'static str,
    /// Its field manager.
    pub manager: &'static str,
    pub table: fn(&Caches) -> &ObjectStore<Decoded<K>>,
}

/// What all statuses have.
pub trait Status: Serialize + Send + Sync + 'static {
    fn observed_generation(&self) -> Option<i64>;
    fn conditions(&self) -> &[Condition];
}

macro_rules! statuses {
    ($($status:ty),+) => {$(
        impl Status for $status {
            fn observed_generation(&self) -> Option<i64> {
                self.observed_generation
            }

            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
        }
    )+};
}

statuses!(PartnerStatus, PolicyStatus, PoolStatus);

impl<K> StatusWriter<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    /// The status is written as soon as others before it are. Nothing is done where a newer operator
    /// wrote of a newer form than this one has seen: its report is on its way.
    pub fn enqueue<S: Status>(
        &self,
        means: &StatusMeans,
        object: &Arc<Decoded<K>>,
        old: &S,
        new: S,
    ) {
        if old.observed_generation() > new.observed_generation() {
            return;
        }
        let namespace = object.namespace().unwrap_or_default();
        let key = (self.kind, namespace, object.name_any());
        let (manager, table) = (self.manager, self.table);
        let (object, new) = (object.clone(), Arc::new(new));
        let before = old.conditions().to_vec();
        let (client, caches, events) = (
            means.client.clone(),
            means.caches.clone(),
            means.events.clone(),
        );
        let wanted = new.clone();
        let task = async move {
            let table = table(&caches);
            if !table.is_current(&object) {
                return Err(WriteError::Conflict);
            }
            let written = apply_status(&client, object.as_ref(), manager, &*new).await;
            if let Err(kube::Error::Api(status)) = &written
                && is_absent(status, &object.name_any())
                && let Some(uid) = object.uid()
            {
                let namespace = object.namespace().unwrap_or_default();
                table.deleted(&namespace, &object.name_any(), &uid);
            }
            let answer: Decoded<K> = written?;
            let mut reference = answer.object_ref(&());
            // The Event stands beside the object.
            reference.namespace = answer.namespace();
            table.updated(answer);
            let after = new.conditions();
            announce(&events, &reference, &before, after).await;
            Ok(())
        };
        means.queue.submit(key, &*wanted, Box::pin(task));
    }
}

/// One Event for each condition that is news; and for a pool that serves now. Partners and policies come
/// by the thousand.
async fn announce(events: &Events, object: &ObjectReference, old: &[Condition], new: &[Condition]) {
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
        events
            .publish(object, kind, &condition.reason, &text, "Reconcile")
            .await;
    }
    let is_ready = |conditions: &[Condition]| {
        find(conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True")
    };
    if object.kind.as_deref() == Some("EdgePool") && is_ready(new) && !is_ready(old) {
        let (kind, text) = (EventType::Normal, "the pool serves");
        events
            .publish(object, kind, "Ready", text, "Reconcile")
            .await;
    }
}

/// Whether the API server says that there is no object of this name. That it knows no such kind just
/// now is told with the same code.
fn is_absent(status: &kube::core::Status, name: &str) -> bool {
    let details = status.details.as_ref();
    status.code == 404 && details.is_some_and(|details| details.name == name)
}
