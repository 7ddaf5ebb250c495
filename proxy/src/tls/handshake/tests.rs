#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::{
    pki::{Subject, authority, issue},
    provider,
    verifier::AcceptAnyCertificate,
};

fn identity(name: &'static str) -> Arc<Identity> {
    let issued = issue(
        &authority("authority"),
        &Subject {
            names: &[name],
            ..Subject::default()
        },
    );
    Arc::new(Identity::from_pem(&issued.pem, &issued.key_pem, "test").unwrap())
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

type TransportPair = (Transport<DuplexStream>, Transport<DuplexStream>);

async fn shake(
    client: Option<&Identity>,
    server: Arc<Identity>,
    mode: Mode,
) -> Result<TransportPair, HandshakeError> {
    let (near, far) = duplex(16_384);
    let partner = domain("Partner.example");
    let (client, server) = tokio::join!(
        connect(near, client, &partner, mode, soon()),
        accept(far, mode, soon(), |sni| (sni == Some("partner.example"))
            .then_some(server)),
    );
    Ok((client?, server?))
}

/// T-10, T-14, and what the judgement needs afterwards.
#[tokio::test]
async fn both_sides_learn_what_the_other_presented() {
    let (ours, theirs) = (identity("org.example"), identity("partner.example"));
    for mode in [Mode::StartTls, Mode::Direct] {
        let (client, server) = shake(Some(&ours), Arc::clone(&theirs), mode).await.unwrap();
        let (seen_by_client, seen_by_server) = (client.facts().unwrap(), server.facts().unwrap());
        assert_eq!(seen_by_client.peer_chain, theirs.chain());
        assert_eq!(seen_by_server.peer_chain, ours.chain());
        assert_eq!(seen_by_client.version, "TLSv1.3");
        assert!(
            seen_by_client.cipher.starts_with("TLS_"),
            "{}",
            seen_by_client.cipher
        );
    }
}

/// E-13: TLS itself demands nothing.
#[tokio::test]
async fn a_client_without_a_certificate_is_served() {
    let (_, server) = shake(None, identity("partner.example"), Mode::StartTls)
        .await
        .unwrap();
    assert!(server.facts().unwrap().peer_chain.is_empty());
}

#[tokio::test]
async fn bytes_cross_both_ways_and_shutting_down_is_seen() {
    let (mut client, mut server) = shake(None, identity("partner.example"), Mode::Direct)
        .await
        .unwrap();
    client.write_all(b"there").await.unwrap();
    client.flush().await.unwrap();
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"there");
    server.write_all(b"back!").await.unwrap();
    server.shutdown().await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"back!");
    assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_refused() {
    let (near, far) = duplex(16_384);
    let other = domain("other.example");
    let (client, server) = tokio::join!(
        connect(near, None, &other, Mode::Direct, soon()),
        accept(far, Mode::Direct, soon(), |_| None),
    );
    assert!(client.is_err());
    let fault = server.err().unwrap();
    assert!(
        matches!(&fault, HandshakeError::NoIdentity { sni: Some(sni) } if sni == "other.example")
    );
}

/// T-11
#[tokio::test]
async fn only_a_list_of_foreign_protocols_is_refused_on_direct_tls() {
    for (offered, mode, works) in [
        (vec!["h2"], Mode::Direct, false),
        (vec!["h2"], Mode::StartTls, true),
        (vec!["h2", "xmpp-server"], Mode::Direct, true),
        (vec![], Mode::Direct, true),
        (vec!["xmpp-server"], Mode::StartTls, true),
    ] {
        let (near, far) = duplex(16_384);
        let mut config = client_builder().unwrap().with_no_client_auth();
        config.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let name = ServerName::try_from("partner.example").unwrap();
        let server = identity("partner.example");
        let (client, server) = tokio::join!(
            TlsConnector::from(Arc::new(config)).connect(name, near),
            accept(far, mode, soon(), |_| Some(server)),
        );
        assert_eq!(server.is_ok(), works, "{offered:?} {mode:?}");
        if !works {
            let error = client.unwrap_err().to_string();
            assert!(error.contains("NoApplicationProtocol"), "{error}");
        }
    }
}

