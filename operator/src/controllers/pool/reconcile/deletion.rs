//! One look at a pool that is deleted and still there.

use std::{sync::Arc, time::Duration};

use kube::{Resource, ResourceExt};
use tokio::time::timeout;
use xmpp_edge_crds::kinds::{
    EdgePool, PoolStatus,
    conditions::{ConditionType, Reason},
    pool::CONDITIONS as POOL_CONDITIONS,
};

use super::{REFUSED, RENEWALS, STATUS_WRITER, status_of, told};
use crate::{
    compile::restrict::restrict,
    controllers::{
        namespace::{
            inputs,
            snapshot::{Context, NamespaceSnapshot, PoolOutcome},
        },
        pool::{
            PoolMemory,
            apply::{Applier, ApplyError, print_of_mounted},
            provision::{self, ApplyOutcome},
            publish::{self, Leave},
            read,
        },
    },
    runtime::decoded::Decoded,
    status::condition::{self, DesiredCondition},
    text,
};

/// One look at a pool that is deleted: its records leave DNS, and its status says how far that is. For as long
/// as anybody's finalizer keeps it, its pods serve.
pub(super) async fn leave(
    longest: Duration,
    context: &Context,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    object: &Arc<Decoded<EdgePool>>,
) -> Result<PoolOutcome, ApplyError> {
    let namespace = scene.namespace.as_str();
    let leaves = memory.publications.leave(context, namespace, object);
    let mut leave = timeout(longest, leaves).await.unwrap_or_else(|_| {
        let late = ApplyError::too_long(longest);
        Leave::later(late.to_string())
    });
    let others = publish::others_finalizers(object.as_ref());
    if leave.again.is_none() && others.is_empty() {
        return Ok(PoolOutcome::default());
    }
    let mut written = ApplyOutcome::default();
    let restricts = keep_restricting(context, memory, scene, object, &mut written);
    if timeout(longest, restricts).await.is_err() {
        written.late(longest);
    }
    for error in &written.refused {
        leave.refuse(error);
    }
    if let Some(error) = &written.failed {
        leave.refuse(&told(error));
    }
    report_deletion(context, scene, object, &leave, &others);
    if let Some(error) = written.failed {
        return Err(error);
    }
    let refused = !written.refused.is_empty();
    let retry = refused.then(|| memory.applied.retry(namespace, &object.name_any()));
    let retry = retry.map(|retry| retry.unwrap_or(REFUSED).min(REFUSED));
    Ok(PoolOutcome {
        again: leave
            .again
            .into_iter()
            .chain(retry)
            .min()
            .or(Some(RENEWALS)),
        ..PoolOutcome::default()
    })
}

/// The pods of a pool that is deleted and still there serve: the kill switch and deletions of partners reach
/// them.
async fn keep_restricting(
    context: &Context,
    memory: &PoolMemory,
    scene: &NamespaceSnapshot,
    object: &Decoded<EdgePool>,
    written: &mut ApplyOutcome,
) {
    let (namespace, name) = (scene.namespace.as_str(), object.name_any());
    let is_suspended = read::is_suspended(object);
    let last = inputs::last_document(&context.caches, namespace, &name);
    let restricted = last.and_then(|last| restrict(&last.config, &scene.world, is_suspended));
    let Some(config) = restricted else {
        return;
    };
    let applier = Applier {
        context,
        applied: &memory.applied,
        certificates: &memory.certificates,
        pool: object,
        namespace,
    };
    if provision::write_document(&applier, memory, &config, written).await {
        let print = print_of_mounted(config.generation, &[]);
        written.note(applier.trigger_volume_sync(&print).await);
    }
}

/// A deletion that waits says what for: nothing else is said of the pool any more.
fn report_deletion(
    context: &Context,
    scene: &NamespaceSnapshot,
    object: &Arc<Decoded<EdgePool>>,
    leave: &Leave,
    others: &[&str],
) {
    let mut message = if leave.again.is_some() {
        "it is deleted, and waits up to 10 minutes for its records to leave DNS; annotation xmpp-edge.dev/dns-cleanup=skip lets it go at once".to_owned()
    } else {
        format!(
            "it is deleted, and there until whoever set the finalizers {} takes them off",
            text::listed(others)
        )
    };
    if !leave.refusal.is_empty() {
        message = format!("{message}. {}", leave.refusal);
    }
    let old = status_of(object);
    let wanted: Vec<DesiredCondition> = POOL_CONDITIONS
        .iter()
        .filter_map(|kind| match kind {
            ConditionType::Ready | ConditionType::DnsPublished => Some(DesiredCondition::new(
                *kind,
                false,
                Reason::Terminating,
                message.clone(),
            )),
            kind => condition::previous(&old.conditions, *kind),
        })
        .collect();
    let generation = object.meta().generation;
    let new = PoolStatus {
        observed_generation: generation,
        conditions: condition::merge(&old.conditions, &wanted, generation, scene.now),
        ..old.clone()
    };
    if new != old {
        STATUS_WRITER.enqueue(&context.statuses, object, &old, new);
    }
}
