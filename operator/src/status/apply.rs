//! Hands a status in to be written, for every kind alike: on the form of the object that it was decided
//! on, never over a newer one, with an Event where a condition is news. What it says is decided
//! elsewhere.

use std::sync::Arc;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use xmpp_edge_crds::kinds::{PartnerStatus, PolicyStatus, PoolStatus};

use super::queue::{WriteError, apply_status};
use crate::{
    controllers::namespace::snapshot::Context,
    runtime::{caches::Caches, decoded::Decoded, store::ObjectStore},
};

/// A kind's controller, as the one writer of its statuses.
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
    pub fn enqueue<S: Status>(&self, context: &Context, object: &Arc<Decoded<K>>, old: &S, new: S) {
        if old.observed_generation() > new.observed_generation() {
            return;
        }
        let namespace = object.namespace().unwrap_or_default();
        let key = (self.kind, namespace, object.name_any());
        let (manager, table) = (self.manager, self.table);
        let (object, new) = (object.clone(), Arc::new(new));
        let before = old.conditions().to_vec();
        let (client, caches, events) = (
            context.client.clone(),
            context.caches.clone(),
            context.events.clone(),
        );
        let wanted = new.clone();
        let task = async move {
            let table = table(&caches);
            if !table.is_current(&object) {
                return Err(WriteError::Conflict);
            }
            let answer: Decoded<K> = apply_status(&client, object.as_ref(), manager, &*new).await?;
            let mut reference = answer.object_ref(&());
            // The Event stands beside the object.
            reference.namespace = answer.namespace();
            table.put(answer);
            let after = new.conditions();
            events.transitions(&reference, &before, after).await;
            Ok(())
        };
        context.writer.submit(key, &*wanted, Box::pin(task));
    }
}