/// T-12, T-17
#[tokio::test]
async fn what_is_not_tls_ends_at_once() {
    let begin = b"<?xml version='1.0'?><stream:stream>".as_slice();
    for bytes in [
        begin,
        &[0x15, 3, 3, 0, 2, 2, 40],
        &[0x16, 3, 1, 0, 4, 1, 0, 0, 0],
        &[0x80, 46, 1, 3, 1],
    ] {
        let (mut near, far) = duplex(16_384);
        near.write_all(bytes).await.unwrap();
        drop(near);
        let result = accept(far, Mode::Direct, soon(), |_| None).await;
        assert!(!matches!(result, Ok(_) | Err(HandshakeError::Timeout)));
    }
}

/// T-16
#[tokio::test]
async fn a_handshake_that_stalls_ends_at_its_deadline() {
    let (mut near, far) = duplex(16_384);
    near.write_all(&[0x16, 3, 1]).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(50);
    let result = accept(far, Mode::Direct, deadline, |_| None).await;
    assert!(matches!(result, Err(HandshakeError::Timeout)));
    let (near, _far) = duplex(16_384);
    let result = connect(near, None, &domain("a.example"), Mode::Direct, deadline).await;
    assert!(matches!(result, Err(HandshakeError::Timeout)));
}

/// T-03: what was pipelined before the handshake is no part of it.
#[tokio::test]
async fn plaintext_in_front_of_the_handshake_spoils_it() {
    let (mut near, far) = duplex(16_384);
    near.write_all(b"<message/>").await.unwrap();
    let partner = domain("partner.example");
    let server = identity("partner.example");
    let (client, server) = tokio::join!(
        connect(near, None, &partner, Mode::StartTls, soon()),
        accept(far, Mode::StartTls, soon(), |_| Some(server)),
    );
    assert!(client.is_err() && server.is_err());
}

/// Some servers end the line behind `<proceed/>` or `<starttls/>`; it comes with the element or later.
#[tokio::test]
async fn white_space_behind_starttls_is_read_over_and_nothing_else_is() {
    for (before, mode, works) in [
        (&["\n"][..], Mode::StartTls, true),
        (&["\r\n", " ", "\t"], Mode::StartTls, true),
        (&["                "], Mode::StartTls, true),
        (&["        ", "         "], Mode::StartTls, false),
        (&["<"], Mode::StartTls, false),
        (&["\n", "<"], Mode::StartTls, false),
        (&["\n"], Mode::Direct, false),
    ] {
        for of_the_client in [true, false] {
            let (mut near, mut far) = duplex(16_384);
            let blanks = async |to: &mut DuplexStream| {
                for part in before {
                    to.write_all(part.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (client, server) = (identity("org.example"), identity("partner.example"));
            let partner = domain("partner.example");
            let dials = async {
                if of_the_client {
                    blanks(&mut near).await;
                }
                connect(near, Some(&client), &partner, mode, soon()).await
            };
            let takes = async {
                if !of_the_client {
                    blanks(&mut far).await;
                }
                accept(far, mode, soon(), |_| Some(server)).await
            };
            let (client, server) = tokio::join!(dials, takes);
            let ours = if of_the_client {
                server.map(|_| ())
            } else {
                client.map(|_| ())
            };
            assert_eq!(ours.is_ok(), works, "{before:?} {mode:?}: {ours:?}");
            if !works {
                assert!(matches!(ours, Err(HandshakeError::NotTls)), "{ours:?}");
            }
        }
    }
}

/// T-09
#[tokio::test]
async fn tls_1_2_works_and_is_told() {
    let (near, far) = duplex(16_384);
    let config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate))
        .with_no_client_auth();
    let name = ServerName::try_from("partner.example").unwrap();
    let server = identity("partner.example");
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(config)).connect(name, near),
        accept(far, Mode::StartTls, soon(), |_| Some(server)),
    );
    client.unwrap();
    assert_eq!(server.unwrap().facts().unwrap().version, "TLSv1.2");
}

#[tokio::test]
async fn sniffing_takes_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (sent, expected) in [
        (b"\x16\x03".as_slice(), FirstByte::Tls),
        (b"<?".as_slice(), FirstByte::Other(b'<')),
        (b"".as_slice(), FirstByte::Closed),
    ] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(sniff(&server).await.unwrap(), expected);
        let mut left = Vec::new();
        server.read_to_end(&mut left).await.unwrap();
        assert_eq!(left, sent);
    }
}

/// A certificate of any form, with its key in one file.
fn of_file(text: &str) -> Arc<Identity> {
    Arc::new(Identity::from_pem(text, text, "fixture").unwrap())
}

