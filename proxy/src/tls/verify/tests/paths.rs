//! Paths of the field: policies that are critical (s7), authorities that are cross-signed (s22).

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
};

use super::*;

/// An authority whose certificate has these extensions, all of them critical.
fn with_critical(name: &str, by: &Authority, extensions: &[(u64, &[u8])]) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2036, 1, 1);
    params.custom_extensions = extensions
        .iter()
        .map(|(id, content)| critical_extension(*id, content))
        .collect();
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), by).unwrap()
}

fn critical_extension(id: u64, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, id], content.to_vec());
    extension.set_criticality(true);
    extension
}

/// certificatePolicies: anyPolicy
const ANY_POLICY: &[u8] = &[0x30, 0x08, 0x30, 0x06, 0x06, 0x04, 0x55, 0x1d, 0x20, 0x00];
/// policyConstraints: requireExplicitPolicy 0
const EXPLICIT: &[u8] = &[0x30, 0x03, 0x80, 0x01, 0x00];
/// inhibitAnyPolicy 0
const INHIBIT: &[u8] = &[0x02, 0x01, 0x00];

/// A policy with a statement so long that the lengths before it take three bytes.
fn long_policy() -> Vec<u8> {
    let statement = vec![b'x'; 400];
    let wrap = |tag: u8, content: Vec<u8>| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], &content[..]].concat()
    };
    let text = wrap(0x0c, statement);
    let oid = vec![0x06, 0x04, 0x55, 0x1d, 0x20, 0x00];
    wrap(0x30, wrap(0x30, [oid, wrap(0x30, text)].concat()))
}

#[test]
fn s7_critical_policies_of_a_trusted_authority_are_accepted() {
    let root = authority("government root");
    let long = long_policy();
    for extensions in [
        vec![(32, ANY_POLICY)],
        vec![(32, ANY_POLICY), (36, EXPLICIT)],
        vec![(36, EXPLICIT)],
        vec![(54, INHIBIT), (32, &long[..])],
    ] {
        let middle = with_critical("policy CA", &root, &extensions);
        let leaf = issue(&middle, &Subject::default()).der;
        let chain = [leaf, middle.der().clone()];
        for role in [Role::Server, Role::Client] {
            let result = judge(&trusting(&root), &chain, role);
            assert_eq!(label(result), "Ok", "{extensions:?}");
        }
        // What the flag was cleared in is still signed as it came.
        let other = authority("government root");
        let forged = judge(&trusting(&other), &chain, Role::Server);
        assert_ne!(label(forged), "Ok", "{extensions:?}");
    }
}

#[test]
fn s7_critical_policies_of_an_end_entity_and_of_a_root_are_accepted() {
    let root = with_critical("root", &authority("nobody"), &[(32, ANY_POLICY)]);
    let mut params = Subject::default().params();
    params.custom_extensions = vec![critical_extension(32, ANY_POLICY)];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &root).unwrap().der().clone();
    assert_eq!(label(judge(&trusting(&root), &[leaf], Role::Server)), "Ok");
}

/// The rest of the judgement stays: names that an authority may not vouch for, and what was changed
/// under its signature.
#[test]
fn s7_beside_critical_policies_every_other_rule_holds() {
    let root = authority("root");
    let middle = with_critical("policy CA", &root, &[(32, ANY_POLICY)]);
    let subject = Subject {
        names: &["evil.example"],
        ..Subject::default()
    };
    let chain = [issue(&middle, &subject).der, middle.der().clone()];
    let result = judge(&trusting(&root), &chain, Role::Server);
    assert_eq!(label(result), "PeerCertificateName");
    // nameConstraints: permitted other.example
    let name: &[u8] = &[
        0x30, 0x13, 0xa0, 0x11, 0x30, 0x0f, 0x82, 0x0d, b'o', b't', b'h', b'e', b'r', b'.', b'e',
        b'x', b'a', b'm', b'p', b'l', b'e',
    ];
    let narrow = with_critical("narrow CA", &root, &[(32, ANY_POLICY), (30, name)]);
    let chain = [
        issue(&narrow, &Subject::default()).der,
        narrow.der().clone(),
    ];
    assert_ne!(label(judge(&trusting(&root), &chain, Role::Server)), "Ok");
    // One byte of the policy itself is another.
    let leaf = issue(&middle, &Subject::default()).der;
    let mut changed = middle.der().to_vec();
    let at = changed
        .windows(ANY_POLICY.len())
        .position(|window| window == ANY_POLICY)
        .unwrap();
    changed[at + ANY_POLICY.len() - 1] = 1;
    let chain = [leaf, changed.into()];
    assert_ne!(label(judge(&trusting(&root), &chain, Role::Server)), "Ok");
}

#[test]
fn s7_another_critical_extension_is_named_with_its_certificate() {
    let root = authority("government root");
    let middle = with_critical("policy CA", &root, &[(32, ANY_POLICY), (99, INHIBIT)]);
    let leaf = issue(&middle, &Subject::default()).der;
    let chain = [leaf.clone(), middle.der().clone()];
    let fault = judge(&trusting(&root), &chain, Role::Server).unwrap_err();
    assert_eq!(fault.label(), "CertificateCriticalExtension");
    let text = fault.to_string();
    assert!(text.contains("2.5.29.99"), "{text}");
    assert!(text.contains("policy CA"), "{text}");
    let pins = PartnerTrust {
        pinned_spki_sha256: vec![spki_sha256(&leaf).unwrap().to_string()],
        ..PartnerTrust::default()
    };
    let pinned = Trust::of_partner(&pins, &Roots::default(), "test").unwrap();
    assert_eq!(label(judge(&pinned, &chain, Role::Server)), "Ok");
}

