#![allow(clippy::unwrap_used)]

use std::{cell::RefCell, collections::BTreeMap, process::Command};

use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::{
    domain::DomainName,
    kinds::{
        conditions::Reason,
        pool::{KeyAlgorithm, Subject},
    },
};

use super::{
    chain::{CertificateFacts, ChainError, PemPair},
    files::FileStore,
    internal_ca::{self, ensure_ca, ensure_dialback, ensure_gateway, ensure_issuer},
    issue,
    source::{
        Backend, BackendFault, CertificateSpec, CertificateState, SecretRef, SelfSigned, csr::Csr,
        provide,
    },
    store::{ManagedSecret, MemoryStore, SecretData, Store, set, text},
};

fn names(texts: &[&str]) -> Vec<DomainName> {
    texts
        .iter()
        .map(|text| DomainName::parse(text).unwrap())
        .collect()
}

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

fn ask(
    backend: &dyn Backend,
    own: &[DomainName],
    now: Timestamp,
    store: &mut MemoryStore,
) -> CertificateState {
    provide(
        backend,
        &CertificateSpec {
            pool: "hq",
            names: own,
            now,
        },
        store,
    )
    .unwrap()
}

/// `openssl verify` of `leaf` under `root`, with `intermediate`; its output where it refuses.
fn openssl_verify(root: &str, intermediate: &str, leaf: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let output = Command::new("openssl")
        .args([
            "verify",
            "-attime",
            &now().as_second().to_string(),
            "-CAfile",
        ])
        .arg(file("root.pem", root))
        .arg("-untrusted")
        .arg(file("intermediate.pem", intermediate))
        .arg(file("leaf.pem", leaf))
        .output()
        .expect("openssl is installed");
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_stolen_pod_cannot_pose_as_an_own_domain() {
    let mut store = MemoryStore::default();
    let ca = ensure_ca(&mut store, "default", now()).unwrap();
    let own = names(&["org.example", "chat.org.example"]);
    let issuer = ensure_issuer(&mut store, &ca, "hq", &own, now()).unwrap();
    for (name, allowed) in [
        ("partner.example", true),
        ("notorg.example", true),
        ("org.example", false),
        ("sub.org.example", false),
        ("chat.org.example", false),
    ] {
        let leaf = issue::leaf(&issuer, &names(&[name]), now()).unwrap();
        let verdict = openssl_verify(&ca.trusted, &issuer.chain, &leaf.chain);
        assert_eq!(verdict.is_ok(), allowed, "{name}: {verdict:?}");
        if let Err(text) = verdict {
            assert!(text.contains("excluded subtree"), "{name}: {text}");
        }
    }
    // Path length 0: the pod cannot make a CA that makes leaves.
    let lower = issue::intermediate(&issuer, "lower", &[], now()).unwrap();
    let leaf = issue::leaf(&lower, &names(&["partner.example"]), now()).unwrap();
    let both = format!("{}{}", issuer.chain, lower.chain);
    assert!(openssl_verify(&ca.trusted, &both, &leaf.chain).is_err());
}

#[test]
fn what_is_in_order_stays_as_it_is() {
    let mut store = MemoryStore::default();
    let own = names(&["org.example"]);
    let ca = ensure_ca(&mut store, "default", now()).unwrap();
    ensure_issuer(&mut store, &ca, "hq", &own, now()).unwrap();
    ensure_gateway(&mut store, &ca, &own, now()).unwrap();
    ensure_dialback(&mut store).unwrap();
    ask(&SelfSigned, &own, now(), &mut store);
    let before: Vec<_> = store
        .entries()
        .map(|(e, m)| (e.clone(), m.clone()))
        .collect();
    let later = now() + days(1);
    let ca = ensure_ca(&mut store, "default", later).unwrap();
    ensure_issuer(&mut store, &ca, "hq", &own, later).unwrap();
    ensure_gateway(&mut store, &ca, &own, later).unwrap();
    ensure_dialback(&mut store).unwrap();
    ask(&SelfSigned, &own, later, &mut store);
    let after: Vec<_> = store
        .entries()
        .map(|(e, m)| (e.clone(), m.clone()))
        .collect();
    assert!(before == after, "a second look changed something");
}

#[test]
fn the_intermediate_follows_time_own_domains_and_ca() {
    let mut store = MemoryStore::default();
    let own = names(&["org.example"]);
    let ca = ensure_ca(&mut store, "default", now()).unwrap();
    let first = ensure_issuer(&mut store, &ca, "hq", &own, now()).unwrap();
    let facts = CertificateFacts::of_chain(&first.chain).unwrap();
    assert_eq!(facts.not_after, now() + days(90));
    let kept = ensure_issuer(&mut store, &ca, "hq", &own, now() + days(59)).unwrap();
    assert_eq!(
        first.chain, kept.chain,
        "more than a third of its life is left"
    );
    let renewed = ensure_issuer(&mut store, &ca, "hq", &own, now() + days(61)).unwrap();
    assert_ne!(
        first.chain, renewed.chain,
        "less than a third of its life is left"
    );
    let more = names(&["org.example", "more.example"]);
    let wider = ensure_issuer(&mut store, &ca, "hq", &more, now() + days(61)).unwrap();
    assert_ne!(renewed.chain, wider.chain, "own domains changed");
}

#[test]
fn the_internal_ca_is_renewed_so_that_everybody_reads_both_first() {
    let mut store = MemoryStore::default();
    let own = names(&["org.example"]);
    let first = ensure_ca(&mut store, "default", now()).unwrap();
    let count = |trusted: &str| trusted.matches("BEGIN CERTIFICATE").count();
    assert_eq!(count(&first.trusted), 1);
    let published = ensure_ca(&mut store, "default", now() + days(3650 - 170)).unwrap();
    assert_eq!(
        (count(&published.trusted), &published.signer),
        (2, &first.signer)
    );
    let issuing = ensure_ca(&mut store, "default", now() + days(3650 - 80)).unwrap();
    assert_eq!(count(&issuing.trusted), 2);
    assert_ne!(issuing.signer, first.signer);
    assert!(
        published.trusted.contains(&issuing.signer.chain),
        "the new one was published before"
    );
    let alone = ensure_ca(&mut store, "default", now() + days(3651)).unwrap();
    assert_eq!((count(&alone.trusted), &alone.signer), (1, &issuing.signer));
    ensure_gateway(&mut store, &alone, &own, now() + days(3651)).unwrap();
    let gateway = store
        .read(&ManagedSecret::Gateway("org.example".into()))
        .unwrap()
        .unwrap();
    assert_eq!(text(&gateway, "ca.crt"), Some(alone.trusted.as_str()));
}

#[test]
fn a_damaged_ca_is_reported_and_never_replaced() {
    let mut store = MemoryStore::default();
    let mut material = SecretData::new();
    set(&mut material, "tls.crt", "garbage");
    set(&mut material, "tls.key", "garbage");
    store.write(&ManagedSecret::InternalCa, &material).unwrap();
    let error = ensure_ca(&mut store, "default", now())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("xmpp-edge-internal-ca") && error.contains("Restore"),
        "{error}"
    );
    assert!(store.read(&ManagedSecret::InternalCa).unwrap() == Some(material));
}

