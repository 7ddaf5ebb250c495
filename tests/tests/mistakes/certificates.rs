//! The pool's certificate: what somebody gave, or had signed, and what is wrong with it.

use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::{
    domain::DomainName,
    kinds::pool::{KeyAlgorithm, Subject},
};
use xmpp_edge_operator::secrets::{
    source::{
        Backend, CertificateSpec, Followed, Keeper, PoolBackend, Progress, SecretRef, csr::Csr,
        provide,
    },
    store::{ManagedSecret, MemoryStore, SecretData, Store, set, text},
};
use xmpp_edge_tests::{
    mistakes,
    pki::{Authority, Draft, Leaf, Signer, SigningRules, Usage, Validity},
};

const NAMES: [&str; 2] = ["org.example", "edge.org.example"];
/// AuthorityInfoAccess (RFC 5280) with one caIssuers at `http:/`.
const ISSUER_ELSEWHERE: &[u8] =
    b"\x30\x14\x30\x12\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x06http:/";

fn material(entries: &[(&str, &str)]) -> SecretData {
    let mut material = SecretData::new();
    for (key, value) in entries {
        set(&mut material, key, value);
    }
    material
}

fn pair(leaf: &Leaf) -> SecretData {
    material(&[("tls.crt", &leaf.certificate), ("tls.key", &leaf.key)])
}

/// What the condition says of a backend's offer on an empty store.
fn said(backend: &dyn Backend, store: &mut MemoryStore, now: Timestamp) -> String {
    let names = NAMES.map(|name| DomainName::parse(name).unwrap());
    let wanted = CertificateSpec {
        pool: "hq",
        names: &names,
        now,
    };
    let provision = provide(backend, &wanted, store).unwrap();
    provision.condition(now).2
}

fn given(secret: Option<&SecretData>, now: Timestamp) -> String {
    let secrets = |_: &str| secret.cloned();
    let backend = SecretRef {
        name: "site",
        secrets: &secrets,
    };
    said(&backend, &mut MemoryStore::default(), now)
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Mistakes with a pair that somebody else made.
fn of_given() -> Vec<String> {
    let now = Timestamp::now();
    let ca = Authority::new("Somebody's CA");
    let good = ca.issue_as(&Draft::of(&NAMES));
    let other = ca.issue_as(&Draft::of(&NAMES));
    let draft = || Draft::of(&NAMES);
    let issue = |draft: Draft| pair(&ca.issue_as(&draft));
    let validity = |validity| {
        issue(Draft {
            validity,
            ..draft()
        })
    };
    let odd_key = openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:secp256k1",
    ]);
    let of_openssl = openssl(&[
        "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x", "-keyout", "-", "-out",
        "-",
    ]);
    let with = |chain: &str, key: &str| material(&[("tls.crt", chain), ("tls.key", key)]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (file("a.crt", &good.certificate), file("a.key", &good.key));
    let trusted = openssl(&["x509", "-trustout", "-in", &certificate]);
    let pass = ["-aes256", "-passout", "pass:secret"];
    let encrypted = openssl(&[&["pkey", "-in", &key][..], &pass].concat());
    let der_file = file("a.der", "");
    openssl(&[
        "x509",
        "-in",
        &certificate,
        "-outform",
        "der",
        "-out",
        &der_file,
    ]);
    let der = std::fs::read(&der_file).unwrap();
    let utf16 = |text: &str| -> Vec<u8> {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect()
    };
    let binary = |certificate: Vec<u8>| {
        let mut secret = material(&[("tls.key", &good.key)]);
        secret.insert("tls.crt".to_owned(), certificate.into());
        secret
    };
    let root = ca.certificate();
    let later = now + SignedDuration::from_hours(24 * 89);
    let cases: Vec<(Option<SecretData>, Timestamp)> = vec![
        (None, now),
        (Some(material(&[("tls.key", &good.key)])), now),
        (Some(material(&[("tls.crt", &good.certificate)])), now),
        (Some(with("hello", &good.key)), now),
        (
            Some(with(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &good.key,
            )),
            now,
        ),
        (
            Some(with(&format!("{}{trusted}", good.certificate), &good.key)),
            now,
        ),
        (Some(binary(utf16(&good.certificate))), now),
        (Some(binary(der)), now),
        (
            Some(material(&[
                ("tls.crt", &good.certificate),
                ("tls.key", &good.key),
                ("ca.crt", "hello"),
            ])),
            now,
        ),
        (Some(with(&good.certificate, &encrypted)), now),
        (Some(with(&good.certificate, "hello")), now),
        (Some(with(&good.certificate, &odd_key)), now),
        (Some(with(&good.certificate, &other.key)), now),
        (Some(with(&root, &good.key)), now),
        (Some(with(&of_openssl, &of_openssl)), now),
        (Some(issue(Draft::of(&NAMES[..1]))), now),
        (Some(validity(Validity::Expired)), now),
        (Some(validity(Validity::NotYet)), now),
        (
            Some(issue(Draft {
                usage: Usage::ClientAuth,
                ..draft()
            })),
            now,
        ),
        (
            Some(issue(Draft {
                usage: Usage::ServerAuth,
                ..draft()
            })),
            now,
        ),
        (
            Some(issue(Draft {
                extension: Some((vec![1, 3, 6, 1, 5, 5, 7, 1, 1], ISSUER_ELSEWHERE.to_vec())),
                ..draft()
            })),
            now,
        ),
        (Some(pair(&good)), later),
    ];
    cases
        .iter()
        .map(|(secret, at)| given(secret.as_ref(), *at))
        .collect()
}

