//! A peer that verifies in the handshake, and ends TLS over a certificate of ours that it does not trust.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use xmpp_edge_tests::{
    peer::{Behaviour, Identity},
    pki::{Authority, Usage},
    rig::{ALICE, Scene},
};

use super::RIG;

/// Takes a client without certificate, and ends TLS over one that is not of its authority.
fn verifying(s: &Scene, version: &'static SupportedProtocolVersion) -> Result<ServerConfig> {
    let theirs = Authority::new("The Partner's Own Root");
    let leaf = theirs.issue(&[&s.domain], Usage::ServerAuth);
    let identity = Identity::of(&leaf)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        theirs.certificate().as_bytes(),
    )?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
    Ok(ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)?)
}

async fn is_tried_without_a_certificate(
    s: &Scene,
    version: &'static SupportedProtocolVersion,
) -> Result<()> {
    const PORT: u16 = 5510;
    s.unpublish();
    let dns = s.rig.lab.dns();
    dns.xmpps_server(&s.domain, 0, 0, PORT, &s.target());
    let listener = TcpListener::bind(s.at(PORT)).await?;
    let acceptor = TlsAcceptor::from(Arc::new(verifying(s, version)?));
    let mut inside = s.inside().await?;
    let id = s.fresh();
    inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
    let (first, _) = listener.accept().await?;
    let refused = acceptor.accept(first).await;
    ensure!(refused.is_err(), "a certificate of nobody was taken");
    let (second, _) = listener.accept().await?;
    let taken = acceptor.accept(second).await.context("the second try")?;
    let shown = taken.get_ref().1.peer_certificates();
    ensure!(shown.is_none(), "it showed a certificate again");
    // The alert is told by name.
    let edge = s.rig.edge.lock().await;
    let status = edge.status().await?.to_string();
    ensure!(
        status.contains("UnknownCA"),
        "the alert is not told: {status}"
    );
    Ok(())
}

#[test]
fn s5_a_peer_that_ends_tls_1_3_over_our_certificate_is_tried_without_one() {
    RIG.test(5, async |s| is_tried_without_a_certificate(s, &TLS13).await);
}

#[test]
fn s5_a_peer_that_ends_tls_1_2_over_our_certificate_is_tried_without_one() {
    RIG.test(6, async |s| is_tried_without_a_certificate(s, &TLS12).await);
}

#[test]
fn s5_behind_starttls_the_message_arrives_by_dialback_and_without_our_certificate() {
    RIG.test(8, async |s| {
        let outside = s
            .serve(Behaviour {
                clients_of: Some(Authority::new("The Partner's Own Root").certificate()),
                ..s.good_behaviour()?
            })
            .await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await
    });
}
