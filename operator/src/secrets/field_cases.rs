//! Files as people have them, by the ids of `docs/field-cases.md`: each is read whole, or refused with
//! what to do about it.
#![allow(clippy::unwrap_used)]

use std::{io::Write, process::Stdio};

use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::{
    domain::DomainName,
    kinds::{conditions::Reason, pool::KeyAlgorithm},
};

use super::{
    chain::{CertificateFacts, PemPair},
    internal_ca::{ensure_ca, ensure_gateway, ensure_issuer},
    issue,
    source::{
        Backend, CertificateSpec, CertificateState, Followed, Keeper, SecretRef, SelfSigned,
        csr::Csr, provide,
    },
    store::{ManagedSecret, MemoryStore, SecretData, Store, set},
};

const NAMES: [&str; 2] = ["org.example", "edge.org.example"];

/// Root → issuer → leaf.
struct IssuedChain {
    root: String,
    issuer: String,
    leaf: PemPair,
}

impl IssuedChain {
    fn new(now: Timestamp) -> Self {
        let root = issue::root("Root", now).unwrap();
        let issuer = issue::intermediate(&root, "Issuer", &[], now).unwrap();
        let leaf = issue::leaf(&issuer, &names(), now).unwrap();
        Self {
            root: root.chain,
            issuer: issuer.chain,
            leaf,
        }
    }

    fn secret(&self, certificate: impl AsRef<[u8]>) -> SecretData {
        self.secret_with(certificate, self.leaf.key.as_bytes())
    }

    fn secret_with(&self, certificate: impl AsRef<[u8]>, key: &[u8]) -> SecretData {
        SecretData::from([
            ("tls.crt".to_owned(), certificate.as_ref().to_vec().into()),
            ("tls.key".to_owned(), key.to_vec().into()),
        ])
    }
}

fn names() -> Vec<DomainName> {
    NAMES.map(|name| DomainName::parse(name).unwrap()).to_vec()
}

fn ask(backend: &dyn Backend, store: &mut MemoryStore, now: Timestamp) -> CertificateState {
    let names = names();
    let wanted = CertificateSpec {
        pool: "hq",
        names: &names,
        now,
    };
    provide(backend, &wanted, store).unwrap()
}

fn given(secret: &SecretData, now: Timestamp) -> (bool, Reason, String) {
    let secrets = |_: &str| Some(secret.clone());
    let backend = SecretRef {
        name: "site",
        secrets: &secrets,
    };
    ask(&backend, &mut MemoryStore::default(), now).condition(now)
}

/// The same Secret, kept by somebody else as the pods' very own.
fn followed(secret: &SecretData, keeper: Keeper, now: Timestamp) -> (bool, Reason, String) {
    let mut store = MemoryStore::default();
    let entry = ManagedSecret::PoolPair("hq".to_owned());
    store.write(&entry, secret).unwrap();
    ask(&Followed { keeper }, &mut store, now).condition(now)
}

fn openssl(arguments: &[&str], input: &str) -> Vec<u8> {
    let mut child = std::process::Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap().stdout
}

fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().flat_map(u16::to_le_bytes);
    [0xff, 0xfe].into_iter().chain(units).collect()
}

#[test]
fn k3_files_joined_without_a_line_break_are_read_whole() {
    let now = Timestamp::now();
    let chain = IssuedChain::new(now);
    let joined = format!("{}{}", chain.leaf.chain.trim_end(), chain.issuer);
    let mut secret = chain.secret(joined);
    set(&mut secret, "ca.crt", &chain.root);
    let (good, _, text) = given(&secret, now);
    assert!(good, "{text}");
    // With `ca.crt` the chain is checked up to the root: without what follows the joint it is not.
    let alone = given(
        &{
            let mut secret = chain.secret(&chain.leaf.chain);
            set(&mut secret, "ca.crt", &chain.root);
            secret
        },
        now,
    );
    assert!(
        !alone.0 && alone.2.contains("append that CA's certificate"),
        "{}",
        alone.2
    );
}

