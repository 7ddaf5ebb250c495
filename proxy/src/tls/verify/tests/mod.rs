#![allow(clippy::unwrap_used)]

use rcgen::SanType;
use xmpp_edge_crds::edge_config::{OnKeyChange, PartnerTrust};

mod dane;
mod paths;
mod sip;
mod trust;

use super::*;
use crate::tls::{
    pki::{
        self, Authority, BEGIN, END, Eku, Issued, Subject, authority, intermediate, issue,
        self_signed,
    },
    spki_sha256,
};

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(i64::try_from(BEGIN).unwrap() + 1_000_000).unwrap()
}

fn trusting(authority: &Authority) -> Trust {
    Trust::new(Roots::from_pem(authority.pem(), "test").unwrap())
}

fn judge(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    role: Role,
) -> Result<Verified, CertificateFault> {
    trust.judge_at(
        (&domain("partner.example"), NameRule::Wildcards),
        chain,
        role,
        None,
        now(),
    )
}

fn label(result: Result<Verified, CertificateFault>) -> &'static str {
    result.map_or_else(|fault| fault.label(), |_| "Ok")
}

/// E-05 to E-12, and what of E-18 and E-20 is one certificate.
#[test]
fn what_is_wrong_with_a_certificate_is_named() {
    let ca = authority("trusted authority");
    let other = authority("another authority");
    let usual = Subject::default;
    let named = |names: &'static [&'static str]| Subject {
        names,
        ..Subject::default()
    };
    let used = |usage: &'static [Eku]| Subject {
        usage,
        ..Subject::default()
    };
    let xmpp_addr = SanType::OtherName((
        vec![1, 3, 6, 1, 5, 5, 7, 8, 5],
        rcgen::OtherNameValue::Utf8String("partner.example".to_owned()),
    ));
    let (server, client) = (Role::Server, Role::Client);
    let cases: Vec<(&str, Issued, Role, &str)> = vec![
        ("valid", issue(&ca, &usual()), server, "Ok"),
        (
            "expired",
            issue(
                &ca,
                &Subject {
                    end: BEGIN + 1000,
                    ..usual()
                },
            ),
            server,
            "CertificateExpired",
        ),
        (
            "not yet valid",
            issue(
                &ca,
                &Subject {
                    begin: END - 1000,
                    ..usual()
                },
            ),
            server,
            "CertificateNotYetValid",
        ),
        (
            "self-signed",
            self_signed(&usual()),
            server,
            "CertificateSelfSigned",
        ),
        (
            "unknown authority",
            issue(&other, &usual()),
            server,
            "CertificateChainIncomplete",
        ),
        ("for any use", issue(&ca, &used(&[Eku::Any])), server, "Ok"),
        (
            "of a client, for any use",
            issue(&ca, &used(&[Eku::Any])),
            client,
            "Ok",
        ),
        (
            "other name",
            issue(&ca, &named(&["evil.example"])),
            server,
            "PeerCertificateName",
        ),
        (
            "common name alone",
            issue(
                &ca,
                &Subject {
                    names: &[],
                    common_name: "partner.example",
                    ..usual()
                },
            ),
            server,
            "PeerCertificateName",
        ),
        (
            "wildcard over a top label",
            issue(&ca, &named(&["*.example"])),
            server,
            "PeerCertificateName",
        ),
        (
            "partial wildcard",
            issue(&ca, &named(&["p*.example"])),
            server,
            "PeerCertificateName",
        ),
        (
            "bare wildcard",
            issue(&ca, &named(&["*"])),
            server,
            "PeerCertificateName",
        ),
        (
            "parent domain",
            issue(&ca, &named(&["example"])),
            server,
            "PeerCertificateName",
        ),
        (
            "sub-domain",
            issue(&ca, &named(&["sub.partner.example"])),
            server,
            "PeerCertificateName",
        ),
        (
            "xmppAddr alone",
            issue(
                &ca,
                &Subject {
                    names: &[],
                    other_names: vec![xmpp_addr],
                    ..usual()
                },
            ),
            server,
            "PeerCertificateName",
        ),
        (
            "upper case",
            issue(&ca, &named(&["PARTNER.Example"])),
            server,
            "Ok",
        ),
        (
            "NUL in the name",
            issue(&ca, &named(&["partner.example\0.evil.example"])),
            server,
            "PeerCertificateName",
        ),
        (
            "second of two names",
            issue(&ca, &named(&["a.example", "partner.example"])),
            server,
            "Ok",
        ),
        (
            "initiator, serverAuth alone",
            issue(&ca, &used(&[Eku::ServerAuth])),
            client,
            "Ok",
        ),
        (
            "initiator, clientAuth alone",
            issue(&ca, &used(&[Eku::ClientAuth])),
            client,
            "Ok",
        ),
        (
            "initiator, no usage said",
            issue(&ca, &used(&[])),
            client,
            "Ok",
        ),
        (
            "initiator, another usage",
            issue(&ca, &used(&[Eku::EmailProtection])),
            client,
            "CertificateNotForUse",
        ),
        (
            "responder, clientAuth alone",
            issue(&ca, &used(&[Eku::ClientAuth])),
            server,
            "CertificateNotForUse",
        ),
        (
            "responder, no usage said",
            issue(&ca, &used(&[])),
            server,
            "Ok",
        ),
    ];
    let trust = trusting(&ca);
    for (what, issued, role, expected) in cases {
        let result = judge(&trust, &[issued.der], role);
        assert_eq!(label(result.clone()), expected, "{what}: {result:?}");
    }
    assert_eq!(label(judge(&trust, &[], server)), "CertificateNotPresented");
    let junk = CertificateDer::from(vec![0x30, 0x01, 0xff]);
    assert_eq!(
        label(judge(&trust, &[junk], server)),
        "CertificateMalformed"
    );
}

