//! The TLS configurations that present one identity.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{provider, verifier::AcceptAnyCertificate};

/// ALPN protocol of s2s (XEP-0368 section 3).
pub(super) const ALPN: &[u8] = b"xmpp-server";

/// What one identity is presented with; made once, shared by its streams.
pub(super) struct Configurations {
    direct: Arc<ServerConfig>,
    starttls: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Configurations {
    pub(super) fn new(certified: &Arc<CertifiedKey>) -> Result<Self, String> {
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(certified)));
        let mut starttls = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|cause| cause.to_string())?
            .with_client_cert_verifier(Arc::new(AcceptAnyCertificate))
            .with_cert_resolver(resolver.clone());
        // A resumed session would carry an old judgement, and each ticket costs memory.
        starttls.session_storage = Arc::new(NoServerSessionStorage {});
        starttls.send_tls13_tickets = 0;
        // All that is offered is sound; which of it is the same for every peer.
        starttls.ignore_client_order = true;
        let mut direct = starttls.clone();
        direct.alpn_protocols = vec![ALPN.to_vec()];
        let client = client_builder()
            .map_err(|cause| cause.to_string())?
            .with_client_cert_resolver(resolver);
        Ok(Self {
            direct: Arc::new(direct),
            starttls: Arc::new(starttls),
            client: Arc::new(without_resumption(client)),
        })
    }

    pub(super) fn server(&self, direct: bool) -> Arc<ServerConfig> {
        Arc::clone(if direct { &self.direct } else { &self.starttls })
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }
}

pub(super) fn client_builder()
-> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate)))
}

fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}
