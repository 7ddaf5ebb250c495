#![allow(clippy::unwrap_used)]

use rcgen::SanType;
use xmpp_edge_crds::edge_config::{OnKeyChange, PartnerTrust};

use super::*;
use crate::tls::{
    dane::{Matching, Selected, Tlsa},
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
    Trust::new(Roots::from_pem(&authority.pem(), "test").unwrap())
}

fn judge(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    role: Role,
) -> Result<Verified, CertificateFault> {
    trust.judge_at(&domain("partner.example"), chain, role, None, now())
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
            &domain(name),
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
    let result = trusting(&ca).judge_at(&name, &[leaf.der], Role::Server, None, now());
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
}

/// E-18
#[test]
fn a_partners_authority_replaces_the_shared_ones_for_this_partner_alone() {
    let (shared, own) = (authority("shared"), authority("the partner's"));
    let roots = Roots::from_pem(&shared.pem(), "shared").unwrap();
    let settings = PartnerTrust {
        ca: Some(own.pem()),
        ..PartnerTrust::default()
    };
    let partner = Trust::of_partner(&settings, &roots, "partner p").unwrap();
    let others = Trust::of_partner(&PartnerTrust::default(), &roots, "partner q").unwrap();
    let by_shared = issue(&shared, &Subject::default()).der;
    let by_own = issue(&own, &Subject::default()).der;
    let verdict = |trust: &Trust, der: &CertificateDer<'static>| {
        judge(trust, std::slice::from_ref(der), Role::Server).map(|verified| verified.by)
    };
    assert_eq!(verdict(&partner, &by_own), Ok(VerifiedBy::PartnerCa));
    assert!(verdict(&partner, &by_shared).is_err());
    assert_eq!(verdict(&others, &by_shared), Ok(VerifiedBy::Pkix));
    assert!(verdict(&others, &by_own).is_err());
}

#[test]
fn a_self_signed_certificate_can_be_its_own_authority() {
    for is_ca in [false, true] {
        let mut params = Subject::default().params();
        if is_ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let trust = Trust::new(Roots::from_pem(&certificate.pem(), "test").unwrap());
        let result = judge(&trust, &[certificate.der().clone()], Role::Server);
        assert_eq!(label(result), "Ok", "CA flag {is_ca}");
    }
}

/// E-19, and pins as the only trust.
#[test]
fn pins_and_known_keys_decide_as_the_partner_says() {
    let ca = authority("authority");
    let roots = Roots::from_pem(&ca.pem(), "test").unwrap();
    let valid = issue(&ca, &Subject::default()).der;
    let bad = self_signed(&Subject {
        end: BEGIN + 1,
        ..Subject::default()
    })
    .der;
    let hash = |der| spki_sha256(der).unwrap().to_string();
    let (other, of_valid, of_bad) = ("ab".repeat(32), hash(&valid), hash(&bad));
    use OnKeyChange::{Ignore, Refuse, Warn};
    let cases = [
        (
            "a pinned key needs no PKIX",
            vec![of_bad.to_uppercase()],
            vec![],
            Ignore,
            &bad,
            Ok(false),
        ),
        (
            "a pinned key under Refuse",
            vec![of_valid.clone()],
            vec![],
            Refuse,
            &valid,
            Ok(false),
        ),
        (
            "another key, ignored",
            vec![other.clone()],
            vec![],
            Ignore,
            &valid,
            Ok(true),
        ),
        (
            "another key, warned of",
            vec![other.clone()],
            vec![],
            Warn,
            &valid,
            Ok(true),
        ),
        (
            "another key, refused",
            vec![other.clone()],
            vec![],
            Refuse,
            &valid,
            Err("CertificatePinMismatch"),
        ),
        (
            "another key, not valid either",
            vec![other.clone()],
            vec![],
            Ignore,
            &bad,
            Err("CertificateExpired"),
        ),
        (
            "a known key",
            vec![],
            vec![of_valid.clone()],
            Refuse,
            &valid,
            Ok(false),
        ),
        (
            "a new key, refused",
            vec![],
            vec![other.clone()],
            Refuse,
            &valid,
            Err("CertificateKeyChanged"),
        ),
        (
            "a new key, warned of",
            vec![],
            vec![other.clone()],
            Warn,
            &valid,
            Ok(true),
        ),
        (
            "a new key that is pinned",
            vec![of_valid],
            vec![other],
            Refuse,
            &valid,
            Ok(false),
        ),
        (
            "the first key ever",
            vec![],
            vec![],
            Refuse,
            &valid,
            Ok(false),
        ),
    ];
    for (what, pins, known, on_key_change, der, expected) in cases {
        let settings = PartnerTrust {
            ca: None,
            pinned_spki_sha256: pins,
            on_key_change,
            known_spki_sha256: known,
        };
        let trust = Trust::of_partner(&settings, &roots, "partner p").unwrap();
        let result = judge(&trust, std::slice::from_ref(der), Role::Server);
        let result = result
            .map(|verified| verified.key_changed)
            .map_err(|fault| fault.label());
        assert_eq!(result, expected, "{what}");
    }
    let settings = PartnerTrust {
        pinned_spki_sha256: vec!["xyz".to_owned()],
        ..PartnerTrust::default()
    };
    let error = Trust::of_partner(&settings, &roots, "partner p")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("partner p, trust.pinnedSpkiSha256"),
        "{error}"
    );
}

