//! Why a certificate is not accepted for a domain, in words that name what was expected and found.

use jiff::Timestamp;
use xmpp_edge_crds::domain::DomainName;

use super::certificate::SpkiSha256;

/// At most this many names of a certificate stand in a text.
const NAMES_SHOWN: usize = 10;

/// Why a chain is not accepted for a domain. [`Self::label`] is the metric label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    #[error("the peer presented no certificate")]
    NotPresented,
    #[error("the certificate of {subject:?} expired at {not_after}")]
    Expired {
        subject: String,
        not_after: Timestamp,
    },
    #[error("the certificate of {subject:?} is not valid before {not_before}")]
    NotYetValid {
        subject: String,
        not_before: Timestamp,
    },
    #[error(
        "the certificate of {subject:?} was issued at {not_before}; those before {issued_after} were taken away, use the newer one"
    )]
    TakenAway {
        subject: String,
        not_before: Timestamp,
        issued_after: Timestamp,
    },
    #[error("the certificate is self-signed (by {subject:?}) and neither trusted nor pinned")]
    SelfSigned { subject: String },
    #[error(
        "the chain ends at issuer {issuer:?}, which was not sent and is not trusted: either an intermediate certificate is missing, or that authority is unknown here"
    )]
    IncompleteChain { issuer: String },
    #[error("the chain ends in {root:?}, which is not trusted")]
    UnknownIssuer { root: String },
    #[error("a certificate for {expected} was expected, found {}", shown_names(found, *other_names))]
    NameMismatch {
        expected: DomainName,
        /// `dNSName` values, all of them; of a SIP server those of `URI:sip:` too, as `sip:` and the host.
        found: Vec<String>,
        /// xmppAddr or SRVName are there, but do not count.
        other_names: bool,
    },
    #[error(
        "the certificate may not be used by a {wanted} (its extended key usage lacks {missing})"
    )]
    NotForUse {
        wanted: &'static str,
        missing: &'static str,
    },
    #[error("the key {found} is none of the {pins} pinned for this partner ({otherwise})")]
    PinMismatch {
        found: SpkiSha256,
        pins: usize,
        /// What the certificate is worth without pins.
        otherwise: String,
    },
    #[error("the key changed to {found}, and onKeyChange is Refuse: pin the new key to accept it")]
    KeyChanged { found: SpkiSha256 },
    #[error(
        "none of the {records} secure TLSA records matches the certificate (its key's SHA-256 is {found})"
    )]
    DaneMismatch { records: usize, found: SpkiSha256 },
    #[error("the chain has {found} certificates, more than the {limit} that are judged")]
    ChainTooLong { found: usize, limit: usize },
    #[error(
        "the key has {bits} bits: RSA counts from 2048 bits on, pinned or not; have a certificate issued for a new key"
    )]
    WeakKey { bits: usize },
    #[error(
        "the key has {bits} bits: RSA counts up to 8192 bits, pinned or not; have a certificate issued for a shorter key"
    )]
    KeyTooLong { bits: usize },
    #[error("what this partner is trusted by cannot be used: {0}")]
    TrustUnusable(String),
    #[error(
        "the certificate of {subject:?} has the critical extension {extension}, which is not understood here: pin the key, or have it issued without marking that critical"
    )]
    CriticalExtension { subject: String, extension: String },
    #[error(
        "the certificate of {subject:?} is of X.509 version {version}, which cannot be verified: pin the key, or have one of version 3 issued"
    )]
    Version { subject: String, version: u32 },
    #[error(
        "the certificate of {subject:?} is signed by {algorithm}, which is not verified here: have one issued that is signed with SHA-256 or better, or pin the key"
    )]
    Signature { subject: String, algorithm: String },
    #[error("a certificate of the chain is not well-formed: {0}")]
    Malformed(String),
    #[error("the chain does not verify: {0}")]
    Invalid(&'static str),
}

impl CertificateFault {
    /// A fixed CamelCase word for metrics and attempts.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotPresented => "CertificateNotPresented",
            Self::Expired { .. } => "CertificateExpired",
            Self::NotYetValid { .. } => "CertificateNotYetValid",
            Self::TakenAway { .. } => "CertificateTakenAway",
            Self::SelfSigned { .. } => "CertificateSelfSigned",
            Self::IncompleteChain { .. } => "CertificateChainIncomplete",
            Self::UnknownIssuer { .. } => "CertificateUnknownIssuer",
            Self::NameMismatch { .. } => "PeerCertificateName",
            Self::NotForUse { .. } => "CertificateNotForUse",
            Self::PinMismatch { .. } => "CertificatePinMismatch",
            Self::KeyChanged { .. } => "CertificateKeyChanged",
            Self::DaneMismatch { .. } => "CertificateDaneMismatch",
            Self::ChainTooLong { .. } => "CertificateChainTooLong",
            Self::WeakKey { .. } => "CertificateWeakKey",
            Self::KeyTooLong { .. } => "CertificateKeyTooLong",
            Self::TrustUnusable(_) => "CertificateTrustUnusable",
            Self::CriticalExtension { .. } => "CertificateCriticalExtension",
            Self::Version { .. } => "CertificateVersion",
            Self::Signature { .. } => "CertificateSignature",
            Self::Malformed(_) => "CertificateMalformed",
            Self::Invalid(_) => "CertificateInvalid",
        }
    }
}

fn shown_names(found: &[String], other_names: bool) -> String {
    let mut text = if found.is_empty() {
        "no dNSName (a common name does not count)".to_owned()
    } else {
        let clean = |name: &String| name.escape_default().take(260).collect::<String>();
        found
            .iter()
            .take(NAMES_SHOWN)
            .map(clean)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if found.len() > NAMES_SHOWN {
        text.push_str(&format!(" and {} more", found.len() - NAMES_SHOWN));
    }
    if other_names {
        text.push_str(" (xmppAddr and SRVName do not count)");
    }
    text
}
