//! A scripted XMPP server: one [`Peer`] is one connection, in either role, whose every byte the
//! test decides; a [`PeerServer`] is a listening server that behaves as a table says and keeps what
//! it received.
//!
//! Nothing here is a correct XMPP server: it does what it is told, wrong things included. Every
//! wait has a deadline, so that a test ends with an error and never hangs.

pub mod hello;
mod initiate;
mod open;
mod server;
mod tls;
mod wire;

pub use initiate::{Features, Login};
pub use open::Open;
pub use server::{Behaviour, Command, Encryption, PeerServer, Received, Seen, Verdict};
pub use tls::{ClientTls, Identity, ServerTls, Session};
pub use wire::{Event, PATIENCE, Peer};

/// Namespaces as the peer writes and reads them.
pub mod ns {
    pub const SERVER: &str = "jabber:server";
    pub const STREAM: &str = "http://etherx.jabber.org/streams";
    pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
    pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    pub const DIALBACK: &str = "jabber:server:dialback";
    pub const DIALBACK_FEATURE: &str = "urn:xmpp:features:dialback";
    pub const BIDI: &str = "urn:xmpp:bidi";
    pub const BIDI_FEATURE: &str = "urn:xmpp:features:bidi";
    pub const ACKS: &str = "urn:xmpp:sm:3";
    pub const LIMITS: &str = "urn:xmpp:stream-limits:0";
}
