//! TLS of a pod's admin port, as a proxy speaks it: with a leaf of the pool's own intermediate.

use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;
use xmpp_edge_crds::edge_config::admin_name;

use super::pools::text;

/// What a pod of a pool shows, given the pool's intermediate.
#[derive(Clone)]
pub struct AdminTls {
    pub secrets: Api<Secret>,
    pub namespace: String,
    /// The pool that it says to be of.
    pub pool: String,
    /// The pool whose intermediate it has.
    pub issuer: String,
}

impl AdminTls {
    /// As it shows itself now.
    ///
    /// # Errors
    /// When the intermediate is not there (yet).
    pub async fn acceptor(&self) -> Result<TlsAcceptor> {
        let secret = format!("{}-internal-issuer", self.issuer);
        let secret = self.secrets.get(&secret).await?;
        let certificate = text(&secret, "tls.crt").context("a certificate")?;
        let key = KeyPair::from_pem(&text(&secret, "tls.key").context("a key")?)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        let key = KeyPair::generate()?;
        let name = admin_name(&self.namespace, &self.pool);
        let mut params = CertificateParams::new(vec![name])?;
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &issuer)?;
        let above = CertificateDer::from_pem_slice(certificate.as_bytes())?;
        let chain = vec![leaf.der().clone(), above];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
