//! `ExternalAccessPolicy` in a cluster, in five steps: [`read`] the object and what is said of it,
//! [`validate`] it (what compiling found), [`plan`] what its status should say, [`apply`] that where
//! it differs, and [`status`] decides whether it does.
//!
//! What carries a policy is its pools' document; no object of its own is made. Only `apply` talks
//! to the API server.

pub mod apply;
pub mod plan;
pub mod read;
pub mod status;
pub mod validate;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;

use crate::cluster::{
    Context, PoolOutcome, Scene,
    written::{Counts, Written},
};

/// The kind's name.
pub const KIND: &str = "ExternalAccessPolicy";

/// Looks at all policies of the scene's namespace and hands in the statuses that are to be written.
pub fn reconcile(
    context: &Arc<Context>,
    scene: &Scene,
    outcomes: &BTreeMap<String, PoolOutcome>,
    written: &mut Written,
) -> Counts {
    let mut counts = Counts::default();
    for object in context.caches.policies.in_namespace(&scene.namespace) {
        if object.is_going() {
            continue;
        }
        let policy = read::read(scene, &object);
        let wanted = plan::plan(scene, outcomes, &policy);
        counts.add(&wanted.conditions);
        let due = written.due(
            KIND,
            &object.name_any(),
            status::difference(&policy.status, &wanted),
        );
        if due {
            apply::AUTHOR.hand_in(context, &object, &policy.status, wanted);
        }
    }
    counts
}
