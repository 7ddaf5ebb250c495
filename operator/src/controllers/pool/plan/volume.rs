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

/// The claim; `held` is the one that is there: its storage class stays, and so does its size where it is larger, as
/// the API server lets none shrink.
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
    let held = held.and_then(|claim| claim.spec.as_ref());
    let class = match held {
        Some(spec) => spec.storage_class_name.clone(),
        None => embedded.storage_class_name,
    };
    let larger = held.and_then(|spec| {
        let requests = spec.resources.as_ref()?.requests.as_ref()?;
        let Quantity(there) = requests.get("storage")?;
        (bytes(there) > bytes(&embedded.size)).then(|| there.clone())
    });
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
                        Quantity(larger.unwrap_or(embedded.size)),
                    )])),
                    ..VolumeResourceRequirements::default()
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            ..PersistentVolumeClaim::default()
        },
    )))
}

/// Bytes of a quantity: a decimal number with a suffix, as the API server writes sizes of storage. 0 where it is none.
fn bytes(quantity: &str) -> u128 {
    let is_number = |it: char| it.is_ascii_digit() || it == '.';
    let end = quantity.find(|it| !is_number(it));
    let (number, suffix) = quantity.split_at(end.unwrap_or(quantity.len()));
    let factor: u128 = match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u128.pow(2),
        "G" => 1000_u128.pow(3),
        "T" => 1000_u128.pow(4),
        "P" => 1000_u128.pow(5),
        "E" => 1000_u128.pow(6),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return 0,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: Option<u128> = format!("{whole}{fraction}").parse().ok();
    let scale = u32::try_from(fraction.len()).ok();
    let scale = scale.and_then(|digits| 10_u128.checked_pow(digits));
    let (Some(digits), Some(scale)) = (digits, scale) else {
        return 0;
    };
    digits.saturating_mul(factor) / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_compared_whatever_their_suffixes() {
        for (quantity, expected) in [
            ("1Gi", 1 << 30),
            ("1024Mi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("2G", 2_000_000_000),
            ("5", 5),
            ("", 0),
            ("Gi", 0),
            ("1e9", 0),
            ("1.2.3Gi", 0),
            ("99999999999999999999999999999999999999999Gi", 0),
        ] {
            assert_eq!(bytes(quantity), expected, "{quantity}");
        }
    }
}
