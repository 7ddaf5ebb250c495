//! Why a stream or a pair failed: the one place that maps causes to stream errors, to the step and
//! label of an attempt, and to text.

use xmpp_edge_crds::verdict::Reason;

use super::{CertificateRejection, Refusal, Step};

/// A stream error as it goes on the wire (RFC 6120 section 4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// One of the conditions of RFC 6120 section 4.9.3.
    pub condition: &'static str,
    /// `<text/>`, English.
    pub text: Option<String>,
    /// An element beside the condition (`undefined-condition` and its like), already serialised.
    pub application: Option<String>,
}

/// The cause of an end, of a stream or of a pair on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    // Orderly ends.
    #[error("done")]
    Done,
    #[error("the peer closed the stream")]
    PeerClosed,
    #[error("the edge is going down")]
    Shutdown,
    #[error("the certificate that the stream stands on has ended: {0}")]
    CertificateEnded(String),

    // The driver's own findings.
    #[error("{text}")]
    Xml {
        condition: &'static str,
        label: &'static str,
        text: String,
    },
    #[error("not set up in time")]
    EstablishmentTimeout,
    #[error("no stanza for streamInactivityTimeoutSeconds")]
    Inactive,
    #[error("no answer to a request for acknowledgement or a ping in time")]
    Unresponsive,
    #[error("{0}")]
    ResourceConstraint(&'static str),
    #[error("{acknowledged} stanzas acknowledged, only {sent} were sent")]
    HandledCountTooHigh { acknowledged: u32, sent: u32 },

    // What the peer said.
    #[error("the peer ended the stream: {condition}{}", of_text(text))]
    PeerError { condition: String, text: String },
    #[error("the peer ended the stream over bidi: {condition}{}", of_text(text))]
    BidiRejected { condition: String, text: String },
    #[error(
        "the peer did not agree on acknowledgements: {condition}{}",
        of_text(text)
    )]
    AcksRejected { condition: String, text: String },

    // Headers.
    #[error("the stream is not for servers: its default namespace is not jabber:server")]
    ContentNamespace,
    #[error("the stream's version is not 1.0 and does not allow TLS, which is needed here")]
    UnsupportedVersion,
    #[error("the stream has no usable 'to'")]
    ToUnusable,
    #[error("the stream's 'from' is not a domain")]
    FromUnusable,
    #[error("'from' is not the domain that the stream began with")]
    FromChanged,
    #[error("'to' is not the domain that the stream began with")]
    ToChanged,
    #[error("this domain is not served here")]
    HostUnknown,
    #[error("federation is not allowed by policy")]
    Policy(Reason),
    #[error("loop: the stream leads back to ourselves")]
    Loop,

    // TLS.
    #[error("TLS is required")]
    TlsRequired,
    #[error("TLS is set to NotSupported for this domain")]
    TlsNotSupported,
    #[error("the peer does not offer STARTTLS, which is required")]
    TlsNotOffered,
    #[error("the peer requires TLS, which is set to NotSupported for it")]
    TlsRequiredByPeer,
    #[error("the peer offered STARTTLS and refused it")]
    TlsRefused,
    #[error("{text}")]
    TlsFailed { label: &'static str, text: String },
    #[error("{}", .0.text)]
    Certificate(CertificateRejection),

    // SASL.
    #[error("the peer does not offer EXTERNAL, which is required")]
    ExternalNotOffered,
    #[error("the peer refused our certificate: {condition}{}", of_text(text))]
    SaslRejected {
        condition: String,
        text: String,
        /// The peer ended the stream over it, so that dialback needs another.
        ended: bool,
    },
    #[error("too many failed attempts to authenticate")]
    TooManySaslFailures,
    #[error("too many dialback requests that are refused")]
    TooManyRefusedKeys,

    // Dialback.
    #[error("the peer offers no method of authentication that is allowed for it")]
    NoUsableMethod,
    #[error("the peer's stream has no id, without which dialback does not work")]
    StreamIdMissing,
    #[error("the peer's authoritative server says that the dialback key is not its own")]
    DialbackFailed,
    #[error("the peer found our dialback key invalid")]
    DialbackRejected,
    #[error("the peer answered dialback with the error {condition}")]
    DialbackError { condition: String },
    #[error("dialback is not allowed for this domain")]
    DialbackNotAllowed,
    #[error("too many pairs of domains on one stream")]
    TooManyPairs,
    #[error("the peer takes one pair of domains a stream only")]
    NotMultiplexable,

    // Trunks.
    #[error("the edge there is older than trunks: upgrade the pool first")]
    TrunkNotOffered,
    #[error("{text}")]
    Trunk {
        condition: &'static str,
        label: &'static str,
        text: String,
    },

    // Order and addresses.
    #[error("authenticate first")]
    NotAuthorized,
    #[error("the stanza's 'from' is not of an authenticated domain")]
    StanzaFrom,
    #[error("the stanza's 'to' is not of a domain agreed on")]
    StanzaTo,
    #[error("the stanza's 'from' or 'to' is missing or not an address")]
    StanzaAddressing,
    #[error("<{0}/> is not expected here")]
    UnexpectedElement(String),
}

