//! Secrets that pools refer to beside the certificate's.

use xmpp_edge_crds::kinds::pool::TsigAlgorithm;
use xmpp_edge_operator::{
    dns::key::TsigKey,
    secrets::{
        egress, internal_ca,
        store::{SecretData, set},
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
            ("secret", "not base64"),
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
