//! Secrets that pools refer to beside the certificate's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use xmpp_edge_crds::kinds::{EdgePool, pool::TsigAlgorithm};
use xmpp_edge_operator::{
    compile::{NamespaceInputs, compile},
    dns::key::TsigKey,
    secrets::{
        egress, internal_ca, issue,
        source::sip,
        store::{MemoryStore, SecretData, set},
    },
};
use xmpp_edge_proxy::contacts::Database;
use xmpp_edge_tests::mistakes;

fn material(entries: &[(&str, &str)]) -> SecretData {
    let mut material = SecretData::new();
    for (key, value) in entries {
        set(&mut material, key, value);
    }
    material
}

/// What a pool's `sip.certificateSecretRef` leads to, without its Secret: at once, and after a good one.
fn of_a_sip_server() -> Vec<String> {
    let pool: EdgePool = serde_json::from_value(json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": "hq"},
        "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "e.org.example"},
            "certificate": {"selfSigned": {}},
            "gateways": [{"domains": ["org.example"], "mode": "Sip", "address": "sip.example:5061",
                "sip": {"edgeName": "edge.example", "certificateSecretRef": {"name": "theirs"}}}]},
    }))
    .unwrap();
    let world = NamespaceInputs {
        namespace: "org".into(),
        pools: vec![pool.clone()],
        ..NamespaceInputs::default()
    };
    let config = compile(&world, &BTreeMap::new())
        .configs
        .remove("hq")
        .unwrap();
    let now = Timestamp::now();
    let ca = issue::root("their CA", now).unwrap();
    let pair = issue::leaf(&ca, &["edge.example".parse().unwrap()], now).unwrap();
    let good = material(&[("tls.crt", &pair.chain), ("tls.key", &pair.key)]);
    let mut store = MemoryStore::default();
    let mut messages = Vec::new();
    for secret in [None, Some(good), None] {
        let secrets = |_: &str| secret.clone();
        let found = sip::provide(Some(&pool), &config, &secrets, &mut store, now).unwrap();
        messages.extend(found.faults.iter().map(ToString::to_string));
    }
    messages
}

#[test]
fn every_fault_of_another_secret_is_listed() {
    let mut messages = Vec::new();
    let good = "c2VjcmV0c2VjcmV0c2VjcmV0";
    for secret in [
        None,
        Some(material(&[("secret", good)])),
        Some(material(&[("name", "a..b"), ("secret", good)])),
        Some(material(&[("name", "key.example")])),
        Some(material(&[
            ("name", "key.example"),
            ("secret", "no%base64"),
        ])),
        Some(material(&[
            ("name", "key.example"),
            ("secret", "secret \"c2VjcmV0c2VjcmV0\";"),
        ])),
        Some(SecretData::from([
            ("name".to_owned(), b"key.example".to_vec().into()),
            ("secret".to_owned(), vec![0xff, 0xfe, b'Z', 0].into()),
        ])),
    ] {
        let read = TsigKey::read("tsig", secret.as_ref(), TsigAlgorithm::HmacSha256);
        messages.extend(read.err().map(|it| it.to_string()));
    }
    for secret in [material(&[]), material(&[("secret", "short")])] {
        let read = internal_ca::dialback_of(&secret, "dialback");
        messages.extend(read.err().map(|it| it.to_string()));
    }
    let long = "x".repeat(256);
    for secret in [
        None,
        Some(material(&[("username", "edge")])),
        Some(material(&[("username", "edge"), ("password", "\n")])),
        Some(material(&[("username", "edge"), ("password", &long)])),
        Some(SecretData::from([
            ("username".to_owned(), vec![0xff, 0xfe].into()),
            ("password".to_owned(), b"pw".to_vec().into()),
        ])),
    ] {
        let read = egress::credentials("egress", secret.as_ref());
        messages.extend(read.err().map(|it| it.to_string()));
    }
    messages.extend(of_a_sip_server());
    let url = "postgres://edge:secret@db.example/contacts";
    for (url, ca) in [
        ("mysql://db.example", None),
        (&*format!("{url}?sslmode=sometimes"), None),
        (&*format!("{url}?pgbouncer=true"), None),
        ("host=db.example password=a b=c", None),
        ("jdbc:postgresql://db.example/contacts", None),
        ("postgres://edge:p@ss@db.example/contacts", None),
        (url, Some("hello")),
    ] {
        messages.extend(Database::parse(url, ca).err().map(|it| it.to_string()));
    }
    mistakes::compare("Other Secrets", &messages);
}