/// s6: in the handshake the key is what counts. What nobody can trust leaves dialback, and pins.
#[tokio::test]
async fn s6_a_certificate_of_any_form_is_taken_and_its_key_is_proven() {
    use rcgen::{CertificateParams, CustomExtension, KeyPair};
    use xmpp_edge_crds::edge_config::PartnerTrust;

    use crate::tls::{Role, Roots, Trust, VerifiedBy, spki_sha256};

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["partner.example".to_owned()]).unwrap();
    let oid = [1, 3, 6, 1, 4, 1, 55_555, 1];
    let mut unknown = CustomExtension::from_oid_content(&oid, vec![5, 0]);
    unknown.set_criticality(true);
    params.custom_extensions.push(unknown);
    let unknown = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
    for (what, text) in [
        ("version 1", include_str!("../fixtures/v1.pem")),
        ("version 1, RSA", include_str!("../fixtures/v1-rsa.pem")),
        ("unknown critical extension", &unknown),
    ] {
        let theirs = of_file(text);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            // As server, and as client.
            for as_client in [false, true] {
                let seen = presented(&theirs, version, as_client).await;
                let chain = seen.unwrap_or_else(|fault| panic!("{what}, {version:?}: {fault}"));
                assert_eq!(chain, theirs.chain(), "{what}, {version:?}");
                let partner = domain("partner.example");
                let nobody = Trust::new(Roots::default());
                let unpinned = nobody.judge(&partner, &chain, Role::Server, None);
                assert!(unpinned.is_err(), "{what}");
                let pins = PartnerTrust {
                    pinned_spki_sha256: vec![spki_sha256(&chain[0]).unwrap().to_string()],
                    ..PartnerTrust::default()
                };
                let pinned = Trust::of_partner(&pins, &Roots::default(), "test").unwrap();
                let verified = pinned
                    .judge(&partner, &chain, Role::Server, None)
                    .unwrap_or_else(|fault| panic!("{what}: {fault}"));
                assert_eq!(verified.by, VerifiedBy::Pin, "{what}");
            }
        }
    }
}

/// s6: who does not hold the key is refused, whatever form the certificate has.
#[tokio::test]
async fn s6_a_certificate_without_its_key_ends_the_handshake() {
    let (v1, other) = (
        of_file(include_str!("../fixtures/v1.pem")),
        identity("partner.example"),
    );
    let stolen = CertifiedKey::new(v1.chain().to_vec(), Arc::clone(&other.certified().key));
    let stolen = crate::tls::config::Configurations::new(&Arc::new(stolen)).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (_, ours) = connected(stolen.server(false), version).await;
        assert!(ours.is_err(), "{version:?}");
    }
}

/// The same configuration for one version of TLS.
fn limited(
    config: Arc<rustls::ServerConfig>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<rustls::ServerConfig> {
    let mut limited = rustls::ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(Arc::new(AcceptAnyCertificate))
        .with_cert_resolver(Arc::clone(&config.cert_resolver));
    limited.send_tls13_tickets = 0;
    Arc::new(limited)
}

/// What comes of our connection to a server of this configuration, which is `partner.example`.
async fn connected(
    config: Arc<rustls::ServerConfig>,
    version: &'static rustls::SupportedProtocolVersion,
) -> (DomainName, Result<Transport<DuplexStream>, HandshakeError>) {
    let (near, far) = duplex(16_384);
    let partner = domain("partner.example");
    let acceptor = tokio_rustls::TlsAcceptor::from(limited(config, version));
    let (ours, _) = tokio::join!(
        connect(near, None, &partner, Mode::StartTls, soon()),
        acceptor.accept(far),
    );
    (partner, ours)
}

/// What of `theirs` the other side, ours, was presented.
async fn presented(
    theirs: &Arc<Identity>,
    version: &'static rustls::SupportedProtocolVersion,
    as_client: bool,
) -> Result<Vec<rustls_pki_types::CertificateDer<'static>>, String> {
    let (near, far) = duplex(16_384);
    let partner = domain("partner.example");
    let transport = if as_client {
        let ours = identity("partner.example");
        let client = rustls::ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(crate::tls::verifier::AcceptAnyCertificate))
            .with_client_cert_resolver(Arc::clone(&theirs.client().client_auth_cert_resolver));
        let name = rustls_pki_types::ServerName::try_from("partner.example").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let (server, client) = tokio::join!(
            accept(far, Mode::StartTls, soon(), |_| Some(ours)),
            connector.connect(name, near),
        );
        let server = server.map_err(|fault| fault.to_string())?;
        client.map_err(|fault| fault.to_string())?;
        server
    } else {
        let config = limited(theirs.server(false), version);
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        let (client, server) = tokio::join!(
            connect(near, None, &partner, Mode::StartTls, soon()),
            acceptor.accept(far),
        );
        let client = client.map_err(|fault| fault.to_string())?;
        server.map_err(|fault| fault.to_string())?;
        client
    };
    Ok(transport.peer_chain().to_vec())
}

