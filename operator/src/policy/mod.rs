//! `ExternalAccessPolicy` in a cluster: it is read and validated as every kind that pools carry is
//! ([`carried`](crate::cluster::carried)); [`plan`] decides what its status should say, [`apply`]
//! writes that where it differs, and [`status`] decides whether it does.
//!
//! What carries a policy is its pools' document; no object of its own is made. Only `apply` talks
//! to the API server.

pub mod apply;
pub mod plan;
pub mod status;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use xmpp_edge_crds::kinds::{ExternalAccessPolicy, PolicyStatus};

use crate::{
    cluster::{
        PoolOutcome, Scene,
        carried::{Carried, Observed},
        statuses::Author,
        written::Difference,
    },
    compile::Kind,
};

impl Carried for ExternalAccessPolicy {
    const KIND: Kind = Kind::ExternalAccessPolicy;
    const AUTHOR: Author<Self> = apply::AUTHOR;

    fn plan(
        scene: &Scene,
        outcomes: &BTreeMap<String, PoolOutcome>,
        observed: &Observed<'_, Self>,
    ) -> PolicyStatus {
        plan::plan(scene, outcomes, observed)
    }

    fn difference(old: &PolicyStatus, new: &PolicyStatus) -> Difference {
        status::difference(old, new)
    }
}