#[test]
fn k4_files_of_windows_and_odd_blocks_are_read_or_named_with_the_line() {
    let now = Timestamp::now();
    let chain = IssuedChain::new(now);
    let both = format!("{}{}", chain.leaf.chain, chain.issuer);
    let mark = |text: &str| format!("\u{feff}{text}");
    for read in [
        mark(&both),
        both.replace('\n', "\r\n"),
        both.replace('\n', " \n"),
        format!("{}{}", mark(&chain.leaf.chain), mark(&chain.issuer)),
    ] {
        let (good, _, text) = given(&chain.secret(&read), now);
        assert!(good, "{text} for {read:?}");
    }
    let marked_key = mark(&chain.leaf.key);
    let (good, _, text) = given(&chain.secret_with(&both, marked_key.as_bytes()), now);
    assert!(good, "a key behind a mark is not encrypted: {text}");
    let trusted = openssl(&["x509", "-trustout"], &chain.issuer);
    let trusted = String::from_utf8(trusted).unwrap();
    let indented: String = both.lines().map(|line| format!("  {line}\n")).collect();
    let escaped = both.replace('\n', "\\n");
    for (refused, says) in [
        (
            format!("{}{trusted}", chain.leaf.chain).into_bytes(),
            "\"TRUSTED CERTIFICATE\"",
        ),
        (indented.into_bytes(), "line 1: "),
        (escaped.into_bytes(), "\\n"),
        (utf16(&both), "UTF-16"),
    ] {
        let (good, reason, text) = given(&chain.secret(&refused), now);
        assert!(!good && reason == Reason::InvalidCertificate, "{text}");
        assert!(text.contains(says) && text.contains("tls.crt"), "{text}");
        assert!(text.len() < 500, "{text}");
    }
    // A comment in another encoding harms neither of them.
    let comment = |text: &str| [&b"friendlyName: M\xfcller\n"[..], text.as_bytes()].concat();
    let commented = chain.secret_with(&both, &comment(&chain.leaf.key));
    let (good, _, text) = given(&commented, now);
    assert!(good, "{text}");
    let (good, _, text) = given(&chain.secret(comment(&both)), now);
    assert!(good, "{text}");
    let (_, reason, text) = given(&chain.secret_with(&both, &utf16(&chain.leaf.key)), now);
    assert_eq!(reason, Reason::InvalidCertificate);
    assert!(
        text.contains("tls.key") && text.contains("UTF-16"),
        "{text}"
    );
}

/// What a search for "self-signed certificate" leads to.
#[test]
fn a_certificate_of_openssl_req_is_told_how_it_is_made_to_be_one_for_a_server() {
    let now = Timestamp::now();
    let made = |more: &[&str]| {
        let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -subj /CN=org.example -days 30 -keyout - -out -";
        let arguments: Vec<&str> = arguments.split_whitespace().chain(more.to_vec()).collect();
        openssl(&arguments, "")
    };
    let of = |both: &[u8]| given(&IssuedChain::new(now).secret_with(both, both), now);
    let (good, reason, text) = of(&made(&[]));
    assert!(!good && reason == Reason::InvalidCertificate, "{text}");
    assert!(text.contains("choose certificate.selfSigned"), "{text}");
    let (_, told) = text.split_once("make it with `").unwrap();
    let (told, _) = told.split_once('`').unwrap();
    let (good, _, text) = of(&made(&told.split(' ').collect::<Vec<_>>()));
    assert!(good, "{told}: {text}");
    // The CA's certificate in place of the leaf's is another mistake.
    let chain = IssuedChain::new(now);
    let (_, _, text) = given(&chain.secret(&chain.root), now);
    assert!(text.contains("the leaf first"), "{text}");
}

