//! TLS: identities, verification, pins, DANE. The only room that knows rustls.
//!
//! A handshake accepts any certificate whose key the peer holds; whether its chain is trusted for a
//! domain is asked later, once per pair ([`Trust::judge`]). TLS 1.2 and 1.3 only (RFC 7590), no
//! session resumption, no compression, no renegotiation.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;

mod blanks;
pub mod certificate;
mod config;
pub mod constraints;
pub mod dane;
pub mod database;
pub mod fault;
pub mod handshake;
pub mod identity;
pub mod leaf;
#[cfg(test)]
pub(crate) mod pki;
pub mod roots;
mod self_issued;
mod stamp;
pub mod stream;
pub mod transport;
mod verifier;
pub mod verify;

pub use certificate::{CertificateError, SipUris, SpkiSha256, dns_names, not_after, spki_sha256};
pub use constraints::{ExcludedNames, issued_after};
pub use dane::{Tlsa, TlsaSet};
pub use database::{DatabaseTls, ServerVerification};
pub use fault::CertificateFault;
pub use handshake::{FirstByte, HandshakeError, Mode, accept, alert, connect, sniff};
pub use identity::{Identity, IdentityError};
pub use leaf::{LeafError, LeafIssuer};
pub use roots::{Roots, RootsError};
pub use self_issued::{AUTHORITY_VALID, OwnKey, SelfIssueError, excluded_names};
pub use stamp::TrustStamp;
pub use transport::Transport;
pub use verify::{KeyStanding, Role, Trust, TrustError, Verified, VerifiedBy};

/// What a finished handshake told, as the connection keeps it. The chain is as presented, unverified: who
/// trusts it for which domain is asked later, per pair.
#[derive(Clone, Copy, Debug)]
pub struct TlsFacts<'c> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: &'static str,
    /// End entity first; empty where none was presented.
    pub peer_chain: &'c [CertificateDer<'static>],
}

/// The one cryptographic provider: nothing depends on a process-wide default.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    &PROVIDER
}
