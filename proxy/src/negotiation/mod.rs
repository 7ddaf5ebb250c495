//! The negotiation machine: two streams of RFC 6120 between servers, as state machines.
//!
//! [`Inbound`] answers a stream that the peer opened, [`Outbound`] leads one that the edge opened.
//! Both are sans-I/O: the driver (`stream/`) feeds [`Input`]s and carries out [`Output`]s in order. Nothing here
//! sees a socket, a clock, DNS or the configuration; what must be known of the world is asked of
//! [`Environment`], what must be waited for is asked of the driver ([`Output::Verify`]).
//! Authorisation is per domain pair, never per connection.
//!
//! What its driver does:
//! 1. makes the machine (`Inbound::new`, `Outbound::start`) and carries out its outputs;
//! 2. hands it each stream header, each element that is no stanza, the end of the handshake, verdicts
//!    that it fetched, and the closing tag;
//! 3. relays stanzas of pairs that were announced by [`Output::PairAuthenticated`], and gives every
//!    other stanza to the machine as [`Input::UnauthorizedStanza`];
//! 4. ends the connection at [`Output::Close`], which is always the last output of a step. A machine
//!    that has closed ignores every further input, but still answers [`Input::AddPair`] with a failure.

pub mod acks;
pub mod dialback;
mod fault;
mod features;
mod inbound;
mod outbound;
mod pairs;
mod sasl;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;

use xmpp_edge_crds::{
    domain::{DomainName, NameForm},
    negotiation::{Method, MethodSet},
    verdict::Reason,
};

pub use crate::telemetry::attempt::Step;
use crate::xml::{Element, StreamHeader};
pub use fault::{Fault, StreamError};
pub use inbound::Inbound;
pub use outbound::{Outbound, OutboundStart, Purpose};
pub(crate) use wire::{OwnHeader, ns, stream_error};

/// Most pairs, authenticated and pending together, on one stream; one more gets
/// `resource-constraint` (XEP-0220 section 2.5).
pub const MAX_PAIRS: usize = 128;
/// Most dialback verifications in flight for one stream of domains that nobody has listed: there is no end
/// of names under a wildcard. Of listed ones up to [`MAX_PAIRS`] wait for one another.
pub const MAX_PENDING: usize = 16;
/// SASL attempts that may fail on one stream (RFC 6120 section 6.4.5 asks for 2 to 5).
pub const MAX_SASL_FAILURES: u8 = 3;
/// Dialback elements that may be refused on one stream while nobody is authenticated on it: each one
/// names a domain, and costs an answer and a line of the attempt.
pub const MAX_REFUSED_KEYS: u8 = 10;

/// Who the peer is: which listener it came to, or whom the edge dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A federated partner: its domains are partners' domains, ours are own domains.
    Partner,
    /// One of the organisation's own servers: the other way round.
    Gateway,
}

impl Side {
    /// Where stanzas of this side's peers go, and those for them come from.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Partner => Self::Gateway,
            Self::Gateway => Self::Partner,
        }
    }
}

/// Stanzas from one domain to another. Directed: the answer's way is the pair [`Self::reversed`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    pub from: DomainName,
    pub to: DomainName,
}

impl Pair {
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
        }
    }
}
impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// The part that the peer played in the TLS handshake: it decides which key usage is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerRole {
    /// The peer opened the connection; `serverAuth` alone is accepted from it.
    Client,
    /// The peer accepted it; `serverAuth` is demanded.
    Server,
}

/// What is agreed with the peer's domain for streams that carry a pair with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub methods: MethodSet,
    /// Whether XEP-0288 may be offered and asked for.
    pub bidi: bool,
    /// Whether XEP-0198 may be offered and asked for.
    pub acks: bool,
    pub carries: Carries,
}

/// What a stream between two domains is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Stanzas of the two, and of further pairs that are authenticated on it.
    Pairs,
    /// A trunk between a sidecar and an edge pod: EXTERNAL and nothing else, then what is said on
    /// trunks. The two domains say who the two are, and are no pair.
    Trunk,
}

/// Why a pair of domains may not have a stream. Decided before any TLS or DNS work for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The local domain is none that is served on this side.
    HostUnknown,
    /// The peer's domain may not: unknown or suspended partner, suspended pool. The reason is for
    /// metrics and attempts; the peer only learns `policy-violation`.
    Policy(Reason),
}

/// A certificate that does not verify for a domain, as `tls/` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRejection {
    /// A fixed CamelCase word, e.g. `NoCertificate`, `Expired`, `NameMismatch`: a metric label.
    pub label: &'static str,
    /// For people: what was expected and what was found.
    pub text: String,
}

/// What XEP-0478 tells, or what the peer told by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Largest stanza, in bytes.
    pub max_bytes: Option<u64>,
    /// Silence after which the stream may be closed, in seconds.
    pub idle_seconds: Option<u64>,
}