#[test]
fn a_wildcard_stands_for_one_whole_left_most_label() {
    let ca = authority("authority");
    let leaf = issue(
        &ca,
        &Subject {
            names: &["*.partner.example"],
            ..Subject::default()
        },
    );
    for (name, expected) in [
        ("chat.partner.example", "Ok"),
        ("partner.example", "PeerCertificateName"),
        ("a.chat.partner.example", "PeerCertificateName"),
        ("chatpartner.example", "PeerCertificateName"),
    ] {
        let result = trusting(&ca).judge_at(
            (&domain(name), NameRule::Wildcards),
            std::slice::from_ref(&leaf.der),
            Role::Server,
            None,
            now(),
        );
        assert_eq!(label(result), expected, "{name}");
    }
}

#[test]
fn an_internationalised_domain_is_compared_as_a_label() {
    let ca = authority("authority");
    let leaf = issue(
        &ca,
        &Subject {
            names: &["xn--bcher-kva.example"],
            ..Subject::default()
        },
    );
    let name = domain("bücher.example");
    let result = trusting(&ca).judge_at(
        (&name, NameRule::Wildcards),
        &[leaf.der],
        Role::Server,
        None,
        now(),
    );
    assert_eq!(label(result), "Ok");
}

#[test]
fn the_text_of_a_wrong_name_says_what_was_expected_and_found() {
    let ca = authority("authority");
    let leaf = issue(
        &ca,
        &Subject {
            names: &["a.example", "b.example"],
            ..Subject::default()
        },
    );
    let fault = judge(&trusting(&ca), &[leaf.der], Role::Server)
        .unwrap_err()
        .to_string();
    for part in ["partner.example", "a.example", "b.example"] {
        assert!(fault.contains(part), "{fault}");
    }
    let names: Vec<String> = (0..40).map(|n| format!("n{n}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let leaf = issue(
        &ca,
        &Subject {
            names: &names,
            ..Subject::default()
        },
    );
    let fault = judge(&trusting(&ca), &[leaf.der], Role::Server)
        .unwrap_err()
        .to_string();
    assert!(fault.contains("and 30 more"), "{fault}");
}

/// E-20: a chain without its intermediate is not the same as one of an unknown authority that sent
/// everything.
#[test]
fn a_missing_intermediate_is_told_from_an_unknown_root() {
    let ca = authority("trusted root");
    let middle = intermediate("the intermediate", &ca);
    let leaf = issue(&middle, &Subject::default());
    let (leaf, middle_der) = (leaf.der, middle.der().clone());
    let trust = trusting(&ca);
    assert_eq!(
        label(judge(
            &trust,
            &[leaf.clone(), middle_der.clone()],
            Role::Server
        )),
        "Ok"
    );
    let fault = judge(&trust, std::slice::from_ref(&leaf), Role::Server).unwrap_err();
    assert_eq!(
        fault,
        CertificateFault::IncompleteChain {
            issuer: "the intermediate".to_owned()
        }
    );
    let stranger = trusting(&authority("a stranger"));
    let chain = [leaf, middle_der, ca.der().clone()];
    let fault = judge(&stranger, &chain, Role::Server).unwrap_err();
    assert_eq!(
        fault,
        CertificateFault::UnknownIssuer {
            root: "trusted root".to_owned()
        }
    );
}

/// T-19
#[test]
fn a_chain_longer_than_the_limit_is_not_judged() {
    let ca = authority("root");
    let leaf = issue(&ca, &Subject::default());
    let mut chain = vec![leaf.der];
    let mut by = intermediate("0", &ca);
    for n in 1..50 {
        chain.push(by.der().clone());
        by = intermediate(&n.to_string(), &by);
    }
    let fault = judge(&trusting(&ca), &chain, Role::Client).unwrap_err();
    assert_eq!(
        fault,
        CertificateFault::ChainTooLong {
            found: 50,
            limit: MAX_CHAIN
        }
    );
    // A pinned key is looked at first: nothing else of the chain counts then.
    let pins = PartnerTrust {
        pinned_spki_sha256: vec![spki_sha256(&chain[0]).unwrap().to_string()],
        ..PartnerTrust::default()
    };
    let pinned = Trust::of_partner(&pins, &Roots::default(), "test").unwrap();
    let verified = judge(&pinned, &chain, Role::Client).unwrap();
    assert_eq!(verified.by, VerifiedBy::Pin);
}

/// RFC 5280 section 4.1.2.5: 99991231235959Z says that a certificate does not end.
#[test]
fn k3_a_certificate_without_an_end_is_judged_as_any_other() {
    let mut params = Subject::default().params();
    let last = std::time::Duration::from_secs(86_399);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31) + last;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let chain = [certificate.der().clone()];
    let pins = PartnerTrust {
        pinned_spki_sha256: vec![spki_sha256(&chain[0]).unwrap().to_string()],
        ..PartnerTrust::default()
    };
    for settings in [
        pins,
        PartnerTrust {
            ca: Some(certificate.pem()),
            ..PartnerTrust::default()
        },
    ] {
        let trust = Trust::of_partner(&settings, &Roots::default(), "test").unwrap();
        let verified = judge(&trust, &chain, Role::Server).unwrap();
        assert!(verified.not_after > now());
    }
    let identity = crate::tls::Identity::from_pem(certificate.pem(), key.serialize_pem(), "test");
    assert_eq!(
        identity.unwrap().not_after().to_string(),
        "9999-12-30T22:00:00Z"
    );
}

#[test]
fn a_bundle_without_a_certificate_is_refused_by_name() {
    for text in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let error = Roots::from_pem(text, "ConfigMap x, key y")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("ConfigMap x, key y: "), "{error}");
    }
    assert!(Roots::from_pem(pki::authority("a").pem(), "test").is_ok());
}