fn of_text(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::HostUnknown => Self::HostUnknown,
            Refusal::Policy(reason) => Self::Policy(reason),
        }
    }
}

impl Fault {
    /// What the peer is told before the stream is closed; `None` for an orderly end, and where the
    /// peer itself ended the stream with an error.
    #[must_use]
    pub fn stream_error(&self) -> Option<StreamError> {
        let condition = match self {
            Self::Done
            | Self::PeerClosed
            | Self::Inactive
            | Self::TlsFailed { .. }
            | Self::PeerError { .. }
            | Self::BidiRejected { .. }
            | Self::AcksRejected { .. } => return None,
            Self::Shutdown => "system-shutdown",
            Self::CertificateEnded(_) => "reset",
            Self::Xml { condition, .. } | Self::Trunk { condition, .. } => condition,
            Self::EstablishmentTimeout | Self::Unresponsive => "connection-timeout",
            Self::ResourceConstraint(_) | Self::TooManyPairs => "resource-constraint",
            Self::HandledCountTooHigh { .. } => "undefined-condition",
            Self::ContentNamespace => "invalid-namespace",
            Self::TrunkNotOffered => "unsupported-feature",
            Self::UnsupportedVersion => "unsupported-version",
            Self::ToUnusable | Self::StanzaAddressing => "improper-addressing",
            Self::FromUnusable | Self::FromChanged | Self::StanzaFrom => "invalid-from",
            Self::HostUnknown | Self::StanzaTo => "host-unknown",
            Self::Policy(_)
            | Self::TlsRequired
            | Self::TlsNotSupported
            | Self::TlsNotOffered
            | Self::TlsRequiredByPeer
            | Self::Loop
            | Self::TooManySaslFailures
            | Self::TooManyRefusedKeys
            | Self::DialbackNotAllowed
            | Self::NoUsableMethod
            | Self::ExternalNotOffered
            | Self::NotMultiplexable => "policy-violation",
            Self::ToChanged
            | Self::Certificate(_)
            | Self::NotAuthorized
            | Self::DialbackFailed
            | Self::SaslRejected { .. }
            | Self::DialbackRejected
            | Self::DialbackError { .. } => "not-authorized",
            Self::TlsRefused | Self::StreamIdMissing => "undefined-condition",
            Self::UnexpectedElement(_) => "unsupported-stanza-type",
        };
        Some(StreamError {
            condition,
            text: self.wire_text(),
            application: self.application(),
        })
    }

    /// The peer learns of our policy only that there is one.
    fn wire_text(&self) -> Option<String> {
        match self {
            Self::Shutdown => None,
            _ => Some(self.to_string()),
        }
    }

    fn application(&self) -> Option<String> {
        match self {
            Self::HandledCountTooHigh { acknowledged, sent } => Some(format!(
                "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='{acknowledged}' send-count='{sent}'/>"
            )),
            _ => None,
        }
    }

