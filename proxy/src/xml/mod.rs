//! XML as XMPP restricts it (RFC 6120 section 11): bytes in, checked stanzas out.
//!
//! One pass lexes, checks and frames; nothing is lexed twice. [`Scanner`] finds and checks the
//! elements of a stream, [`Element`] is the small tree for negotiation, [`rewrite`] changes one
//! stanza that may not go on as it came. No sockets, no clocks, no policy here.

pub mod children;
pub mod document;
pub mod element;
pub mod error;
pub mod header;
pub mod limits;
pub mod rewrite;
pub mod scanner;
pub mod stanza;
pub mod stanza_error;
pub mod text;

pub use document::{DocumentFault, DocumentLimits, read_document};
pub use element::Element;
pub use error::XmlError;
pub use header::StreamHeader;
pub use limits::Limits;
pub use scanner::{FaultyStanza, Item, Other, Scanner};
pub use stanza::{Form, Stanza, StanzaKind};
pub use stanza_error::{Condition, ErrorType};

/// Namespace names that the grammar itself knows.
pub mod ns {
    /// RFC 6120 section 4.8.1.
    pub const STREAM: &str = "http://etherx.jabber.org/streams";
    /// RFC 6120 section 4.9.2: what stands in a stream error.
    pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    /// RFC 6120 section 4.8.3: content of a server-to-server stream.
    pub const SERVER: &str = "jabber:server";
    /// RFC 6120 section 4.8.3: content of a client-to-server stream.
    pub const CLIENT: &str = "jabber:client";
    /// XEP-0220 section 2.1.
    pub const DIALBACK: &str = "jabber:server:dialback";
    /// RFC 6120 section 8.3.3.
    pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    /// The reason of a refusal, see `docs/` and the design's section 2 of behaviour.
    pub const EDGE_ERRORS: &str = "urn:xmpp-edge:errors:0";
    /// Bound to `xml` by definition (Namespaces in XML 1.0, section 3).
    pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
    /// Bound to `xmlns` by definition (Namespaces in XML 1.0, section 3).
    pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
}
