//! Keys that this process makes for itself, and the certificates that they sign for themselves: a sidecar's
//! own, and its authority towards the server beside it. It reads and writes no file.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use xmpp_edge_crds::{
    domain::DomainName,
    pem::{self, PemError},
};
use zeroize::Zeroizing;

use super::{
    CertificateError, SpkiSha256,
    certificate::{parse, sha256},
};

/// An authority towards a server on loopback lives this long.
pub const AUTHORITY_VALID: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// It begins this long before it is made: clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// Why there is no key or certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelfIssueError {
    #[error("{0}")]
    Pem(PemError),
    #[error("the key cannot be used: {0}")]
    Key(String),
    #[error("a certificate cannot be made: {0}")]
    Certificate(String),
}

/// A key, and the hash by which it is listed.
pub struct OwnKey {
    pair: KeyPair,
}

/// The key is not shown.
impl std::fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OwnKey").field(&self.spki_sha256()).finish()
    }
}

impl OwnKey {
    /// A new one: ECDSA on P-256.
    ///
    /// # Errors
    /// [`SelfIssueError::Key`] where there is no randomness to be had.
    pub fn generate() -> Result<Self, SelfIssueError> {
        let pair = KeyPair::generate().map_err(|cause| SelfIssueError::Key(cause.to_string()))?;
        Ok(Self { pair })
    }

    /// From PEM: PKCS #8, SEC 1 or PKCS #1, not encrypted.
    ///
    /// # Errors
    /// [`SelfIssueError`]: what it is in place of a key.
    pub fn from_pem(text: &str) -> Result<Self, SelfIssueError> {
        let der = pem::private_key(text).map_err(SelfIssueError::Pem)?;
        let pair =
            KeyPair::try_from(&der).map_err(|cause| SelfIssueError::Key(cause.to_string()))?;
        Ok(Self { pair })
    }

    /// PKCS #8 in PEM.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.pair.serialize_pem())
    }

    #[must_use]
    pub fn spki_sha256(&self) -> SpkiSha256 {
        SpkiSha256(sha256(&self.pair.subject_public_key_info()))
    }

    /// A certificate that says nothing but this key, in PEM. It stands for no domain and ends in the year
    /// 9999: what counts is that the key is listed.
    ///
    /// # Errors
    /// [`SelfIssueError::Certificate`].
    pub fn certificate(&self) -> Result<String, SelfIssueError> {
        let mut params = self.params("xmpp-edge sidecar")?;
        // A host's clock may be years behind when this is made.
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(9999, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// An authority of [`AUTHORITY_VALID`] in PEM, for no name at or below `excluded` (RFC 5280
    /// section 4.2.1.10), and with no other authority below it.
    ///
    /// # Errors
    /// [`SelfIssueError::Certificate`] where a name cannot stand in a certificate.
    pub fn authority(
        &self,
        excluded: &[DomainName],
        now: Timestamp,
    ) -> Result<String, SelfIssueError> {
        // Two of them may stand in one file of a server's: each has a name of its own.
        let hash = self.spki_sha256().to_string();
        let mut params = self.params(&format!("xmpp-edge sidecar CA {}", &hash[..16]))?;
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since_epoch(now - BACKDATED);
        params.not_after = epoch + since_epoch(now + AUTHORITY_VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.name_constraints = (!excluded.is_empty()).then(|| NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: excluded
                .iter()
                .map(|domain| GeneralSubtree::DnsName(domain.to_string()))
                .collect(),
        });
        self.sign(&params)
    }

    fn params(&self, common_name: &str) -> Result<CertificateParams, SelfIssueError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        // Signed anew with other content, it must not have the number that it had.
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial)
            .map_err(|_| SelfIssueError::Certificate("no randomness".to_owned()))?;
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        Ok(params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<String, SelfIssueError> {
        params
            .self_signed(&self.pair)
            .map(|certificate| certificate.pem())
            .map_err(|cause| SelfIssueError::Certificate(cause.to_string()))
    }
}

/// Names for which, and below which, an authority does not count, as they stand.
///
/// # Errors
/// [`CertificateError`] when the bytes are no certificate.
pub fn excluded_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, CertificateError> {
    let parsed = parse(certificate)?;
    let constraints = parsed
        .name_constraints()
        .map_err(|cause| CertificateError::Der(cause.to_string()))?;
    let excluded = constraints.and_then(|found| found.value.excluded_subtrees.as_ref());
    let names = excluded.into_iter().flatten();
    Ok(names
        .filter_map(|subtree| match subtree.base {
            GeneralName::DNSName(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect())
}

fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
}
