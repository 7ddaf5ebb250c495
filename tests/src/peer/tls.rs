//! TLS of the scripted peer: shows what it is told to show and accepts whatever it is shown. What
//! the other side showed is kept for the test to judge.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};
use xmpp_edge_crds::domain::DomainName;

use crate::pki::Leaf;

/// A chain, end entity first, with its key.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Identity {
    /// Reads PEM; `leaf.certificate` may hold a whole chain.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(leaf: &Leaf) -> Result<Self> {
        Ok(Self {
            chain: CertificateDer::pem_slice_iter(leaf.certificate.as_bytes())
                .collect::<Result<_, _>>()
                .context("certificates in PEM")?,
            key: PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).context("a key in PEM")?,
        })
    }
}

/// How the peer acts as TLS client.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Server name indication; `None` sends none, as Prosody 0.12 does.
    pub sni: Option<String>,
    pub alpn: Vec<Vec<u8>>,
    pub identity: Option<Identity>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

impl ClientTls {
    /// Shows `identity` (where there is one) and names `sni`.
    pub fn new(sni: Option<&str>, identity: Option<Identity>) -> Self {
        Self {
            sni: sni.map(str::to_owned),
            alpn: Vec::new(),
            identity,
            versions: vec![&TLS13, &TLS12],
        }
    }

    /// As for direct TLS (XEP-0368).
    #[must_use]
    pub fn with_alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    pub(crate) fn config(&self) -> Result<(ClientConfig, ServerName<'static>)> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
        let mut config = match &self.identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
            }
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = self.sni.is_some();
        config.alpn_protocols = self.alpn.clone();
        config.resumption = rustls::client::Resumption::disabled();
        let name = match &self.sni {
            // TLS knows names in ASCII alone.
            Some(sni) if !sni.is_ascii() => DomainName::parse(sni)?.into(),
            Some(sni) => sni.clone(),
            None => "unnamed.invalid".into(),
        };
        Ok((config, ServerName::try_from(name)?))
    }
}

/// How the peer acts as TLS server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub identity: Identity,
    pub alpn: Vec<Vec<u8>>,
    /// Whether a client certificate is asked for (never demanded).
    pub ask: bool,
    /// PEM of the one authority whose client certificates it takes: over another's it ends TLS. `None`: any.
    pub clients_of: Option<String>,
}

impl ServerTls {
    /// Shows `identity` and asks for a certificate.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            alpn: Vec::new(),
            ask: true,
            clients_of: None,
        }
    }

    pub(crate) fn config(&self) -> Result<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        let builder = match &self.clients_of {
            _ if !self.ask => builder.with_no_client_auth(),
            None => builder.with_client_cert_verifier(Arc::new(AnyClient(provider))),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
            }
        };
        let Identity { chain, key } = self.identity.clone();
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = self.alpn.clone();
        Ok(config)
    }
}

/// What a handshake agreed on, and what the other side showed.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub version: Option<rustls::ProtocolVersion>,
    pub alpn: Option<String>,
    /// As server: the name that the client asked for.
    pub sni: Option<String>,
    /// The other side's certificates, end entity first.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Session {
    /// The dNSNames of the other side's certificate.
    ///
    /// # Errors
    /// When it showed none that can be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let der = self.certificates.first().context("no certificate")?;
        let (_, certificate) = X509Certificate::from_der(der)?;
        let names = certificate
            .subject_alternative_name()?
            .context("no subjectAltName")?;
        Ok(names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect())
    }
}

fn signatures(provider: &CryptoProvider) -> Vec<SignatureScheme> {
    provider
        .signature_verification_algorithms
        .supported_schemes()
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signatures(&self.0)
    }
}

#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signatures(&self.0)
    }
}
