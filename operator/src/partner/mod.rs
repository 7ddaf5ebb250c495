//! `XmppFederatedPartner` in a cluster, in five steps: [`read`] the object and what is said of it,
//! [`validate`] it (what compiling found), [`plan`] what its status should say of the pools that
//! carry it, [`apply`] that where it differs, and [`status`] decides what differs and is due.
//!
//! What carries a partner is its pools' document; no object of its own is made. Only `apply` talks
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
pub const KIND: &str = "XmppFederatedPartner";

/// Looks at all partners of the scene's namespace and hands in the statuses that are to be written.
pub fn reconcile(
    context: &Arc<Context>,
    scene: &Scene,
    outcomes: &BTreeMap<String, PoolOutcome>,
    written: &mut Written,
) -> Counts {
    let mut counts = Counts::default();
    for object in context.caches.partners.in_namespace(&scene.namespace) {
        if object.is_going() {
            continue;
        }
        let partner = read::read(scene, &object);
        let wanted = plan::plan(scene, outcomes, &partner);
        counts.add(&wanted.conditions);
        let due = written.due(
            KIND,
            &object.name_any(),
            status::difference(&partner.status, &wanted),
        );
        if due {
            apply::AUTHOR.hand_in(context, &object, &partner.status, wanted);
        }
    }
    counts
}