#[test]
fn k11_every_mode_checks_the_chain_up_to_a_root_that_signed_itself() {
    let now = Timestamp::now();
    let chain = IssuedChain::new(now);
    let whole = format!("{}{}", chain.leaf.chain, chain.issuer);
    let of_both = format!("{}{}", chain.issuer, chain.root);
    let to_the_root = format!("{whole}{}", chain.root);
    let another = issue::root("Another", now).unwrap().chain;
    for (certificate, ca, complete) in [
        (&chain.leaf.chain, &chain.root, false),
        (&chain.leaf.chain, &chain.issuer, false),
        (&chain.leaf.chain, &of_both, false),
        (&whole, &chain.root, true),
        (&whole, &chain.issuer, true),
        (&whole, &of_both, true),
        // A chain that holds its root needs nothing of ca.crt.
        (&to_the_root, &chain.issuer, true),
        (&to_the_root, &another, true),
        (&whole, &String::new(), true),
        (&chain.leaf.chain, &"\n".to_owned(), true),
    ] {
        let mut secret = chain.secret(certificate);
        set(&mut secret, "ca.crt", ca);
        let told = [
            given(&secret, now),
            followed(&secret, Keeper::CertManager, now),
            followed(&secret, Keeper::Somebody, now),
        ];
        for (good, reason, text) in told {
            assert_eq!(good, complete, "{text}");
            if !complete {
                assert_eq!(reason, Reason::InvalidCertificate);
                assert!(
                    text.contains("CN=Issuer") && text.contains("append"),
                    "{text}"
                );
            }
        }
    }
    let renewed = issue::root("Root", now).unwrap().chain;
    let mut secret = chain.secret(&whole);
    set(&mut secret, "ca.crt", &renewed);
    let (good, reason, text) = given(&secret, now);
    assert!(!good && reason == Reason::InvalidCertificate, "{text}");
    assert!(
        text.contains("not with the key of the CA of that name in ca.crt"),
        "{text}"
    );
    set(&mut secret, "ca.crt", &format!("{renewed}{}", chain.root));
    let (good, _, text) = given(&secret, now);
    assert!(good, "the old one beside the renewed one: {text}");
    let mut secret = chain.secret(&whole);
    set(&mut secret, "ca.crt", "hello");
    let (good, _, text) = given(&secret, now);
    assert!(
        !good && text.contains("ca.crt holds no certificate"),
        "{text}"
    );
}

/// RFC 5280 section 4.1.2.5: 99991231235959Z is for a certificate without an end.
#[test]
fn k3_a_certificate_without_an_end_is_as_good_as_any() {
    let now = Timestamp::now();
    let without_end = |name: &str, by: Option<&rcgen::CertifiedIssuer<'static, rcgen::KeyPair>>| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(1950, 1, 1);
        let last = std::time::Duration::from_secs(24 * 3600 - 1);
        params.not_after = rcgen::date_time_ymd(9999, 12, 31) + last;
        let key = rcgen::KeyPair::generate().unwrap();
        match by {
            None => rcgen::CertifiedIssuer::self_signed(params, key).unwrap(),
            Some(by) => rcgen::CertifiedIssuer::signed_by(params, key, by).unwrap(),
        }
    };
    let root = without_end("Root", None);
    let middle = without_end("Middle", Some(&root));
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
    params.not_after = rcgen::date_time_ymd(9999, 12, 31) + std::time::Duration::from_secs(86_399);
    let leaf = params.signed_by(&key, &middle).unwrap().pem();
    let mut secret = SecretData::new();
    set(&mut secret, "tls.crt", &format!("{leaf}{}", middle.pem()));
    set(&mut secret, "tls.key", &key.serialize_pem());
    set(&mut secret, "ca.crt", &root.pem());
    let (good, _, text) = given(&secret, now);
    assert!(good, "{text}");
    let facts = CertificateFacts::of_chain(&leaf).unwrap();
    assert!(!facts.ends_soon(now) && !facts.wants_renewal(now));
    assert_eq!(facts.not_after.subsec_nanosecond(), 0);
}