/// What a machine asks of the world: pure look-ups in the configuration in force, no waiting.
/// `stream/` implements it; each question is asked anew whenever the answer matters, so that a
/// reload counts at once.
pub trait Environment {
    /// Whether `peer` and `local` may have a stream on this side, and on which terms. It is asked
    /// before any other work is done for the two, once per header and once per dialback pair.
    ///
    /// # Errors
    /// [`Refusal`] says which of the two is at fault.
    fn admit(&self, side: Side, peer: &DomainName, local: &DomainName) -> Result<Terms, Refusal>;

    /// Whether the configuration names `peer` itself, and no wildcard above it. Asked of admitted domains.
    fn lists(&self, side: Side, peer: &DomainName) -> bool;

    /// Whether `local` is served on this side at all; asked while the peer has not said who it is.
    fn serves(&self, side: Side, local: &DomainName) -> bool;

    /// Whether the chain that the stream's peer showed proves `peer`: PKIX, the partner's CA, pins, or DANE.
    /// Asked only where there is TLS.
    ///
    /// # Errors
    /// [`CertificateRejection`]; that it showed none is one too.
    fn verify_certificate(
        &self,
        side: Side,
        role: PeerRole,
        peer: &DomainName,
    ) -> Result<(), CertificateRejection>;

    /// The dialback secret of all replicas, with the previous one where there is one.
    fn dialback(&self) -> &dialback::Secret;

    /// What the edge takes from an authenticated peer. It is told before authentication too: after
    /// dialback there are no new features to correct it.
    fn limits(&self) -> StreamLimits;

    /// A fresh stream id of 128 random bits, which [`Self::is_own_stream_id`] knows again.
    fn new_stream_id(&self) -> String {
        self.dialback().new_stream_id()
    }

    /// Whether a proxy with this secret issued the id: the stream leads back to ourselves.
    fn is_own_stream_id(&self, id: &str) -> bool {
        self.dialback().is_own_stream_id(id)
    }
}

/// How the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// TCP; TLS can only come by STARTTLS.
    Plain,
    /// The handshake is done: direct TLS (XEP-0368), or STARTTLS.
    Tls,
}

/// What happened on the stream or in the world.
#[derive(Debug)]
pub enum Input<'a> {
    /// The peer's stream header: exactly one after the start and after each [`Output::Restart`] or
    /// [`Input::TlsEstablished`].
    Header(&'a StreamHeader),
    /// A complete top-level element that is no stanza.
    Element(&'a Element),
    /// A stanza whose pair this stream may not carry, by its `from` and `to` as they stand.
    UnauthorizedStanza {
        from: Option<&'a str>,
        to: Option<&'a str>,
    },
    /// The handshake asked for by [`Output::StartTls`] is done.
    TlsEstablished,
    /// The authoritative server has spoken, or could not be asked, on another stream.
    Verdict {
        request: u32,
        verdict: KeyVerification,
    },
    /// Outbound only, once a pair is ready: this pair shall be carried too. Answered, now or later, by
    /// `PairReady` or `PairFailed`.
    AddPair(Pair),
    /// Outbound only: ask the peer for a sign of life by a `db:verify` that cannot be valid, for a
    /// pair of this stream; answered by [`Output::ProbeAnswered`] with the same number.
    Probe { number: u64 },
    /// The configuration changed: pairs that are now forbidden, or stand on a method that is no
    /// longer allowed or a certificate no longer trusted, close the stream.
    ConfigChanged,
    /// The peer's `</stream:stream>`.
    Closed,
    /// The time for this state (`streamEstablishmentTimeoutSeconds`) is over.
    TimedOut,
    /// The driver ends the stream for a reason of its own: bad XML, shutdown, a limit, or in
    /// order ([`Fault::Done`]).
    End(Fault),
}

/// What the driver must do, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Write these bytes.
    Send(Vec<u8>),
    /// Drop every plaintext byte already read, then hand the connection to TLS. Inbound: as server;
    /// `domain` is the stream's `to`, whose certificate is shown where SNI names none. Outbound: as
    /// client, with `domain` as SNI.
    StartTls { domain: DomainName },
    /// The peer's next bytes begin a new stream: restart the scanner. Bytes already read count.
    Restart,
    /// The peer may send stanzas of this pair on this stream.
    PairAuthenticated { pair: Pair, method: Method },
    /// The edge may send stanzas of this pair on this stream.
    PairReady { pair: Pair, method: Method },
    /// The pair cannot be carried here; the stream lives on unless a `Close` follows. With
    /// [`Fault::needs_own_stream`] another stream of its own may succeed.
    PairFailed { pair: Pair, fault: Fault },
    /// Ask the authoritative server of `request.pair.from` on another stream (`Purpose::Verify`) and
    /// answer with [`Input::Verdict`] under the same number, in any case.
    Verify {
        request: u32,
        question: VerifyRequest,
    },
    /// A verify-only stream got its answer. A `Close` follows.
    Verified(KeyVerification),
    /// The stream is a trunk: `peer` has proved who it is, and both offer what trunks are. What comes from
    /// here on is the driver's, but for the end.
    TrunkReady { peer: DomainName },
    /// XEP-0288 is agreed on: pairs will be announced in both directions. Stanzas of the peer may come
    /// before its acks are agreed on.
    Bidi,
    /// XEP-0198 acks are in force from here on, both ways; nonzas are written in this namespace. What
    /// was written or read before this output does not count.
    AcksEnabled { namespace: acks::Namespace },
    /// The peer asks for an `<a/>`.
    AckRequested,
    /// The peer has handled `h` stanzas, modulo 2³².
    Acked { h: u32 },
    /// The peer answered the [`Input::Probe`] of this number.
    ProbeAnswered { number: u64 },
    /// The peer's XEP-0478 limits; newer ones replace older ones.
    PeerLimits(StreamLimits),
    /// A step of the attempt went well (`Ok`) or badly (`fault.label()`).
    Step {
        step: Step,
        peer: Option<DomainName>,
        outcome: &'static str,
        text: String,
    },
    /// All of ours is said, and the stream is over but for what the peer may yet say of why: it gets a moment
    /// for that, then [`Input::TimedOut`].
    LastWord,
    /// Flush, then end the connection. Always last.
    Close(Fault),
}

