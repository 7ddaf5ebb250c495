//! TLS: identities, verification, pins, DANE. The only room that knows rustls.

use rustls_pki_types::CertificateDer;

/// What a finished handshake told. The chain is as presented, unverified: who trusts it for which
/// domain is asked later, per pair.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: &'static str,
    /// End entity first; empty where none was presented.
    pub peer_chain: Vec<CertificateDer<'static>>,
    /// What the client asked for; only on the server's side.
    pub sni: Option<String>,
}
