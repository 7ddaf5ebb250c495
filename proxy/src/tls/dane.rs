//! TLSA records (RFC 6698, RFC 7671) as XMPP uses them (RFC 7673): what they say, and whether a
//! certificate is meant. Whether the answer was secure is the resolver's business.

use rustls_pki_types::CertificateDer;
use xmpp_edge_crds::domain::DomainName;

use super::certificate::{CertificateError, parse, sha256};

/// Who is named by a record (RFC 6698 section 2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// 0: PKIX must hold, and an authority of the chain is the one named.
    PkixTa,
    /// 1: PKIX must hold, and the certificate is the one named.
    PkixEe,
    /// 2: the named authority of the chain is trusted.
    DaneTa,
    /// 3: the certificate is the one named; names and dates do not count (RFC 7671 section 5.1).
    DaneEe,
}

/// What of the certificate is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selected {
    Certificate,
    Spki,
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matching {
    Exact,
    Sha256,
    Sha512,
}

/// One usable record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlsa {
    pub usage: Usage,
    pub selected: Selected,
    pub matching: Matching,
    pub data: Vec<u8>,
}

/// The usable records of one target, from a secure answer after a secure SRV answer: never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsaSet {
    records: Vec<Tlsa>,
    /// The host that they stand for: a name that a certificate may also carry, as the delegation
    /// was secure (RFC 7673 section 4).
    pub target: DomainName,
}

impl Tlsa {
    /// From the numbers on the wire; `None` where the record is not usable (unknown number, or a
    /// hash of the wrong length).
    #[must_use]
    pub fn from_wire(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Option<Self> {
        let usage = match usage {
            0 => Usage::PkixTa,
            1 => Usage::PkixEe,
            2 => Usage::DaneTa,
            3 => Usage::DaneEe,
            _ => return None,
        };
        let selected = match selector {
            0 => Selected::Certificate,
            1 => Selected::Spki,
            _ => return None,
        };
        let (matching, length) = match matching {
            0 => (Matching::Exact, None),
            1 => (Matching::Sha256, Some(32)),
            2 => (Matching::Sha512, Some(64)),
            _ => return None,
        };
        if data.is_empty() || length.is_some_and(|length| data.len() != length) {
            return None;
        }
        Some(Self {
            usage,
            selected,
            matching,
            data: data.to_vec(),
        })
    }

    /// Whether `certificate` is the one named.
    ///
    /// # Errors
    /// [`CertificateError`] when the bytes are no certificate.
    pub fn names(&self, certificate: &CertificateDer<'_>) -> Result<bool, CertificateError> {
        let parsed;
        let bytes: &[u8] = match self.selected {
            Selected::Certificate => certificate.as_ref(),
            Selected::Spki => {
                parsed = parse(certificate)?;
                parsed.public_key().raw
            }
        };
        Ok(self.matches(bytes))
    }

    /// Whether an authority is named of which only its SubjectPublicKeyInfo is at hand, and the SHA-256 of its
    /// certificate. A SHA-512 of that names none.
    pub(super) fn names_authority(&self, spki: &[u8], certificate: &[u8; 32]) -> bool {
        match (self.selected, self.matching) {
            (Selected::Spki, _) => self.matches(spki),
            (Selected::Certificate, Matching::Sha256) => self.data == certificate,
            (Selected::Certificate, Matching::Exact) => sha256(&self.data) == *certificate,
            (Selected::Certificate, Matching::Sha512) => false,
        }
    }

    fn matches(&self, bytes: &[u8]) -> bool {
        match self.matching {
            Matching::Exact => bytes == self.data,
            Matching::Sha256 => sha256(bytes).as_slice() == self.data,
            Matching::Sha512 => {
                use aws_lc_rs::digest::{SHA512, digest};
                digest(&SHA512, bytes).as_ref() == self.data
            }
        }
    }
}

impl TlsaSet {
    /// `None` where no record is usable: then PKIX alone decides (RFC 7671 section 4.1).
    #[must_use]
    pub fn new(records: Vec<Tlsa>, target: DomainName) -> Option<Self> {
        (!records.is_empty()).then_some(Self { records, target })
    }

    #[must_use]
    pub fn records(&self) -> &[Tlsa] {
        &self.records
    }
}