/// A key to be verified: the sender is `pair.from`, whose authoritative server is to be asked; the
/// asking (receiving) domain is `pair.to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyRequest {
    pub pair: Pair,
    /// The id that the edge gave the stream on which the key came.
    pub stream_id: String,
    pub key: String,
    /// As the key came: servers compute keys over names as they are written.
    pub names: WireNames,
}

/// In which form the two domains of a stream, or of a dialback element, are written: the peer's own, and
/// the one that it talks to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WireNames {
    pub peer: NameForm,
    pub local: NameForm,
}

/// What became of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyVerification {
    Valid,
    Invalid,
    /// The authoritative server could not be asked, or answered with an error.
    Unavailable(Unavailable),
}

/// Why an authoritative server gave no verdict (XEP-0220 section 2.5). Each is one dialback error; a
/// partner's stream on which nobody is authenticated learns only whether the edge was busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// No address: `remote-server-not-found`.
    NotFound,
    /// Addresses, but no connection, or TLS failed: `remote-connection-failed`.
    ConnectionFailed,
    /// No answer in time: `remote-server-timeout`.
    TimedOut,
    /// It answered with an error of its own, or closed the stream: `internal-server-error` says too
    /// much about us, so `remote-connection-failed` too.
    Refused,
    /// Too many verifications towards this domain at the moment: `resource-constraint`.
    Busy,
    /// The partner has as many streams as it may have: `resource-constraint`.
    ConnectionLimit,
    /// Our own policy forbids asking, e.g. TLS was not offered: `policy-violation`.
    Policy,
}

impl Unavailable {
    /// Whether it says something of the network or of the server that was asked, and not of the edge.
    #[must_use]
    pub fn tells_of_others(self) -> bool {
        !matches!(self, Self::Busy | Self::ConnectionLimit)
    }

    /// The outcome's fixed word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "AuthoritativeNotFound",
            Self::ConnectionFailed => "AuthoritativeConnectionFailed",
            Self::TimedOut => "AuthoritativeTimedOut",
            Self::Refused => "AuthoritativeRefused",
            Self::Busy => "AuthoritativeBusy",
            Self::ConnectionLimit => "PartnerConnectionLimit",
            Self::Policy => "AuthoritativePolicy",
        }
    }
}
impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "the authoritative server has no address",
            Self::ConnectionFailed => "no connection to the authoritative server",
            Self::TimedOut => "the authoritative server did not answer in time",
            Self::Refused => "the authoritative server refused to verify the key",
            Self::Busy => "too many verifications towards the authoritative server",
            Self::ConnectionLimit => "the partner has as many streams as it may have",
            Self::Policy => "policy forbids asking the authoritative server in the way it offers",
        })
    }
}

impl Output {
    fn ok(step: Step, peer: Option<&DomainName>) -> Self {
        Self::Step {
            step,
            peer: peer.cloned(),
            outcome: "Ok",
            text: String::new(),
        }
    }

    fn failed(fault: &Fault, peer: Option<&DomainName>) -> Self {
        Self::Step {
            step: fault.step(),
            peer: peer.cloned(),
            outcome: fault.label(),
            text: fault.to_string(),
        }
    }
}