#[test]
fn a_self_signed_pool_covers_all_names_and_is_renewed_in_time() {
    let mut store = MemoryStore::default();
    let own = names(&["org.example", "edge.org.example"]);
    let first = ask(&SelfSigned, &own, now(), &mut store);
    let facts = first.facts.clone().unwrap();
    assert_eq!(facts.dns_names, ["edge.org.example", "org.example"]);
    assert!(facts.client_auth && facts.server_auth);
    assert!(first.condition(now()).0);
    let kept = ask(&SelfSigned, &own, now() + days(59), &mut store);
    assert_eq!(kept.pair, first.pair);
    let renewed = ask(&SelfSigned, &own, now() + days(61), &mut store);
    assert_ne!(renewed.pair, first.pair);
    let wider = ask(
        &SelfSigned,
        &names(&["org.example", "more.example"]),
        now() + days(61),
        &mut store,
    );
    assert!(wider.missing.is_empty());
    assert_ne!(wider.pair, renewed.pair);
}

fn material(pair: &PemPair) -> SecretData {
    let mut material = SecretData::new();
    set(&mut material, "tls.crt", &pair.chain);
    set(&mut material, "tls.key", &pair.key);
    material
}

#[test]
fn each_mistake_in_a_given_pair_has_its_own_text_and_the_last_good_pair_stays() {
    let ca = issue::root("somebody", now()).unwrap();
    let own = names(&["org.example", "edge.org.example"]);
    let good = issue::leaf(&ca, &own, now()).unwrap();
    let other = issue::leaf(&ca, &own, now()).unwrap();
    let narrow = issue::leaf(&ca, &names(&["org.example"]), now()).unwrap();
    let old = issue::leaf(&ca, &own, now() - days(100)).unwrap();
    let future = issue::leaf(&ca, &own, now() + days(100)).unwrap();
    let mixed = PemPair {
        chain: good.chain.clone(),
        key: other.key.clone(),
    };
    let disorder = PemPair {
        chain: format!("{}{}", good.chain, other.chain),
        key: good.key.clone(),
    };
    let root_first = PemPair {
        chain: format!("{}{}", ca.chain, good.chain),
        key: good.key.clone(),
    };
    let no_key = PemPair {
        chain: good.chain.clone(),
        key: String::from("x").into(),
    };
    let no_chain = PemPair {
        chain: "hello".into(),
        key: good.key.clone(),
    };
    let torn = PemPair {
        chain: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        key: good.key.clone(),
    };
    let mut without_key = material(&good);
    without_key.remove("tls.key");
    let cases: Vec<(&str, Option<SecretData>, Reason, &str)> = vec![
        ("absent", None, Reason::ReferenceMissing, "create it"),
        (
            "no key entry",
            Some(without_key),
            Reason::ReferenceMissing,
            "\"tls.key\"",
        ),
        (
            "key of another",
            Some(material(&mixed)),
            Reason::KeyMismatch,
            "does not belong",
        ),
        (
            "name missing",
            Some(material(&narrow)),
            Reason::NamesNotCovered,
            "edge.org.example",
        ),
        (
            "expired",
            Some(material(&old)),
            Reason::Expired,
            "expired at",
        ),
        (
            "future",
            Some(material(&future)),
            Reason::InvalidCertificate,
            "not valid before",
        ),
        (
            "disorder",
            Some(material(&disorder)),
            Reason::InvalidCertificate,
            "each issuer after",
        ),
        (
            "root first",
            Some(material(&root_first)),
            Reason::InvalidCertificate,
            "leaf first",
        ),
        (
            "key no PEM",
            Some(material(&no_key)),
            Reason::InvalidCertificate,
            "no private key found",
        ),
        (
            "chain no PEM",
            Some(material(&no_chain)),
            Reason::InvalidCertificate,
            "holds no certificate",
        ),
        (
            "chain torn",
            Some(material(&torn)),
            Reason::InvalidCertificate,
            "was cut short",
        ),
    ];
    for (case, given, reason, says) in cases {
        let mut store = MemoryStore::default();
        let current = RefCell::new(Some(material(&good)));
        let secrets = |name: &str| {
            if name == "site" {
                current.borrow().clone()
            } else {
                None
            }
        };
        let backend = SecretRef {
            name: "site",
            secrets: &secrets,
        };
        let first = ask(&backend, &own, now(), &mut store);
        assert_eq!(first.pair.as_ref(), Some(&good), "{case}");
        *current.borrow_mut() = given;
        let after = ask(&backend, &own, now(), &mut store);
        assert_eq!(
            after.pair.as_ref(),
            Some(&good),
            "{case}: the last good pair stays"
        );
        let (status, got, message) = after.condition(now());
        assert_eq!((status, got), (false, reason), "{case}: {message}");
        assert!(
            message.contains(says) && message.contains("site"),
            "{case}: {message}"
        );
        assert!(!message.contains("PRIVATE"), "{case}");
    }
}

