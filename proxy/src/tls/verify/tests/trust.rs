//! A partner's own authority, pins and known keys.

use super::*;

/// E-18
#[test]
fn a_partners_authority_replaces_the_shared_ones_for_this_partner_alone() {
    let (shared, own) = (authority("shared"), authority("the partner's"));
    let roots = Roots::from_pem(shared.pem(), "shared").unwrap();
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
        let trust = Trust::new(Roots::from_pem(certificate.pem(), "test").unwrap());
        let result = judge(&trust, &[certificate.der().clone()], Role::Server);
        assert_eq!(label(result), "Ok", "CA flag {is_ca}");
    }
}

/// E-19, and pins as the only trust.
#[test]
fn pins_and_known_keys_decide_as_the_partner_says() {
    let ca = authority("authority");
    let roots = Roots::from_pem(ca.pem(), "test").unwrap();
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
