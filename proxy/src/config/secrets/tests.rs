#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::symlink};

use super::*;

const EVERYTHING: Needed = Needed {
    certificates: true,
    contacts: true,
    egress: true,
};
use crate::tls::pki;

/// A folder as the kubelet shows one: files are links into `..data`, which is swapped whole.
struct Volume {
    directory: tempfile::TempDir,
    number: u32,
}

impl Volume {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            number: 0,
        }
    }

    fn holds(&mut self, files: &[(&str, &str)]) {
        let root = self.directory.path();
        self.number += 1;
        let payload = format!("..{}", self.number);
        fs::create_dir(root.join(&payload)).unwrap();
        for (name, content) in files {
            fs::write(root.join(&payload).join(name), content).unwrap();
            let _ = symlink(Path::new("..data").join(name), root.join(name));
        }
        let next = root.join("..data_tmp");
        symlink(&payload, &next).unwrap();
        fs::rename(&next, root.join("..data")).unwrap();
    }
}

struct Certificates {
    chain: String,
    key: String,
    other_key: String,
    ca: String,
}

fn certificates() -> Certificates {
    let ca = pki::authority("internal");
    let (chain, key) = pem_pair();
    Certificates {
        chain,
        key,
        other_key: pem_pair().1,
        ca: ca.pem(),
    }
}

fn pem_pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["org.example".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn what_is_missing_is_named_until_all_is_there() {
    let c = certificates();
    let mut volume = Volume::new();
    let mut secrets = Secrets::new(volume.directory.path().to_owned());
    secrets.look();
    let missing = |secrets: &Secrets| secrets.missing(EVERYTHING).join("; ");
    assert_eq!(
        missing(&secrets),
        "the pool's certificate (tls.crt); the internal issuer (issuer.crt); \
         the internal CA (internal-ca.crt); the dialback secret (dialback-secret); \
         the contacts' database (contacts-url); \
         the egress proxy's credentials (egress-username)"
    );
    let mut files = vec![("tls.crt", c.chain.as_str())];
    volume.holds(&files);
    secrets.look();
    assert!(
        missing(&secrets).starts_with(
            "the pool's certificate (tls.crt: one of the two is there, both are needed)"
        )
    );
    files.extend([
        ("tls.key", c.key.as_str()),
        ("issuer.crt", &c.chain),
        ("issuer.key", &c.key),
        ("internal-ca.crt", &c.ca),
        ("dialback-secret", "short"),
    ]);
    volume.holds(&files);
    secrets.look();
    assert_eq!(
        missing(&secrets),
        "the dialback secret (dialback-secret: 16 octets at least are needed); \
         the contacts' database (contacts-url); \
         the egress proxy's credentials (egress-username)"
    );
    assert!(secrets.materials().is_none());
    files.pop();
    files.extend([
        ("dialback-secret", "long enough for anybody\n"),
        ("contacts-url", "postgres://edge:pw@db.example/x"),
        ("egress-username", "edge"),
    ]);
    volume.holds(&files);
    assert!(secrets.look());
    assert_eq!(
        missing(&secrets),
        "the egress proxy's credentials (egress-username: there is no password)"
    );
    files.push(("egress-password", "pw"));
    volume.holds(&files);
    assert!(secrets.look());
    assert_eq!(missing(&secrets), "");
    let materials = secrets.materials().unwrap();
    assert_eq!(&materials.dialback_secret[..], b"long enough for anybody");
    assert!(!secrets.look(), "nothing changed");
}

#[test]
fn what_vanishes_or_breaks_stays_as_last_read_and_is_named_the_rest_goes_on() {
    let c = certificates();
    let mut volume = Volume::new();
    let mut secrets = Secrets::new(volume.directory.path().to_owned());
    let rest = [
        ("internal-ca.crt", c.ca.as_str()),
        ("dialback-previous", "the one before it"),
    ];
    let pair = [("tls.crt", c.chain.as_str()), ("tls.key", &c.key)];
    let secret = [("dialback-secret", "the first of secrets")];
    volume.holds(&[&pair[..], &secret, &rest].concat());
    assert!(secrets.look());

    // Another key than the certificate's, gone, and half: the pair in use stays.
    let mismatch = [pair[0], ("tls.key", c.other_key.as_str())];
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&mismatch, "does not belong"),
        (&[], "it is not there"),
        (&pair[1..], "both are needed"),
    ];
    for (files, told) in cases {
        volume.holds(&[files, &secret, &rest].concat());
        assert!(!secrets.look());
        assert!(
            secrets.stale().is_empty(),
            "it may be the middle of a write"
        );
        secrets.look();
        let stale = secrets.stale().join("; ");
        assert!(
            stale.starts_with("the pool's certificate stays as last read") && stale.contains(told),
            "{stale}"
        );
        assert!(!stale.contains(&c.other_key) && !stale.contains(&c.key));
        assert!(
            secrets
                .missing(Needed {
                    contacts: false,
                    egress: false,
                    ..EVERYTHING
                })
                .iter()
                .all(|text| text.contains("issuer"))
        );
        assert!(
            secrets
                .materials()
                .unwrap()
                .certificate
                .unwrap()
                .key
                .as_str()
                == c.key
        );
    }

    // Meanwhile the secret is changed, and then the previous one retired.
    let next = [("dialback-secret", "the second of secrets")];
    volume.holds(&[&next[..], &rest].concat());
    assert!(secrets.look());
    volume.holds(&[&next[..], &rest[..1]].concat());
    assert!(secrets.look());
    let materials = secrets.materials().unwrap();
    assert_eq!(&materials.dialback_secret[..], b"the second of secrets");
    assert!(materials.dialback_previous.is_none());

    // The whole Secret goes: what was read stays.
    volume.holds(&rest[..1]);
    assert!(!secrets.look());
    assert!(secrets.materials().is_some());
    volume.holds(&[&pair[..], &next, &rest[..1]].concat());
    secrets.look();
    assert_eq!(secrets.stale(), Vec::<String>::new());
}

#[test]
fn what_sip_servers_are_shown_comes_and_changes_as_a_whole_and_stays_where_it_breaks() {
    let c = certificates();
    let mut volume = Volume::new();
    let mut secrets = Secrets::new(volume.directory.path().to_owned());
    let pairs = |key: &str| {
        let file = serde_json::json!({"org.example": {"chain": c.chain, "key": key}});
        file.to_string()
    };
    let good = pairs(&c.key);
    volume.holds(&[("sip-pairs.json", &good)]);
    assert!(secrets.look());
    let held = |secrets: &Secrets| secrets.sip.last.clone().unwrap();
    assert_eq!(held(&secrets).0["org.example"].chain, c.chain);
    for broken in [pairs(&c.other_key), "{".to_owned()] {
        volume.holds(&[("sip-pairs.json", &broken)]);
        assert!(!secrets.look());
        secrets.look();
        let stale = secrets.stale().join("; ");
        assert!(
            stale.starts_with("what SIP servers are shown stays as last read"),
            "{stale}"
        );
        assert!(held(&secrets).0.contains_key("org.example"));
    }
    volume.holds(&[("sip-pairs.json", "{}")]);
    assert!(secrets.look());
    assert!(held(&secrets).0.is_empty() && secrets.stale().is_empty());
}
