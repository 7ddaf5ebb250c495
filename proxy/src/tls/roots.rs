//! Authorities: the public ones, loaded once, and those given as PEM.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use rustls_pki_types::{CertificateDer, TrustAnchor};
use xmpp_edge_crds::pem::{self, AuthoritiesError};

use super::{certificate::sha256, dane::Tlsa, stamp::TrustStamp};

/// A set of trust anchors. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    parts: Vec<Arc<BundlePart>>,
}

#[derive(Debug, Default)]
struct BundlePart {
    anchors: Vec<TrustAnchor<'static>>,
    /// SHA-256 of the certificate of each anchor, in the same order.
    digests: Vec<[u8; 32]>,
    /// SHA-256 of each certificate given as PEM: one that is presented itself is trusted as it
    /// stands, so that a self-signed server certificate can be its own authority.
    given: HashSet<[u8; 32]>,
    /// Of all certificates, in order.
    stamp: TrustStamp,
}

/// Why a PEM bundle is no set of authorities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {cause}")]
pub struct RootsError {
    pub origin: String,
    pub cause: AuthoritiesError,
}

impl Roots {
    /// The public authorities of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` count), read once a
    /// process. Empty, with a warning in the log, where there are none.
    #[must_use]
    pub fn public() -> Self {
        static PUBLIC: LazyLock<Arc<BundlePart>> = LazyLock::new(|| {
            let loaded = rustls_native_certs::load_native_certs();
            for error in &loaded.errors {
                tracing::warn!(%error, "a public authority cannot be read");
            }
            if loaded.certs.is_empty() {
                tracing::warn!(
                    "no public authorities found: partners with public certificates will not verify"
                );
            }
            let (anchors, digests) = loaded
                .certs
                .iter()
                .filter_map(|der| Some((anchor(der).ok()?, sha256(der))))
                .unzip();
            Arc::new(BundlePart {
                anchors,
                digests,
                given: HashSet::new(),
                stamp: TrustStamp::of(loaded.certs.iter().map(AsRef::as_ref)),
            })
        });
        Self {
            parts: vec![Arc::clone(&PUBLIC)],
        }
    }

    /// The certificates of a PEM bundle; `origin` names it in errors.
    ///
    /// # Errors
    /// [`RootsError`] when the text holds no certificate, more than 1,000, or one that is broken.
    pub fn from_pem(text: impl AsRef<[u8]>, origin: &str) -> Result<Self, RootsError> {
        let authorities = pem::authorities(text).map_err(|cause| RootsError {
            origin: origin.to_owned(),
            cause,
        })?;
        let stamp = TrustStamp::of(authorities.iter().map(|authority| authority.der.as_ref()));
        let digests: Vec<_> = authorities
            .iter()
            .map(|authority| sha256(&authority.der))
            .collect();
        let part = BundlePart {
            given: digests.iter().copied().collect(),
            digests,
            stamp,
            anchors: authorities
                .into_iter()
                .map(|authority| authority.anchor)
                .collect(),
        };
        Ok(Self {
            parts: vec![Arc::new(part)],
        })
    }

    /// What tells these authorities from others.
    pub(super) fn stamp(&self) -> TrustStamp {
        TrustStamp::of(self.parts.iter().map(|part| part.stamp.as_bytes()))
    }

    /// Both sets.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// The anchors, part by part: nothing is copied for a judgement.
    pub(super) fn anchors(&self) -> impl Iterator<Item = &[TrustAnchor<'static>]> {
        self.parts.iter().map(|part| part.anchors.as_slice())
    }

    /// Those that the record names.
    pub(super) fn named_by(&self, record: &Tlsa) -> impl Iterator<Item = &TrustAnchor<'static>> {
        let all = self
            .parts
            .iter()
            .flat_map(|part| part.anchors.iter().zip(&part.digests));
        all.filter(|(anchor, digest)| record.names_authority(&spki(anchor), digest))
            .map(|(anchor, _)| anchor)
    }

    pub(super) fn were_given(&self, der: &CertificateDer<'_>) -> bool {
        let mut hash = None;
        self.parts
            .iter()
            .filter(|part| !part.given.is_empty())
            .any(|part| part.given.contains(hash.get_or_insert_with(|| sha256(der))))
    }
}

/// SubjectPublicKeyInfo of an anchor, which holds what stands in it (X.690 section 8.1.3: a SEQUENCE and its length).
fn spki(anchor: &TrustAnchor<'_>) -> Vec<u8> {
    let content = anchor.subject_public_key_info.as_ref();
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![0x30];
    if content.len() >= 0x80 {
        // Of a usize, so eight at most.
        der.push(0x80 | u8::try_from(length.len()).unwrap_or_default());
    }
    der.extend_from_slice(length);
    der.extend_from_slice(content);
    der
}

fn anchor(der: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, String> {
    webpki::anchor_from_trusted_cert(der)
        .map(|anchor| anchor.to_owned())
        .map_err(|cause| cause.to_string())
}
