#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::edge_config::{AccessPolicy, AccessScope, Granted, PolicyMode};

fn config(generation: u64, users: usize) -> EdgeConfig {
    let mut config: EdgeConfig = serde_json::from_value(json!({
        "version": { "major": VERSION.major, "minor": VERSION.minor },
        "generation": generation,
        "namespace": "default",
        "pool": "berlin",
        "site": "berlin",
        "fqdn": "xmpp.org.example",
        "domains": ["org.example"],
        "namespaceDomains": ["org.example"],
        "listeners": { "s2s": 5269, "directTls": 5270, "internal": 23456, "admin": 9090, "dns": 0 },
        "gateways": [],
        "partners": [],
        "access": { "policies": [], "homeSites": {} },
        "settings": {},
        "contacts": "Embedded",
    }))
    .unwrap();
    let user = |n: usize| {
        // Digests do not compress, so that the number of shards is what it seems.
        let name = hex(&Sha256::digest(n.to_be_bytes()));
        format!("{name}@org.example").parse().unwrap()
    };
    config.access.policies.push(AccessPolicy {
        name: "granted".into(),
        scope: AccessScope::User(Granted {
            users: (0..users).map(user).collect(),
            domains: vec![],
        }),
        enable_federation_access: true,
        enable_xmpp_access: true,
        enable_public_cloud_access: false,
        partners: None,
        mode: PolicyMode::Enforce,
    });
    config
}

/// Small shards, so that a small document needs several.
fn several(generation: u64) -> Vec<Vec<u8>> {
    let packed = encode_with(&config(generation, 60), MAX_HEADER_BYTES + 500).unwrap();
    let shards = packed.shards;
    assert!((2..=MAX_SHARDS).contains(&shards.len()), "{}", shards.len());
    shards
}

fn edit_header(shard: &[u8], edit: impl FnOnce(&mut ShardHeader)) -> Vec<u8> {
    let (mut header, slice) = split(shard).unwrap();
    edit(&mut header);
    let mut edited = serde_json::to_vec(&header).unwrap();
    edited.push(b'\n');
    edited.extend_from_slice(slice);
    edited
}

#[test]
fn what_was_encoded_is_decoded() {
    let document = config(7, 3);
    let packed = encode(&document).unwrap();
    assert_eq!(packed.shards.len(), 1);
    let read = decode(&packed.shards).unwrap();
    assert_eq!(read.config, document);
    assert_eq!(read.sha256, packed.sha256);
    let other = encode(&config(7, 4)).unwrap();
    assert_ne!(other.sha256, packed.sha256, "of the same generation");
}

#[test]
fn order_does_not_matter_and_twins_do_no_harm() {
    let mut shards = several(1);
    shards.reverse();
    shards.push(shards[0].clone());
    assert_eq!(decode(&shards).unwrap().config, config(1, 60));
}

#[test]
fn equal_documents_make_equal_shards() {
    assert_eq!(
        encode(&config(1, 10)).unwrap(),
        encode(&config(1, 10)).unwrap()
    );
}

#[test]
fn the_content_hash_follows_content_and_not_the_generation() {
    let one = content_hash(&config(1, 3)).unwrap();
    assert_eq!(one, content_hash(&config(2, 3)).unwrap());
    assert_ne!(one, content_hash(&config(1, 4)).unwrap());
    assert_eq!(one.len(), 64);
}

#[test]
fn an_incomplete_document_is_waited_for() {
    let none: [Vec<u8>; 0] = [];
    assert!(decode(&none).unwrap_err().is_incomplete());
    let mut shards = several(3);
    shards.remove(1);
    let error = decode(&shards).unwrap_err();
    assert!(
        matches!(
            error,
            DecodeError::MissingShard {
                number: 1,
                generation: 3,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.is_incomplete());
}

#[test]
fn shards_of_two_writes_never_make_one_document() {
    let (old, new) = (several(1), several(2));
    let mixed = vec![new[0].clone(), old[1].clone()];
    let error = decode(&mixed).unwrap_err();
    assert!(matches!(error, DecodeError::MixedGenerations(_)), "{error}");
    assert!(error.is_incomplete());
    // One generation complete beside the beginning of the next: the complete one counts.
    let mut both = old.clone();
    both.push(new[0].clone());
    assert_eq!(decode(&both).unwrap().config.generation, 1);
    both.extend(new);
    assert_eq!(decode(&both).unwrap().config.generation, 2);
}

#[test]
fn damage_is_named() {
    let shards = several(1);
    let with = |index: usize, shard: Vec<u8>| {
        let mut copy = shards.clone();
        copy[index] = shard;
        decode(&copy).unwrap_err()
    };
    let mut flipped = shards[0].clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(
        with(0, flipped),
        DecodeError::Hash { generation: 1 }
    ));
    assert!(matches!(
        with(0, b"no header".to_vec()),
        DecodeError::Header(_)
    ));
    assert!(matches!(
        with(0, b"{}\nslice".to_vec()),
        DecodeError::Header(_)
    ));
    for (number, count) in [(0, 0), (8, 9), (3, 3)] {
        let shard = edit_header(&shards[0], |header| {
            header.number = number;
            header.count = count;
        });
        assert!(
            matches!(with(0, shard), DecodeError::Header(_)),
            "{number} of {count}"
        );
    }
    let twin = edit_header(&shards[1], |header| header.number = 0);
    let mut twice = shards.clone();
    twice.push(twin);
    assert!(matches!(
        decode(&twice),
        Err(DecodeError::Twice { number: 0, .. })
    ));
    let lied: Vec<_> = shards
        .iter()
        .map(|shard| edit_header(shard, |header| header.generation = 9))
        .collect();
    assert!(matches!(
        decode(&lied),
        Err(DecodeError::GenerationDiffers {
            shards: 9,
            document: 1
        })
    ));
}

#[test]
fn a_foreign_major_version_is_refused_and_a_later_minor_one_read() {
    let mut document = config(1, 1);
    document.version.minor += 1;
    let read = |document: &EdgeConfig| decode(&encode(document).unwrap().shards);
    assert_eq!(read(&document).unwrap().config, document);
    document.version.major += 1;
    let error = read(&document).unwrap_err();
    assert!(matches!(error, DecodeError::Version { .. }), "{error}");
    assert!(!error.is_incomplete());
}

#[test]
fn a_document_past_the_last_shard_is_too_large() {
    let error = encode_with(&config(1, 400), MAX_HEADER_BYTES + 500).unwrap_err();
    assert!(
        matches!(error, EncodeError::TooLarge { shards } if shards > MAX_SHARDS),
        "{error}"
    );
}

#[test]
fn shards_fit_their_bound_and_a_hundred_thousand_users_fit_the_shards() {
    let shards = encode(&config(1, 100_000)).unwrap().shards;
    assert!(shards.iter().all(|shard| shard.len() <= MAX_SHARD_BYTES));
    assert!(shards.len() > 1, "the bound was met");
    assert_eq!(decode(&shards).unwrap().config, config(1, 100_000));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(shards in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..4)) {
        let _ = decode(&shards);
    }

    #[test]
    fn a_changed_byte_never_yields_another_document(at in 0_usize..4096, flip in 1_u8..) {
        let mut shards = several(1);
        let total: usize = shards.iter().map(Vec::len).sum();
        let mut at = at % total;
        for shard in &mut shards {
            if at < shard.len() {
                shard[at] ^= flip;
                break;
            }
            at -= shard.len();
        }
        if let Ok(document) = decode(&shards) {
            prop_assert_eq!(document.config, config(1, 60));
        }
    }
}
