//! Critical policy extensions (RFC 5280 sections 4.2.1.4, 4.2.1.5, 4.2.1.11, 4.2.1.14): tolerated. Nobody
//! asks for a policy here, and where any will do and none is asked for they change no path (section 6.1),
//! which is how OpenSSL and GnuTLS read them by default.
//!
//! webpki refuses what is critical and unknown to it. It is given such certificates with the flag
//! cleared, and each signature is checked over the bytes that were signed, so that all else of its
//! judgement stays as it is.

use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm,
};
use x509_parser::prelude::X509Certificate;

use crate::tls::{
    certificate::{parse, shown},
    fault::CertificateFault,
};

/// certificatePolicies, policyMappings, policyConstraints, inhibitAnyPolicy.
const POLICIES: [&str; 4] = ["2.5.29.32", "2.5.29.33", "2.5.29.36", "2.5.29.54"];
/// BOOLEAN TRUE in DER.
const TRUE: [u8; 3] = [0x01, 0x01, 0xff];

/// Whether an extension is of policies.
fn is_of_policies(oid: &str) -> bool {
    POLICIES.contains(&oid)
}

/// The first critical extension that is not looked at, as rfc5280 section 4.2 wants it refused.
pub(super) fn critical(certificate: &X509Certificate<'_>) -> Option<CertificateFault> {
    /// keyUsage, subjectAltName, basicConstraints, nameConstraints, extendedKeyUsage,
    /// cRLDistributionPoints.
    const KNOWN: [&str; 6] = [
        "2.5.29.15",
        "2.5.29.17",
        "2.5.29.19",
        "2.5.29.30",
        "2.5.29.37",
        "2.5.29.31",
    ];
    let unknown = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.critical)
        .map(|extension| extension.oid.to_id_string())
        .find(|oid| !KNOWN.contains(&oid.as_str()) && !is_of_policies(oid))?;
    Some(CertificateFault::CriticalExtension {
        subject: shown(certificate.subject()),
        extension: unknown,
    })
}

/// The signed part of a certificate, as it is read now and as it was signed.
#[derive(Debug)]
struct SignedPart {
    anew: Vec<u8>,
    original: Vec<u8>,
}

/// A chain whose policy extensions are critical no more.
#[derive(Debug)]
pub(super) struct WithoutPolicies {
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Of the certificates that were changed.
    signed: Vec<SignedPart>,
}

impl WithoutPolicies {
    /// `None` where no certificate has any.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let mut without = Self {
            chain: Vec::with_capacity(chain.len()),
            signed: Vec::new(),
        };
        for certificate in chain {
            let (anew, signed) = match cleared(certificate) {
                Some((anew, signed)) => (anew, Some(signed)),
                None => (certificate.to_vec(), None),
            };
            without.signed.extend(signed);
            without.chain.push(anew.into());
        }
        (!without.signed.is_empty()).then_some(without)
    }

    /// The algorithms, which check signatures over what was signed.
    pub(super) fn algorithms(
        &self,
        all: &[&'static dyn SignatureVerificationAlgorithm],
    ) -> Vec<OverTheOriginal<'_>> {
        let of = |inner: &&'static dyn SignatureVerificationAlgorithm| OverTheOriginal {
            inner: *inner,
            signed: &self.signed,
        };
        all.iter().map(of).collect()
    }
}

#[derive(Debug)]
pub(super) struct OverTheOriginal<'a> {
    inner: &'static dyn SignatureVerificationAlgorithm,
    signed: &'a [SignedPart],
}

impl SignatureVerificationAlgorithm for OverTheOriginal<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let changed = self.signed.iter().find(|part| part.anew == message);
        let message = changed.map_or(message, |part| &part.original);
        self.inner.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.signature_alg_id()
    }
}

/// The certificate with its policy extensions uncritical, and its signed part so and as it was; `None`
/// where it has none.
fn cleared(certificate: &CertificateDer<'_>) -> Option<(Vec<u8>, SignedPart)> {
    let parsed = parse(certificate).ok()?;
    let mut anew = certificate.to_vec();
    for at in flags(certificate, &parsed) {
        anew[at] = 0;
    }
    if anew == certificate.as_ref() {
        return None;
    }
    let signed = parsed.tbs_certificate.as_ref();
    let start = offset(certificate, signed)?;
    let part = SignedPart {
        anew: anew.get(start..start + signed.len())?.to_vec(),
        original: signed.to_vec(),
    };
    Some((anew, part))
}

/// Where the flags stand that make policy extensions critical.
fn flags(certificate: &[u8], parsed: &X509Certificate<'_>) -> Vec<usize> {
    let policies = parsed
        .extensions()
        .iter()
        .filter(|extension| extension.critical && is_of_policies(&extension.oid.to_id_string()));
    policies
        .filter_map(|extension| {
            // Before an extension's value stand the flag and the value's own tag and length (section 4.1).
            let value = offset(certificate, extension.value)?;
            let length = match extension.value.len() {
                0..=0x7f => 1,
                0x80..=0xff => 2,
                0x100..=0xffff => 3,
                _ => 4,
            };
            let flag = value.checked_sub(1 + length)?;
            let is_flag = certificate.get(flag.checked_sub(3)?..flag) == Some(&TRUE[..]);
            is_flag.then(|| flag - 1)
        })
        .collect()
}

/// Where a part begins that was borrowed from `whole`.
fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (at + part.len() <= whole.len()).then_some(at)
}