/// Mistakes with a request and the chain that comes back.
fn of_requests() -> Vec<String> {
    let now = Timestamp::now();
    let signer = Signer::new().unwrap();
    let stranger = Signer::new().unwrap();
    let (root, issuer) = (&signer.root, &signer.intermediate);
    let mut store = MemoryStore::default();
    let mut offer = |algorithm, subject: Option<&Subject>, sent: Option<SecretData>, at| {
        let secrets = |_: &str| sent.clone();
        let backend = Csr {
            algorithm,
            subject,
            chain_secret: "hq-signed",
            secrets: &secrets,
        };
        let message = said(&backend, &mut store, at);
        let held = store
            .read(&ManagedSecret::PoolPair("hq".into()))
            .unwrap()
            .unwrap_or_default();
        (message, text(&held, "next.csr").map(str::to_owned))
    };
    let p256 = KeyAlgorithm::EcdsaP256;
    let (waiting, request) = offer(p256, None, None, now);
    let request = request.unwrap();
    let leaf = signer.sign(&request, SigningRules::RIGHT).unwrap();
    let chain = |chain: String| Some(material(&[("tls.crt", &chain)]));
    let foreign = Authority::new("Somebody's CA")
        .issue_as(&Draft::of(&NAMES))
        .certificate;
    let far = now + SignedDuration::from_hours(24 * 1100);
    let mut messages = vec![waiting];
    for (sent, at) in [
        (Some(material(&[("chain.pem", &leaf)])), now),
        (chain(foreign), now),
        (chain(format!("{leaf}{root}{issuer}")), now),
        (chain(format!("{leaf}{root}")), now),
        (chain(format!("{leaf}{}", stranger.intermediate)), now),
        (chain(format!("{leaf}{issuer}")), far),
    ] {
        messages.push(offer(p256, None, sent, at).0);
    }
    let right = chain(format!("{leaf}{issuer}"));
    assert!(
        offer(p256, None, right.clone(), now)
            .0
            .starts_with("valid until")
    );
    messages.push(offer(KeyAlgorithm::EcdsaP384, None, right, now).0);
    let subject = Subject {
        country: Some("Germany".into()),
        ..Subject::default()
    };
    let mut untouched = MemoryStore::default();
    let secrets = |_: &str| None;
    let backend = Csr {
        algorithm: p256,
        subject: Some(&subject),
        chain_secret: "hq-signed",
        secrets: &secrets,
    };
    messages.push(said(&backend, &mut untouched, now));
    messages
}

#[test]
fn every_fault_of_a_certificate_is_listed() {
    let mut messages = of_given();
    messages.extend(of_requests());
    let elsewhere = PoolBackend::Elsewhere("certManager");
    messages.push(said(
        &elsewhere,
        &mut MemoryStore::default(),
        Timestamp::now(),
    ));
    mistakes::compare("Certificates", &messages);
}

/// How cert-manager itself comes to say these is in `operator_pool`.
#[test]
fn what_cert_manager_says_is_listed() {
    let now = Timestamp::now();
    let words = |it: &str| it.to_owned();
    let waiting = |reason: &str, message: &str| Progress::Waiting {
        reason: words(reason),
        message: words(message),
    };
    let failed = |reason: &str| Progress::Failed {
        reason: words(reason),
        message: words("no"),
    };
    let told = [
        Progress::Unseen,
        waiting("Pending", "Referenced \"Issuer\" not found: nowhere"),
        waiting(
            "NotApproved",
            "nobody has approved CertificateRequest \"hq-1\" yet",
        ),
        failed("Denied"),
        failed("Failed"),
        Progress::Failed {
            reason: words("Failed"),
            message: words("the common_name field is required"),
        },
    ];
    let names = NAMES.map(|name| DomainName::parse(name).unwrap());
    let wanted = CertificateSpec {
        pool: "hq",
        names: &names,
        now,
    };
    let backend = Followed {
        keeper: Keeper::CertManager,
    };
    let messages = told.map(|progress| {
        let mut provision = provide(&backend, &wanted, &mut MemoryStore::default()).unwrap();
        provision.told("hq", progress, now);
        provision.condition(now).2
    });
    mistakes::compare("What cert-manager says", &messages);
}