#[test]
fn k25_what_a_ca_sends_in_another_form_is_named_with_the_command_that_converts_it() {
    let now = Timestamp::now();
    let chain = IssuedChain::new(now);
    let whole = format!("{}{}", chain.leaf.chain, chain.issuer);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.pem");
    std::fs::write(&file, &whole).unwrap();
    let p7 = |form: &str| {
        openssl(
            &[
                "crl2pkcs7",
                "-nocrl",
                "-outform",
                form,
                "-certfile",
                file.to_str().unwrap(),
            ],
            "",
        )
    };
    let wrapped = String::from_utf8(p7("pem"))
        .unwrap()
        .replace("PKCS7", "CERTIFICATE");
    let der = openssl(&["x509", "-outform", "der"], &chain.leaf.chain);
    for (sent, says) in [
        (p7("pem"), "openssl pkcs7 -print_certs"),
        (p7("der"), "openssl pkcs7 -print_certs"),
        (wrapped.into_bytes(), "openssl pkcs7 -print_certs"),
        (der, "openssl x509 -inform der"),
    ] {
        let secret = SecretData::from([("tls.crt".to_owned(), sent.clone().into())]);
        let secrets = |_: &str| Some(secret.clone());
        let csr = Csr {
            algorithm: KeyAlgorithm::EcdsaP256,
            subject: None,
            chain_secret: "hq-signed",
            secrets: &secrets,
        };
        let (good, _, text) = ask(&csr, &mut MemoryStore::default(), now).condition(now);
        assert!(!good && text.contains(says), "{text}");
        let (good, _, text) = given(&chain.secret(&sent), now);
        assert!(!good && text.contains(says), "{text}");
    }
}

/// Finding S-14: kinds of Secrets have names that cannot meet.
#[test]
fn no_pool_has_a_name_that_would_give_it_a_secret_of_the_namespace() {
    for taken in [
        "xmpp-edge-internal",
        "xmpp-edge-gateway-org",
        "xmpp-edge-gateway-",
    ] {
        assert!(ManagedSecret::check_pool_name(taken).is_err(), "{taken}");
    }
    for free in [
        "hq",
        "xmpp-edge",
        "xmpp-edge-hq",
        "internal",
        "xmpp-edge-dialback",
    ] {
        assert_eq!(ManagedSecret::check_pool_name(free), Ok(()), "{free}");
    }
    let now = Timestamp::now();
    let mut store = MemoryStore::default();
    ensure_ca(&mut store, "default", now).unwrap();
    let names = names();
    let wanted = CertificateSpec {
        pool: "xmpp-edge-internal",
        names: &names,
        now,
    };
    let refused = provide(&SelfSigned, &wanted, &mut store);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("choose another name")
    );
    assert_eq!(store.entries().count(), 1, "nothing was issued");
}

/// Ages everything that a data plane needs by a day at a time, over two years and the renewal of the
/// CA: whenever the operator goes away, 30 days pass before the first of it ends.
#[test]
fn a_data_plane_lives_thirty_days_without_an_operator() {
    let begun = Timestamp::now();
    let days = |count: i64| SignedDuration::from_hours(24 * count);
    let mut store = MemoryStore::default();
    let own = names();
    let around_the_ca = (3650 - 200..3650 + 100).step_by(3);
    for day in (0..200).chain(around_the_ca) {
        let today = begun + days(day);
        let ca = ensure_ca(&mut store, "default", today).unwrap();
        let issuer = ensure_issuer(&mut store, &ca, "hq", &own, today).unwrap();
        let gateway = ensure_gateway(&mut store, &ca, &own, today)
            .unwrap()
            .unwrap();
        let shown = ask(&SelfSigned, &mut store, today).facts.unwrap();
        let issuer = CertificateFacts::of_chain(&issuer.chain).unwrap();
        let signer = CertificateFacts::of_chain(&ca.signer.chain).unwrap();
        for (what, facts) in [
            ("issuer", &issuer),
            ("gateway", &gateway),
            ("pool", &shown),
            ("internal CA", &signer),
        ] {
            let left = facts.not_after.duration_since(today);
            assert!(left >= days(30), "day {day}: {what} has {left:#} left");
        }
        assert!(issuer.not_after <= signer.not_after, "day {day}");
    }
}