/// RFC 7671: what each usage trusts, and that no match is a fault whatever PKIX says.
#[test]
fn secure_tlsa_records_decide() {
    let (trusted, private) = (authority("trusted"), authority("private"));
    let valid = issue(&trusted, &Subject::default()).der;
    let (private_der, trusted_der) = (private.der().clone(), trusted.der().clone());
    let by_private = issue(&private, &Subject::default()).der;
    let by_target = issue(
        &private,
        &Subject {
            names: &["xmpp.partner.example"],
            ..Subject::default()
        },
    )
    .der;
    let elsewhere = issue(
        &private,
        &Subject {
            names: &["evil.example"],
            end: BEGIN + 1,
            ..Subject::default()
        },
    )
    .der;
    let spki = |usage, der: &CertificateDer<'static>| Tlsa {
        usage,
        selected: Selected::Spki,
        matching: Matching::Sha256,
        data: spki_sha256(der).unwrap().0.to_vec(),
    };
    let whole = |usage, der: &CertificateDer<'static>| Tlsa {
        usage,
        selected: Selected::Certificate,
        matching: Matching::Exact,
        data: der.to_vec(),
    };
    use Usage::{DaneEe, DaneTa, PkixEe, PkixTa};
    let cases: Vec<(&str, Vec<Tlsa>, Vec<CertificateDer<'static>>, &str)> = vec![
        (
            "EE by key",
            vec![spki(DaneEe, &by_private)],
            vec![by_private.clone()],
            "Ok",
        ),
        (
            "EE by certificate",
            vec![whole(DaneEe, &by_private)],
            vec![by_private.clone()],
            "Ok",
        ),
        (
            "EE: names and dates do not count",
            vec![spki(DaneEe, &elsewhere)],
            vec![elsewhere.clone()],
            "Ok",
        ),
        (
            "EE of another key",
            vec![spki(DaneEe, &by_private)],
            vec![valid.clone()],
            "CertificateDaneMismatch",
        ),
        (
            "second of two",
            vec![spki(DaneEe, &valid), spki(DaneEe, &by_private)],
            vec![by_private.clone()],
            "Ok",
        ),
        (
            "TA sent",
            vec![spki(DaneTa, &private_der)],
            vec![by_private.clone(), private_der.clone()],
            "Ok",
        ),
        (
            "TA not sent",
            vec![spki(DaneTa, &private_der)],
            vec![by_private.clone()],
            "CertificateDaneMismatch",
        ),
        (
            "TA, name of the target",
            vec![spki(DaneTa, &private_der)],
            vec![by_target, private_der.clone()],
            "Ok",
        ),
        (
            "TA, other name",
            vec![spki(DaneTa, &private_der)],
            vec![elsewhere, private_der.clone()],
            "PeerCertificateName",
        ),
        (
            "TA that issued nothing here",
            vec![spki(DaneTa, &private_der)],
            vec![valid.clone(), private_der.clone()],
            "CertificateChainIncomplete",
        ),
        (
            "PKIX-EE",
            vec![spki(PkixEe, &valid)],
            vec![valid.clone()],
            "Ok",
        ),
        (
            "PKIX-EE needs PKIX",
            vec![spki(PkixEe, &by_private)],
            vec![by_private.clone()],
            "CertificateChainIncomplete",
        ),
        (
            "PKIX-TA",
            vec![spki(PkixTa, &trusted_der)],
            vec![valid.clone(), trusted_der.clone()],
            "Ok",
        ),
        (
            "PKIX-TA needs PKIX",
            vec![spki(PkixTa, &private_der)],
            vec![by_private, private_der],
            "CertificateUnknownIssuer",
        ),
    ];
    for (what, records, chain, expected) in cases {
        let tlsa = TlsaSet::new(records, domain("xmpp.partner.example")).unwrap();
        let result = trusting(&trusted).judge_at(
            &domain("partner.example"),
            &chain,
            Role::Server,
            Some(&tlsa),
            now(),
        );
        assert_eq!(label(result.clone()), expected, "{what}: {result:?}");
    }
}

#[test]
fn unusable_tlsa_records_are_left_out() {
    for (usage, selector, matching, length) in [
        (4, 0, 1, 32),
        (3, 2, 1, 32),
        (3, 1, 3, 32),
        (3, 1, 1, 31),
        (3, 0, 0, 0),
    ] {
        assert_eq!(
            Tlsa::from_wire(usage, selector, matching, &vec![7; length]),
            None
        );
    }
    assert!(Tlsa::from_wire(3, 1, 2, &[7; 64]).is_some());
    assert_eq!(TlsaSet::new(Vec::new(), domain("a.example")), None);
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
    assert!(Roots::from_pem(&pki::authority("a").pem(), "test").is_ok());
}
