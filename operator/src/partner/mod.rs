//! `XmppFederatedPartner` in a cluster, in five steps: [`read`] the object and what is said of it,
//! [`validate`] it (what compiling found), [`plan`] what its status should say of the pools that
//! carry it, [`apply`] that where it differs, and [`status`] decides what differs and is due. What
//! they have in common with policies is [`carried`](crate::cluster::carried).
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

use std::collections::BTreeMap;

use xmpp_edge_crds::kinds::{PartnerStatus, XmppFederatedPartner};

use crate::{
    cluster::{
        PoolOutcome, Scene,
        carried::{Carried, Observed},
        statuses::Author,
        written::Difference,
    },
    compile::Kind,
};

impl Carried for XmppFederatedPartner {
    const KIND: Kind = Kind::XmppFederatedPartner;
    const AUTHOR: Author<Self> = apply::AUTHOR;

    fn plan(
        scene: &Scene,
        outcomes: &BTreeMap<String, PoolOutcome>,
        observed: &Observed<'_, Self>,
    ) -> PartnerStatus {
        plan::plan(scene, outcomes, observed)
    }

    fn difference(old: &PartnerStatus, new: &PartnerStatus) -> Difference {
        status::difference(old, new)
    }
}
