//! TLS towards the pods of one pool: what they show comes from the intermediate that this pool's pods have,
//! and nobody else.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};
use xmpp_edge_crds::{
    edge_config::admin_name,
    pem::{self, PemError},
};

/// Why there is no TLS with a pod.
#[derive(Debug, thiserror::Error)]
pub enum PodTlsError {
    #[error("Secret {0:?}, from which its certificate comes, is not there yet")]
    NoIssuer(String),
    #[error("the certificate of Secret {secret:?} cannot be used: {fault}")]
    Issuer { secret: String, fault: PemError },
    #[error("{0}")]
    Setup(#[from] rustls::Error),
    #[error("{0}")]
    Name(#[from] InvalidDnsNameError),
    #[error(
        "it does not prove by TLS that it is a pod of this pool ({0}): a pod that has not been given the newest intermediate yet, a proxy of an older version, or somebody else"
    )]
    Handshake(std::io::Error),
}

/// Whom to expect.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodTls<'a> {
    pub(super) namespace: &'a str,
    pub(super) pool: &'a str,
    /// PEM of the pool's intermediate, where it is there.
    pub(super) issuer: Option<&'a str>,
}

impl PodTls<'_> {
    /// Shakes hands. Nothing was said before it is known who answers.
    pub(super) async fn connect<S>(&self, socket: S) -> Result<TlsStream<S>, PodTlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(admin_name(self.namespace, self.pool))?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        let connected = connector.connect(name, socket).await;
        connected.map_err(PodTlsError::Handshake)
    }

    fn config(&self) -> Result<ClientConfig, PodTlsError> {
        let secret = || issuer_secret(self.pool);
        let issuer = self.issuer.ok_or_else(|| PodTlsError::NoIssuer(secret()))?;
        let certificates = pem::certificates(issuer).map_err(|fault| PodTlsError::Issuer {
            secret: secret(),
            fault,
        })?;
        let mut roots = RootCertStore::empty();
        // It stands first, and trust ends there: the internal CA signs for other pools too.
        for certificate in certificates.into_iter().take(1) {
            roots.add(certificate)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// Name of the Secret with a pool's intermediate.
pub(super) fn issuer_secret(pool: &str) -> String {
    format!("{pool}-internal-issuer")
}
