//! One look at the pools of a namespace that cannot be compiled, as something that is there could not be read:
//! deletions go on, and all others say why nothing does.

use std::{sync::Arc, time::Duration};

use kube::{Resource, ResourceExt};
use xmpp_edge_crds::kinds::{
    EdgePool, PoolStatus,
    conditions::{ConditionType, Reason},
    pool::CONDITIONS as POOL_CONDITIONS,
};

use super::{LONGEST, STATUS_WRITER, deletion, status_of};
use crate::{
    controllers::{
        namespace::snapshot::{Context, NamespaceSnapshot},
        pool::{PoolMemory, read},
    },
    runtime::{decoded::Decoded, store::UnreadError},
    status::condition::{self, DesiredCondition},
};

/// Looks at all of them. When to look again at those that are deleted.
pub async fn reconcile_unread(
    context: &Context,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    error: &UnreadError,
) -> Option<Duration> {
    let mut soonest: Option<Duration> = None;
    for pool in context.caches.pools.in_namespace(&scene.namespace) {
        if pool.is_terminating() {
            let left = deletion::leave(LONGEST, context, memory, scene, &pool).await;
            // What failed is told in the status, and tried again with all else.
            let again = left.ok().and_then(|outcome| outcome.again);
            soonest = soonest.into_iter().chain(again).min();
        } else {
            report(context, memory, scene, &pool, error);
        }
    }
    soonest
}

fn report(
    context: &Context,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    object: &Arc<Decoded<EdgePool>>,
    error: &UnreadError,
) {
    let (namespace, name) = (scene.namespace.as_str(), object.name_any());
    let serves = read::ready_replicas(&context.caches, namespace, &name) > 0;
    let key = (namespace.to_owned(), name);
    if !memory.is_told(&key, true, !serves, scene.now) {
        return;
    }
    let kind = ConditionType::Ready;
    let message = format!("{error}; nothing of the namespace is changed before that");
    let said = DesiredCondition::new(kind, false, Reason::WriteFailed, message);
    let old = status_of(object);
    let wanted: Vec<DesiredCondition> = POOL_CONDITIONS
        .iter()
        .filter_map(|it| match it {
            it if *it == kind => Some(said.clone()),
            it => condition::previous(&old.conditions, *it),
        })
        .collect();
    let generation = object.meta().generation;
    let new = PoolStatus {
        conditions: condition::merge(&old.conditions, &wanted, generation, scene.now),
        ..old.clone()
    };
    if new != old {
        STATUS_WRITER.enqueue(&context.statuses, object, &old, new);
    }
}