fn authority_that_ends(name: &str, end: u64) -> Authority {
    let mut params = Subject {
        names: &[],
        common_name: name,
        usage: &[],
        end,
        ..Subject::default()
    }
    .params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The key and name of `root` as another authority vouches for them.
fn cross_signed(root: &Authority, name: &str, by: &Authority, end: u64) -> CertificateDer<'static> {
    let mut params = Subject {
        names: &[],
        common_name: name,
        usage: &[],
        ..Subject::default()
    }
    .params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
    params.signed_by(root.key(), by).unwrap().der().clone()
}

#[test]
fn s22_the_trusted_path_is_found_beside_an_expired_cross_signed_one() {
    let soon = BEGIN + 1_000;
    let (good, old) = (
        authority("good root"),
        authority_that_ends("old root", soon),
    );
    let middle = intermediate("intermediate", &good);
    let leaf = issue(&middle, &Subject::default()).der;
    let unrelated = authority("unrelated").der().clone();
    for end in [END, soon] {
        let crossed = cross_signed(&good, "good root", &old, end);
        let middle = middle.der().clone();
        let sent: [&[CertificateDer<'_>]; 5] = [
            &[leaf.clone(), middle.clone(), crossed.clone()],
            &[
                leaf.clone(),
                middle.clone(),
                crossed.clone(),
                old.der().clone(),
            ],
            &[leaf.clone(), crossed.clone(), middle.clone()],
            &[
                leaf.clone(),
                unrelated.clone(),
                crossed.clone(),
                crossed.clone(),
                middle.clone(),
            ],
            &[
                leaf.clone(),
                leaf.clone(),
                middle.clone(),
                middle.clone(),
                crossed.clone(),
            ],
        ];
        for chain in sent {
            for roots in [good.pem(), old.pem() + &good.pem()] {
                let trust = Trust::new(Roots::from_pem(&roots, "test").unwrap());
                assert_eq!(label(judge(&trust, chain, Role::Server)), "Ok");
            }
        }
        // Where it is all that is trusted, it is said which one has ended.
        if end == soon {
            let fault = judge(&trusting(&old), sent[0], Role::Server).unwrap_err();
            assert_eq!(fault.label(), "CertificateExpired", "{fault}");
            assert!(fault.to_string().contains("good root"), "{fault}");
        }
    }
    let long = vec![leaf; MAX_CHAIN + 1];
    let fault = judge(&trusting(&good), &long, Role::Server).unwrap_err();
    assert_eq!(fault.label(), "CertificateChainTooLong");
}

/// The certificate as if another algorithm, whose OID is as long, had signed it.
fn signed_by_another(
    der: &CertificateDer<'_>,
    own: &[u8],
    other: &[u8],
) -> CertificateDer<'static> {
    let mut bytes = der.to_vec();
    let places: Vec<usize> = (0..bytes.len() - own.len())
        .filter(|at| bytes[*at..].starts_with(own))
        .collect();
    assert_eq!(places.len(), 2, "what is signed says it, and the signature");
    for at in places {
        bytes[at..at + own.len()].copy_from_slice(other);
    }
    bytes.into()
}

#[test]
fn a_signature_that_nobody_verifies_is_named_with_its_certificate_in_short_words() {
    const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b];
    const RSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5];
    const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    const ECDSA_SHA224: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1];
    let size = rcgen::RsaKeySize::_2048;
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
    let mut params = Subject {
        names: &[],
        common_name: "RSA root",
        usage: &[],
        ..Subject::default()
    }
    .params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let rsa = CertifiedIssuer::self_signed(params, rsa).unwrap();
    let middle = intermediate("old intermediate", &rsa);
    let old_middle = signed_by_another(middle.der(), RSA_SHA256, RSA_SHA1);
    let old_leaf = issue(&rsa, &Subject::default()).der;
    let old_leaf = signed_by_another(&old_leaf, RSA_SHA256, RSA_SHA1);
    let below = issue(&middle, &Subject::default()).der;
    let ecdsa = authority("ECDSA root");
    let odd = issue(&ecdsa, &Subject::default()).der;
    let odd = signed_by_another(&odd, ECDSA_SHA256, ECDSA_SHA224);
    for (root, chain, subject, algorithm) in [
        (&rsa, vec![old_leaf], "end entity", "RSA and SHA-1"),
        (
            &rsa,
            vec![below, old_middle],
            "old intermediate",
            "RSA and SHA-1",
        ),
        (&ecdsa, vec![odd], "end entity", "1.2.840.10045.4.3.1"),
    ] {
        let fault = judge(&trusting(root), &chain, Role::Server).unwrap_err();
        assert_eq!(fault.label(), "CertificateSignature", "{fault}");
        let text = fault.to_string();
        assert!(text.contains(subject) && text.contains(algorithm), "{text}");
        assert!(text.len() < 250, "{text}");
    }
}

#[test]
fn a_certificate_of_an_authority_is_told_as_one() {
    let root = authority("root");
    let mut params = Subject::default().params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.signed_by(&KeyPair::generate().unwrap(), &root);
    let chain = [own.unwrap().der().clone()];
    let fault = judge(&trusting(&root), &chain, Role::Server).unwrap_err();
    assert_eq!(fault.label(), "CertificateInvalid");
    assert!(fault.to_string().contains("have a leaf issued"), "{fault}");
}
