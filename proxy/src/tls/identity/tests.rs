#![allow(clippy::unwrap_used)]

use super::*;
use crate::tls::pki::{END, Eku, Subject, authority, intermediate, issue};

#[test]
fn an_identity_tells_what_its_certificate_says() {
    let ca = authority("authority");
    let issued = issue(
        &ca,
        &Subject {
            names: &["org.example", "*.Chat.org.example"],
            usage: &[Eku::ServerAuth],
            ..Subject::default()
        },
    );
    let identity = Identity::from_pem(&issued.pem, &issued.key_pem, "Secret x").unwrap();
    assert_eq!(identity.dns_names(), ["org.example", "*.chat.org.example"]);
    assert!(identity.covers(&DomainName::parse("a.chat.org.example").unwrap()));
    assert!(!identity.covers(&DomainName::parse("partner.example").unwrap()));
    assert_eq!(
        identity.not_after().as_second(),
        i64::try_from(END).unwrap()
    );
    assert!(identity.for_server() && !identity.for_client());
    assert_eq!(
        identity.spki_sha256(),
        crate::tls::spki_sha256(&issued.der).unwrap()
    );
    assert!(!identity.serial().is_empty());
}

#[test]
fn what_is_no_identity_is_refused_with_the_place_and_the_fault() {
    let ca = authority("authority");
    let (one, other) = (
        issue(&ca, &Subject::default()),
        issue(&ca, &Subject::default()),
    );
    let middle = intermediate("the intermediate", &ca);
    let wrong_order = format!("{}{}", one.pem, middle.pem());
    let long = one.pem.repeat(11);
    let broken = one.pem.replacen("MII", "AAA", 1);
    for (what, chain, key, expected) in [
        ("no chain", "", one.key_pem.as_str(), "holds no certificate"),
        (
            "the key as chain",
            &one.key_pem,
            &one.key_pem,
            "holds no certificate",
        ),
        (
            "broken chain",
            &broken,
            &one.key_pem,
            "the chain: line 1: the block \"CERTIFICATE\" is not what it says",
        ),
        ("no key", &one.pem, "", "no private key found"),
        (
            "the chain as key",
            &one.pem,
            &one.pem,
            "no private key found",
        ),
        (
            "another's key",
            &one.pem,
            &other.key_pem,
            "does not belong to the certificate of \"end entity\"",
        ),
        (
            "a stray certificate",
            &wrong_order,
            &one.key_pem,
            "not in order",
        ),
        ("too long", &long, &one.key_pem, "more than 10"),
    ] {
        let error = Identity::from_pem(chain, key, "Secret x, tls.crt")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("Secret x, tls.crt: "), "{what}: {error}");
        assert!(error.contains(expected), "{what}: {error}");
    }
}