/// Signs a PKCS #10 request as a CA would: the leaf for a year, then the CA.
fn sign(request: &str, ca: &PemPair) -> String {
    let params = rcgen::CertificateSigningRequestParams::from_pem(request).expect("a request");
    let key = rcgen::KeyPair::from_pem(&ca.key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca.chain, key).unwrap();
    let mut params = params;
    params.params.not_before = rcgen::date_time_ymd(2026, 11, 20);
    params.params.not_after = rcgen::date_time_ymd(2027, 11, 20);
    let leaf = params.signed_by(&issuer).unwrap().pem();
    format!("{leaf}{}", ca.chain)
}

#[test]
fn the_offline_way_from_request_to_pair_and_on_to_the_next_request() {
    let secrets_held: RefCell<BTreeMap<String, SecretData>> = RefCell::default();
    let secrets = |name: &str| secrets_held.borrow().get(name).cloned();
    let put = |chain: &str| {
        let mut material = SecretData::new();
        set(&mut material, "tls.crt", chain);
        secrets_held
            .borrow_mut()
            .insert("hq-signed".into(), material);
    };
    let subject = Subject {
        organization: Some("Example, Inc".into()),
        country: Some("DE".into()),
        ..Subject::default()
    };
    let backend = Csr {
        algorithm: KeyAlgorithm::EcdsaP384,
        subject: Some(&subject),
        chain_secret: "hq-signed",
        secrets: &secrets,
    };
    let mut store = MemoryStore::default();
    let own = names(&["org.example", "edge.org.example"]);
    let first = ask(&backend, &own, now(), &mut store);
    let request = first.request.clone().expect("a request is shown");
    let (status, reason, message) = first.condition(now());
    assert_eq!((status, reason), (false, Reason::AwaitingSignature));
    assert!(
        message.contains("kubectl create secret generic hq-signed"),
        "{message}"
    );
    let text_of = Command::new("openssl")
        .args(["req", "-noout", "-text", "-verify"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            use std::io::Write;
            child.stdin.take().unwrap().write_all(request.as_bytes())?;
            child.wait_with_output()
        })
        .unwrap();
    let shown = String::from_utf8_lossy(&text_of.stdout).into_owned();
    for part in [
        "DNS:org.example, DNS:edge.org.example",
        "Server Authentication",
        "Client Authentication",
        "Example, Inc",
        "secp384r1",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert_eq!(
        ask(&backend, &own, now(), &mut store).request,
        Some(request.clone()),
        "it stays the same"
    );

    let ca = issue::root("a public CA", now()).unwrap();
    put("no certificate");
    assert!(
        ask(&backend, &own, now(), &mut store)
            .condition(now())
            .2
            .contains("holds no certificate")
    );
    let foreign = issue::leaf(&ca, &own, now()).unwrap();
    put(&foreign.chain);
    let wrong = ask(&backend, &own, now(), &mut store);
    assert_eq!(
        wrong.fault,
        Some(BackendFault::ChainOfAnotherRequest {
            secret: "hq-signed".into()
        })
    );

    put(&sign(&request, &ca));
    let done = ask(&backend, &own, now(), &mut store);
    let pair = done.pair.clone().expect("in use");
    assert_eq!(
        (
            done.fault.clone(),
            done.request.clone(),
            done.condition(now()).0
        ),
        (None, None, true)
    );
    let kept = store
        .read(&ManagedSecret::PoolPair("hq".into()))
        .unwrap()
        .unwrap();
    assert!(!kept.contains_key("next.key") && kept.contains_key("tls.key"));
    assert_eq!(
        ask(&backend, &own, now(), &mut store).pair,
        Some(pair.clone())
    );

    let wider = names(&["org.example", "edge.org.example", "more.example"]);
    let again = ask(&backend, &wider, now(), &mut store);
    assert_eq!(
        again.pair,
        Some(pair.clone()),
        "the pair in use stays while a request waits"
    );
    assert_eq!(
        again.fault,
        Some(BackendFault::ChainInUse {
            secret: "hq-signed".into()
        })
    );
    assert_eq!(again.missing, ["more.example"]);
    let second = again.request.expect("a new request");
    assert_ne!(second, request);
    put(&sign(&second, &ca));
    let wider_done = ask(&backend, &wider, now(), &mut store);
    assert_eq!(
        (wider_done.fault.clone(), wider_done.missing.len()),
        (None, 0)
    );
    assert_ne!(wider_done.pair, Some(pair));

    // Near its end a new request waits beside the pair, which still is in order.
    let near = now() + days(300);
    let renewal = ask(&backend, &wider, near, &mut store);
    assert!(renewal.request.is_some());
    let (status, _, message) = renewal.condition(near);
    assert!(status, "{message}");
}

#[test]
fn a_subject_that_cannot_be_is_a_condition_and_no_request() {
    let secrets = |_: &str| None;
    let subject = Subject {
        country: Some("de".into()),
        ..Subject::default()
    };
    let backend = Csr {
        algorithm: KeyAlgorithm::EcdsaP256,
        subject: Some(&subject),
        chain_secret: "hq-signed",
        secrets: &secrets,
    };
    let mut store = MemoryStore::default();
    let provision = ask(&backend, &names(&["org.example"]), now(), &mut store);
    assert_eq!(provision.request, None);
    let (status, reason, message) = provision.condition(now());
    assert_eq!((status, reason), (false, Reason::Invalid));
    assert!(message.contains("country"), "{message}");
}

#[test]
fn files_hold_what_memory_holds_and_lie_where_the_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let own = names(&["org.example"]);
    let (ca, secret) = {
        let mut store = FileStore::open(folder.path().join("state")).unwrap();
        let ca = ensure_ca(&mut store, "default", now()).unwrap();
        ensure_gateway(&mut store, &ca, &own, now()).unwrap();
        (ca, ensure_dialback(&mut store).unwrap().secret)
    };
    let root = folder.path().join("state");
    assert_eq!(
        std::fs::read_to_string(root.join("internal-ca.pem")).unwrap(),
        ca.trusted
    );
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        assert!(
            root.join("gateways/org.example").join(file).is_file(),
            "{file}"
        );
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &str| {
        std::fs::metadata(root.join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("gateways/org.example/tls.key"), 0o600);
    assert_eq!(mode(""), 0o700);
    let mut store = FileStore::open(&root).unwrap();
    assert_eq!(
        ensure_ca(&mut store, "default", now()).unwrap().signer,
        ca.signer
    );
    assert_eq!(ensure_dialback(&mut store).unwrap().secret, secret);
}

#[test]
fn a_dialback_secret_of_somebody_else_is_checked() {
    for (value, good) in [("", false), ("short", false), ("0123456789abcdef", true)] {
        let mut material = SecretData::new();
        set(&mut material, "secret", value);
        assert_eq!(
            internal_ca::dialback_of(&material, "shared").is_ok(),
            good,
            "{value:?}"
        );
    }
    assert!(internal_ca::dialback_of(&SecretData::new(), "shared").is_err());
}

#[test]
fn a_wildcard_in_a_certificate_covers_one_label() {
    let ca = issue::root("somebody", now()).unwrap();
    let pair = issue::leaf(&ca, &names(&["org.example"]), now()).unwrap();
    let mut facts = pair.check(&[], now()).unwrap();
    facts.dns_names = vec!["*.org.example".into()];
    let wanted = names(&["a.org.example", "org.example", "a.b.org.example"]);
    assert_eq!(facts.missing(&wanted), ["org.example", "a.b.org.example"]);
    let missing = vec!["a.org.example".into(), "a.b.org.example".into()];
    let refused = Err(ChainError::NamesMissing(missing));
    assert_eq!(pair.check(&wanted, now()), refused);
}
