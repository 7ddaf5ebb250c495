#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use xmpp_edge_crds::edge_config::{EdgeConfig, shards};

use super::*;

fn config(generation: u64, description: &str) -> EdgeConfig {
    serde_json::from_value(serde_json::json!({
        "version": {"major": 1, "minor": 0}, "generation": generation,
        "namespace": "default", "pool": description, "site": "a", "fqdn": "edge.org.example",
        "domains": ["org.example"], "namespaceDomains": ["org.example"],
        "listeners": {"s2s": 5269, "directTls": 0, "internal": 23456, "admin": 0, "dns": 0},
        "gateways": [], "partners": [],
        "access": {"policies": [], "homeSites": {}},
        "settings": {}, "contacts": "Embedded",
    }))
    .unwrap()
}

fn secrets(directory: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["org.example".to_owned()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    for name in ["tls", "issuer"] {
        fs::write(directory.join(format!("{name}.crt")), &chain).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    fs::write(directory.join("internal-ca.crt"), &chain).unwrap();
    fs::write(
        directory.join("dialback-secret"),
        "a secret of sixteen octets",
    )
    .unwrap();
}

/// As the kubelet does: each file is replaced, not written over.
fn put(path: &Path, content: &[u8]) {
    let half = path.with_extension("half");
    fs::write(&half, content).unwrap();
    fs::rename(half, path).unwrap();
}

fn generation(follower: &Follower) -> Option<u64> {
    follower
        .offer()
        .inputs
        .map(|inputs| inputs.config.generation)
}

#[test]
fn shards_count_once_one_generation_is_complete_and_a_bad_one_keeps_the_old() {
    let (folder, materials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    secrets(materials.path());
    let source = Source::of(folder.path().to_owned()).unwrap();
    let mut follower = Follower::new(source, materials.path().to_owned());
    let shard = |number: usize| folder.path().join(format!("shard-{number}"));
    follower.look();
    assert!(follower.offer().missing[0].contains("no shard is there yet"));

    let packed = shards::encode(&config(1, "one")).unwrap();
    let whole = &packed.shards;
    assert_eq!(whole.len(), 1);
    put(&shard(0), &whole[0]);
    follower.look();
    assert_eq!(generation(&follower), Some(1));
    let hash = |follower: &Follower| follower.offer().inputs.unwrap().document_sha256;
    assert_eq!(hash(&follower).as_deref(), Some(&*packed.sha256));
    // A backup brings the number again, with other content.
    let restored = shards::encode(&config(1, "another")).unwrap();
    put(&shard(0), &restored.shards[0]);
    follower.look();
    assert_eq!(generation(&follower), Some(1));
    assert_eq!(hash(&follower).as_deref(), Some(&*restored.sha256));
    put(&shard(0), &whole[0]);
    follower.look();

    // Damaged: the first look may be in the middle of a write, the second is told.
    let mut damaged = shards::encode(&config(2, "two")).unwrap().shards.remove(0);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    put(&shard(0), &damaged);
    follower.look();
    assert_eq!(follower.offer().unreadable, None);
    follower.look();
    let told = follower.offer().unreadable.unwrap();
    assert!(told.contains("hash"), "{told}");
    assert_eq!(generation(&follower), Some(1));

    put(
        &shard(0),
        &shards::encode(&config(3, "three")).unwrap().shards[0],
    );
    follower.look();
    assert_eq!(generation(&follower), Some(3));
    assert_eq!(follower.offer().unreadable, None);

    // A generation that is not complete is a write under way: nothing is told, the old stays.
    let header =
        br#"{"version":{"major":1,"minor":0},"generation":4,"number":1,"count":2,"sha256":"00"}"#;
    put(&shard(0), &[&header[..], b"\n"].concat());
    for _ in 0..3 {
        follower.look();
        let offer = follower.offer();
        assert_eq!((offer.unreadable, offer.stale), (None, Vec::new()));
        assert_eq!(generation(&follower), Some(3));
    }
    fs::remove_file(shard(0)).unwrap();
    follower.look();
    assert_eq!(generation(&follower), Some(3));
}

#[test]
fn what_did_not_change_is_the_same_and_not_read_again() {
    let (folder, materials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    secrets(materials.path());
    put(
        &folder.path().join("shard-0"),
        &shards::encode(&config(1, "one")).unwrap().shards[0],
    );
    let source = Source::of(folder.path().to_owned()).unwrap();
    let mut follower = Follower::new(source, materials.path().to_owned());
    follower.look();
    let first = follower.offer().inputs.unwrap();
    follower.look();
    // The kubelet writes all files of a volume anew where one of them changed.
    put(
        &folder.path().join("shard-0"),
        &shards::encode(&config(1, "one")).unwrap().shards[0],
    );
    follower.look();
    assert!(follower.offer().inputs.unwrap().are(&first));
}

#[tokio::test]
async fn a_file_that_is_given_by_hand_must_be_whole_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.json");
    let start = || {
        let error = files(
            path.clone(),
            folder.path().to_owned(),
            CancellationToken::new(),
        );
        error.err().map(|error| error.to_string())
    };
    assert!(start().unwrap().contains("edge.json"));
    fs::write(&path, "{").unwrap();
    assert!(start().unwrap().contains("not an EdgeConfig"));
    fs::write(&path, serde_json::to_vec(&config(1, "one")).unwrap()).unwrap();
    assert!(start().unwrap().contains("internal-ca.crt"));
    secrets(folder.path());
    fs::remove_file(folder.path().join("tls.crt")).unwrap();
    fs::remove_file(folder.path().join("tls.key")).unwrap();
    assert_eq!(start(), None, "certificates may come later");
}
