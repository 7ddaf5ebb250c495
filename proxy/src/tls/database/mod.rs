//! TLS towards a database: here the chain is judged in the handshake, before a password is sent.

use std::{io, sync::Arc};

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::{
        UnbufferedClientConnection, WebPkiServerVerifier,
        danger::{ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Roots, Transport,
    blanks::Blanks,
    certificate::{not_after, parse},
    provider,
    stream::TlsStream,
    verifier::{self, AcceptAnyCertificate},
};

/// What of the server's certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerVerification {
    /// Encryption alone.
    Nothing,
    /// Issued by an authority that counts, whatever its names.
    Chain,
    /// And one of its DNS names or IP addresses is the host's.
    Name,
}

/// A TLS client for a database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DatabaseTls {
    config: Arc<ClientConfig>,
}

/// Why there is no such client.
#[derive(Debug, thiserror::Error)]
#[error("no certificate of the database could be verified: {0}")]
pub struct DatabaseTlsError(String);

impl DatabaseTls {
    /// # Errors
    /// [`DatabaseTlsError`] where certificates are to be verified and `roots` is empty.
    pub fn new(demand: ServerVerification, roots: Roots) -> Result<Self, DatabaseTlsError> {
        let fault = |cause: &dyn std::fmt::Display| DatabaseTlsError(cause.to_string());
        let verifier: Arc<dyn ServerCertVerifier> = if demand == ServerVerification::Nothing {
            Arc::new(AcceptAnyCertificate)
        } else {
            let store = RootCertStore {
                roots: roots.anchors().flatten().cloned().collect(),
            };
            let public =
                WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(provider()))
                    .build()
                    .map_err(|cause| fault(&cause))?;
            Arc::new(SslModeVerifier {
                demand,
                roots,
                chain: public,
            })
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|cause| fault(&cause))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Makes the handshake; `host` is a name or an address.
    ///
    /// # Errors
    /// What fails in it, the certificate included.
    pub async fn connect<S>(self, io: S, host: &str) -> io::Result<Transport<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection =
            UnbufferedClientConnection::new(self.config, name).map_err(io::Error::other)?;
        let mut stream = Box::new(TlsStream::new(io, connection, Vec::new()));
        stream.handshake(Blanks::NONE).await?;
        Ok(Transport::Client(stream))
    }
}

/// `tls-server-end-point` (RFC 5929 section 4.1): the hash of the peer's certificate, by the hash
/// of its signature, at least SHA-256; none where the signature names no single hash.
pub(crate) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = parse(certificate).ok()?;
    let algorithm = parsed.signature_algorithm.algorithm.to_id_string();
    let hash = match algorithm.as_str() {
        // RSA with SHA-1 and SHA-256, ECDSA with the same.
        "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// Verifies as demanded. A certificate that was given as authority is trusted as it stands: databases
/// often have a self-signed one.
#[derive(Debug)]
struct SslModeVerifier {
    demand: ServerVerification,
    roots: Roots,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for SslModeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.roots.were_given(end_entity) {
            let end = not_after(end_entity).map_err(|_| CertificateError::BadEncoding)?;
            if end < Timestamp::now() {
                return Err(CertificateError::Expired.into());
            }
            if self.demand == ServerVerification::Name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is looked at after the chain.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.demand == ServerVerification::Chain => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    verifier::signatures_by!(verifier::possession);
}

#[cfg(test)]
mod tests;
