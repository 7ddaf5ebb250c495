//! TLSA records as a judge.

use super::*;
use crate::tls::dane::{Matching, Selected, Tlsa};

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
    let another = authority("another that is trusted");
    let also_trusted = another.der().clone();
    let misnamed = issue(
        &trusted,
        &Subject {
            names: &["evil.example"],
            ..Subject::default()
        },
    )
    .der;
    let roots = trusted.pem() + &another.pem();
    let trust = Trust::new(Roots::from_pem(&roots, "test").unwrap());
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
            "PKIX-TA, root not sent",
            vec![spki(PkixTa, &trusted_der)],
            vec![valid.clone()],
            "Ok",
        ),
        (
            "PKIX-TA by certificate, root not sent",
            vec![whole(PkixTa, &trusted_der)],
            vec![valid.clone()],
            "Ok",
        ),
        (
            "PKIX-TA, root not sent and not trusted",
            vec![spki(PkixTa, &private_der)],
            vec![by_private.clone()],
            "CertificateDaneMismatch",
        ),
        (
            "PKIX-TA, another root than that of the path",
            vec![spki(PkixTa, &also_trusted)],
            vec![valid.clone()],
            "CertificateDaneMismatch",
        ),
        (
            "PKIX-TA, root not sent, other name",
            vec![spki(PkixTa, &trusted_der)],
            vec![misnamed],
            "PeerCertificateName",
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
        let result = trust.judge_at(
            (&domain("partner.example"), NameRule::Wildcards),
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

/// S-16: who has an authority of his own relies on it, whoever may sign the partner's zone.
#[test]
fn s_16_dane_adds_a_demand_to_an_authority_of_the_partner_and_never_replaces_it() {
    let (own, other) = (authority("the partner's"), authority("somebody else's"));
    let (right, forged) = (
        issue(&own, &Subject::default()).der,
        issue(&other, &Subject::default()).der,
    );
    let record = |der: &CertificateDer<'static>| {
        let tlsa = Tlsa {
            usage: Usage::DaneEe,
            selected: Selected::Spki,
            matching: Matching::Sha256,
            data: spki_sha256(der).unwrap().0.to_vec(),
        };
        TlsaSet::new(vec![tlsa], domain("xmpp.partner.example")).unwrap()
    };
    let settings = PartnerTrust {
        ca: Some(own.pem()),
        ..PartnerTrust::default()
    };
    let with_own = Trust::of_partner(&settings, &Roots::default(), "test").unwrap();
    let without = trusting(&own);
    for (what, trust, shown, tlsa, expected) in [
        (
            "own CA, no match",
            &with_own,
            &right,
            &forged,
            "CertificateDaneMismatch",
        ),
        ("own CA and a match", &with_own, &right, &right, "Ok"),
        (
            "a match alone",
            &with_own,
            &forged,
            &forged,
            "CertificateChainIncomplete",
        ),
        (
            "public roots: DANE decides",
            &without,
            &forged,
            &forged,
            "Ok",
        ),
    ] {
        let judged = trust.judge_at(
            (&domain("partner.example"), NameRule::Wildcards),
            std::slice::from_ref(shown),
            Role::Server,
            Some(&record(tlsa)),
            now(),
        );
        assert_eq!(label(judged), expected, "{what}");
    }
}