/// s6: RSA above 8192 bits is not verified; it ends no handshake, and proves nothing.
#[tokio::test]
async fn s6_a_large_rsa_key_is_named_with_its_size_after_the_handshake() {
    use xmpp_edge_crds::{edge_config::PartnerTrust, pem};

    use crate::tls::{Role, Roots, Trust, spki_sha256};

    let chain = pem::certificates(include_str!("../fixtures/rsa8200.pem")).unwrap();
    // Nobody looks at its signatures, so that another key may make them.
    let other = of_file(include_str!("../fixtures/v1-rsa.pem"));
    let large = CertifiedKey::new(chain.clone(), Arc::clone(&other.certified().key));
    let large = crate::tls::config::Configurations::new(&Arc::new(large)).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (partner, ours) = connected(large.server(false), version).await;
        let seen = ours.unwrap().peer_chain().to_vec();
        let pins = PartnerTrust {
            pinned_spki_sha256: vec![spki_sha256(&seen[0]).unwrap().to_string()],
            ..PartnerTrust::default()
        };
        let pinned = Trust::of_partner(&pins, &Roots::default(), "test").unwrap();
        let fault = pinned
            .judge(&partner, &seen, Role::Server, None)
            .unwrap_err();
        assert_eq!(fault.label(), "CertificateKeyTooLong");
        assert!(fault.to_string().contains("8200 bits"), "{fault}");
    }
}

/// s6: a certificate that nobody can read ends no handshake, and proves nothing, a pinned key neither.
#[tokio::test]
async fn s6_a_certificate_that_cannot_be_read_leaves_dialback() {
    use xmpp_edge_crds::edge_config::PartnerTrust;

    use crate::tls::{Role, Roots, Trust, spki_sha256};

    let good = of_file(include_str!("../fixtures/v1.pem"));
    let mut der = good.chain()[0].to_vec();
    // One of its dates, a UTCTime, is none.
    let tag = der.windows(2).position(|pair| pair == [0x17, 13]).unwrap();
    der[tag + 14] = b'?';
    let chain = vec![rustls_pki_types::CertificateDer::from(der)];
    let odd = CertifiedKey::new(chain, Arc::clone(&good.certified().key));
    let odd = crate::tls::config::Configurations::new(&Arc::new(odd)).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (partner, ours) = connected(odd.server(false), version).await;
        let seen = ours.unwrap().peer_chain().to_vec();
        let pins = PartnerTrust {
            pinned_spki_sha256: vec![spki_sha256(&good.chain()[0]).unwrap().to_string()],
            ..PartnerTrust::default()
        };
        let pinned = Trust::of_partner(&pins, &Roots::default(), "test").unwrap();
        let fault = pinned
            .judge(&partner, &seen, Role::Server, None)
            .unwrap_err();
        assert_eq!(fault.label(), "CertificateMalformed");
    }
}

/// s6: RSA below 2048 bits is no proof, and it is said how many bits there are; dialback goes on.
#[test]
fn s6_a_small_rsa_key_is_named_with_its_size() {
    use xmpp_edge_crds::{edge_config::PartnerTrust, pem};

    use crate::tls::{Role, Roots, Trust, spki_sha256};

    let chain = pem::certificates(include_str!("../fixtures/rsa1024.pem")).unwrap();
    let pins = PartnerTrust {
        pinned_spki_sha256: vec![spki_sha256(&chain[0]).unwrap().to_string()],
        ..PartnerTrust::default()
    };
    let pinned = Trust::of_partner(&pins, &Roots::default(), "test").unwrap();
    let fault = pinned
        .judge(&domain("partner.example"), &chain, Role::Client, None)
        .unwrap_err();
    assert_eq!(fault.label(), "CertificateWeakKey");
    assert!(fault.to_string().contains("1024 bits"), "{fault}");
}