    /// The step of an attempt that this belongs to.
    #[must_use]
    pub fn step(&self) -> Step {
        match self {
            Self::TlsRequired
            | Self::TlsNotSupported
            | Self::TlsNotOffered
            | Self::TlsRequiredByPeer
            | Self::TlsRefused
            | Self::TlsFailed { .. }
            | Self::UnsupportedVersion => Step::Tls,
            Self::Certificate(_) | Self::CertificateEnded(_) => Step::Certificate,
            Self::ExternalNotOffered | Self::SaslRejected { .. } | Self::TooManySaslFailures => {
                Step::Sasl
            }
            Self::NoUsableMethod
            | Self::TooManyRefusedKeys
            | Self::StreamIdMissing
            | Self::DialbackFailed
            | Self::DialbackRejected
            | Self::DialbackError { .. }
            | Self::DialbackNotAllowed
            | Self::NotMultiplexable => Step::Dialback,
            Self::TrunkNotOffered | Self::Trunk { .. } => Step::Trunk,
            Self::EstablishmentTimeout | Self::Unresponsive | Self::PeerClosed => Step::Tcp,
            _ => Step::Policy,
        }
    }

    /// The outcome's fixed word: a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Done => "Ok",
            Self::PeerClosed => "PeerClosed",
            Self::Shutdown => "Shutdown",
            Self::Inactive => "Inactive",
            Self::CertificateEnded(_) => "CertificateEnded",
            Self::TlsFailed { label, .. } => label,
            Self::Xml { label, .. } | Self::Trunk { label, .. } => label,
            Self::TrunkNotOffered => "TrunkNotOffered",
            Self::EstablishmentTimeout => "EstablishmentTimeout",
            Self::Unresponsive => "Unresponsive",
            Self::ResourceConstraint(_) => "ResourceConstraint",
            Self::HandledCountTooHigh { .. } => "HandledCountTooHigh",
            Self::PeerError { .. } => "PeerError",
            Self::BidiRejected { .. } => "BidiRejected",
            Self::AcksRejected { .. } => "AcksRejected",
            Self::ContentNamespace => "ContentNamespace",
            Self::UnsupportedVersion => "UnsupportedVersion",
            Self::ToUnusable => "ToUnusable",
            Self::FromUnusable => "FromUnusable",
            Self::FromChanged => "FromChanged",
            Self::ToChanged => "ToChanged",
            Self::HostUnknown => "HostUnknown",
            Self::Policy(reason) => reason.as_str(),
            Self::Loop => "Loop",
            Self::TlsRequired => "TlsRequired",
            Self::TlsNotSupported => "TlsNotSupported",
            Self::TlsNotOffered => "TlsNotOffered",
            Self::TlsRequiredByPeer => "TlsRequiredByPeer",
            Self::TlsRefused => "TlsRefused",
            Self::Certificate(fault) => fault.label,
            Self::ExternalNotOffered => "ExternalNotOffered",
            Self::SaslRejected { .. } => "SaslRejected",
            Self::TooManySaslFailures => "TooManySaslFailures",
            Self::TooManyRefusedKeys => "TooManyRefusedKeys",
            Self::NoUsableMethod => "NoUsableMethod",
            Self::StreamIdMissing => "StreamIdMissing",
            Self::DialbackFailed => "DialbackFailed",
            Self::DialbackRejected => "DialbackRejected",
            Self::DialbackError { .. } => "DialbackError",
            Self::DialbackNotAllowed => "DialbackNotAllowed",
            Self::TooManyPairs => "TooManyPairs",
            Self::NotMultiplexable => "NotMultiplexable",
            Self::NotAuthorized => "NotAuthorized",
            Self::StanzaFrom => "StanzaFrom",
            Self::StanzaTo => "StanzaTo",
            Self::StanzaAddressing => "StanzaAddressing",
            Self::UnexpectedElement(_) => "UnexpectedElement",
        }
    }

    /// Whether the stream ends as it may at any time: what was on its way is taken in before.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(
            self,
            Self::Done | Self::Shutdown | Self::Inactive | Self::CertificateEnded(_)
        )
    }

    /// Whether the pair may yet be carried by a stream of its own.
    #[must_use]
    pub fn needs_own_stream(&self) -> bool {
        matches!(
            self,
            Self::NotMultiplexable
                | Self::TooManyPairs
                | Self::DialbackError { .. }
                | Self::DialbackRejected
                | Self::DialbackNotAllowed
        )
    }
}
