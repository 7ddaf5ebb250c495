//! What a TLS handshake takes by itself: no socket, no stream, no policy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

use crate::load::Partner;

/// The time that the server's side of `count` handshakes took: TLS 1.3, P-256, the client's chain judged.
pub fn own_side(partner: &Partner, count: u64) -> Result<Duration> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = || -> Result<Vec<_>> {
        let certificates = CertificateDer::pem_slice_iter(partner.chain.as_bytes());
        Ok(certificates.collect::<Result<_, _>>()?)
    };
    let key = || PrivateKeyDer::from_pem_slice(partner.key.as_bytes());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        partner.authority.as_bytes(),
    )?)?;
    let roots = Arc::new(roots);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain()?, key()?)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain()?, key()?)?;
    let (server, client) = (Arc::new(server), Arc::new(client));
    let name = ServerName::try_from("partner.example")?;
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        let mut client = ClientConnection::new(Arc::clone(&client), name.clone())?;
        let mut server = ServerConnection::new(Arc::clone(&server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire)?;
            }
            ensure!(!wire.is_empty() || server.wants_write(), "no handshake");
            let began = Instant::now();
            let mut rest = &*wire;
            while !rest.is_empty() {
                server.read_tls(&mut rest)?;
                server.process_new_packets()?;
            }
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer)?;
            }
            spent += began.elapsed();
            let mut rest = &*answer;
            while !rest.is_empty() {
                client.read_tls(&mut rest)?;
                client.process_new_packets()?;
            }
        }
    }
    Ok(spent)
}
