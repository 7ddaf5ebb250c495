//! The table by which a server behaves.

use std::net::SocketAddr;

use crate::peer::Identity;

/// What it does with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    Never,
    Offered,
    Required,
}

/// How a question is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    Invalid,
    /// An error with this condition.
    Error(&'static str),
    /// No answer at all.
    Never,
    /// The connection is ended without a word.
    Close,
}

/// How a [`PeerServer`] behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// `None`: it has no TLS.
    pub identity: Option<Identity>,
    pub encryption: Encryption,
    /// EXTERNAL is offered to whoever shows a certificate.
    pub external: bool,
    /// How `<auth/>` is answered: [`Verdict::Valid`] is success, an error names the SASL condition.
    pub external_verdict: Verdict,
    /// Dialback is announced.
    pub dialback: bool,
    /// `<errors/>` in it: several pairs on one stream.
    pub errors: bool,
    /// How `db:result` is answered. `None`: by asking the key's maker at [`Self::authority`].
    pub result: Option<Verdict>,
    /// Where keys sent to us are verified: the edge's listener.
    pub authority: Option<SocketAddr>,
    /// How `db:verify` is answered. `None`: by the keys given with [`PeerServer::made`].
    pub verify: Option<Verdict>,
    pub acks: bool,
    /// XEP-0288 is offered.
    pub bidi: bool,
    /// `max-bytes` of XEP-0478 that is told.
    pub max_bytes: Option<u64>,
    /// `idle-seconds` of XEP-0478 that is told.
    pub idle_seconds: Option<u64>,
    /// It ends its stream with `policy-violation` over a message with a longer body, in bytes.
    pub ends_over: Option<usize>,
    /// A stream whose `to` is not this very text is for nobody here: `host-unknown`.
    pub hosts: Option<&'static str>,
    /// As [`ServerTls::clients_of`](crate::peer::ServerTls::clients_of).
    pub clients_of: Option<String>,
}

impl Behaviour {
    /// A good server: TLS required, EXTERNAL, dialback for those without a certificate.
    pub fn good(identity: Identity) -> Self {
        Self {
            identity: Some(identity),
            encryption: Encryption::Required,
            external: true,
            external_verdict: Verdict::Valid,
            dialback: true,
            errors: true,
            result: Some(Verdict::Valid),
            authority: None,
            verify: None,
            acks: true,
            bidi: false,
            max_bytes: None,
            idle_seconds: None,
            ends_over: None,
            hosts: None,
            clients_of: None,
        }
    }

    /// TLS, no EXTERNAL.
    pub fn tls_dialback(identity: Identity) -> Self {
        Self {
            external: false,
            ..Self::good(identity)
        }
    }

    /// No TLS, dialback.
    pub fn plain() -> Self {
        Self {
            identity: None,
            encryption: Encryption::Never,
            external: false,
            external_verdict: Verdict::Valid,
            dialback: true,
            errors: true,
            result: Some(Verdict::Valid),
            authority: None,
            verify: None,
            acks: false,
            bidi: false,
            max_bytes: None,
            idle_seconds: None,
            ends_over: None,
            hosts: None,
            clients_of: None,
        }
    }
}
