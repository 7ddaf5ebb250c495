//! The volume of embedded contacts. The pool does not own it: one of the same name finds its
//! contacts again.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt;
use xmpp_edge_crds::kinds::EdgePool;

use super::{Child, metadata, names};

/// Whether contacts live in a volume of the pool's own: embedded, and one process at most. With
/// several, nothing is kept in the pods: each would know other contacts.
#[must_use]
pub fn wanted(pool: &EdgePool) -> bool {
    !pool.spec.has_database() && pool.spec.desired_replicas() < 2
}

/// The claim; `held` is the one that is there, whose storage class stays.
#[must_use]
pub fn plan(pool: &EdgePool, held: Option<&PersistentVolumeClaim>) -> Option<Child> {
    if !wanted(pool) {
        return None;
    }
    let embedded = pool
        .spec
        .contacts
        .as_ref()
        .and_then(|contacts| contacts.embedded.clone())
        .unwrap_or_default();
    let class = match held.and_then(|claim| claim.spec.as_ref()) {
        Some(spec) => spec.storage_class_name.clone(),
        None => embedded.storage_class_name,
    };
    let name = pool.name_any();
    Some(Child::PersistentVolumeClaim(Box::new(
        PersistentVolumeClaim {
            metadata: metadata::kept(pool, names::contacts_volume(&name)),
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                storage_class_name: class,
                resources: Some(VolumeResourceRequirements {
                    requests: Some(BTreeMap::from([(
                        "storage".to_owned(),
                        Quantity(embedded.size),
                    )])),
                    ..VolumeResourceRequirements::default()
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            ..PersistentVolumeClaim::default()
        },
    )))
}
