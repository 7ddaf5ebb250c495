#![allow(clippy::unwrap_used)]

use super::*;
use crate::tls::{
    Role, Roots, Trust,
    pki::{Authority, authority, intermediate},
};

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn leaves(by: &Authority) -> LeafIssuer {
    LeafIssuer::new(&by.pem(), &by.key().serialize_pem(), "issuer").unwrap()
}

#[test]
fn a_leaf_is_good_for_its_domain_in_both_roles_under_the_root() {
    let root = authority("internal CA");
    let leaves = leaves(&intermediate("pod", &root));
    let trust = Trust::new(Roots::from_pem(root.pem(), "test").unwrap());
    for name in [
        "partner.example",
        &format!("{}.example", ["a".repeat(60), "b".repeat(60)].join(".")),
    ] {
        let leaf = leaves.leaf(&domain(name)).unwrap();
        assert_eq!(leaf.dns_names(), [name]);
        assert!(leaf.for_client() && leaf.for_server());
        assert_eq!(leaf.chain().len(), 2);
        for role in [Role::Server, Role::Client] {
            trust
                .judge(&domain(name), leaf.chain(), role, None)
                .unwrap();
            assert!(
                trust
                    .judge(&domain("other.example"), leaf.chain(), role, None)
                    .is_err()
            );
        }
    }
}

#[test]
fn a_leaf_is_kept_until_three_quarters_of_its_time_are_over() {
    let leaves = leaves(&authority("pod"));
    let now = Timestamp::now();
    let partner = domain("partner.example");
    let serial = |at| leaves.leaf_at(&partner, at).unwrap().serial().to_owned();
    let first = serial(now);
    assert_eq!(serial(now + SignedDuration::from_hours(17)), first);
    assert_ne!(serial(now + SignedDuration::from_hours(19)), first);
}

#[test]
fn no_leaf_outlives_its_intermediate() {
    let leaves = leaves(&authority("pod"));
    let end = leaves.not_after();
    let shortly = end - SignedDuration::from_hours(2);
    let leaf = leaves.leaf_at(&domain("partner.example"), shortly).unwrap();
    assert_eq!(leaf.not_after(), end);
    let error = leaves.leaf_at(&domain("other.example"), end).unwrap_err();
    assert_eq!(error, LeafError::IntermediateExpired(end));
}

#[test]
fn the_leaf_longest_unused_makes_room() {
    let leaves = leaves(&authority("pod"));
    let kept = leaves.leaf(&domain("kept.example")).unwrap();
    leaves.leaf(&domain("unused.example")).unwrap();
    for n in 0..CAPACITY - 1 {
        leaves.leaf(&domain("kept.example")).unwrap();
        leaves.leaf(&domain(&format!("n{n}.example"))).unwrap();
    }
    let made = leaves.made.lock();
    assert_eq!(made.leaves.len(), CAPACITY);
    assert!(!made.leaves.contains_key(&domain("unused.example")));
    assert!(Arc::ptr_eq(
        &made.leaves[&domain("kept.example")].identity,
        &kept
    ));
}

#[test]
fn an_intermediate_with_another_key_is_refused() {
    let (one, other) = (authority("one"), authority("other"));
    let error = LeafIssuer::new(&one.pem(), &other.key().serialize_pem(), "Secret i")
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .starts_with("Secret i: the private key does not belong"),
        "{error}"
    );
}
