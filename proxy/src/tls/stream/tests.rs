#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls::{
    pki::{Subject, authority, issue},
    provider,
};

type Ours<C> = TlsStream<DuplexStream, C>;

/// Configurations of both sides for `partner.example`.
fn configurations(
    version: &'static SupportedProtocolVersion,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let authority = authority("authority");
    let issued = issue(
        &authority,
        &Subject {
            names: &["partner.example"],
            ..Subject::default()
        },
    );
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(issued.pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain,
            PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    // As ours are configured. Who sends tickets waits for the client to take them.
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("partner.example").unwrap()
}

/// Our server, and rustls's own client of the other library.
async fn our_server(
    version: &'static SupportedProtocolVersion,
    pipe: usize,
) -> (
    Ours<UnbufferedServerConnection>,
    tokio_rustls::client::TlsStream<DuplexStream>,
) {
    let (server, client) = configurations(version);
    let (near, far) = duplex(pipe);
    let connection = UnbufferedServerConnection::new(server).unwrap();
    let mut ours = TlsStream::new(near, connection, Vec::new());
    let (handshake, theirs) = tokio::join!(
        ours.handshake(Blanks::NONE),
        TlsConnector::from(client).connect(name(), far),
    );
    handshake.unwrap();
    (ours, theirs.unwrap())
}

/// Our client, and the other library's server, which sends session tickets.
async fn our_client(
    version: &'static SupportedProtocolVersion,
    pipe: usize,
) -> (
    Ours<UnbufferedClientConnection>,
    tokio_rustls::server::TlsStream<DuplexStream>,
) {
    let (server, client) = configurations(version);
    let mut server = ServerConfig::clone(&server);
    // Written before anyone reads them.
    server.send_tls13_tickets = if pipe < 4096 { 0 } else { 2 };
    let (near, far) = duplex(pipe);
    let connection = UnbufferedClientConnection::new(client, name()).unwrap();
    let mut ours = TlsStream::new(near, connection, Vec::new());
    let (handshake, theirs) = tokio::join!(
        ours.handshake(Blanks::NONE),
        TlsAcceptor::from(Arc::new(server)).accept(far)
    );
    handshake.unwrap();
    (ours, theirs.unwrap())
}

fn holds_nothing<C>(stream: &Ours<C>) -> bool {
    stream.incoming.capacity() == 0
        && stream.plain.capacity() == 0
        && stream.outgoing.bytes.capacity() == 0
}

/// Sends from `from` to `to` and compares; reads in pieces of every size up to `piece`.
async fn cross<A, B>(from: &mut A, to: &mut B, bytes: usize, piece: usize)
where
    A: AsyncWrite + Unpin,
    B: AsyncRead + Unpin,
{
    let sent: Vec<u8> = (0..bytes).map(|n| (n * 31 % 251) as u8).collect();
    let write = async {
        from.write_all(&sent).await.unwrap();
        from.flush().await.unwrap();
    };
    let read = async {
        let mut seen = Vec::new();
        let mut buffer = vec![0; piece];
        while seen.len() < bytes {
            let most = 1 + seen.len() % piece;
            let count = to.read(&mut buffer[..most]).await.unwrap();
            assert_ne!(count, 0);
            seen.extend_from_slice(&buffer[..count]);
        }
        seen
    };
    let ((), seen) = tokio::join!(write, read);
    assert!(seen == sent);
}

/// Pipes of every kind: a record in one piece, in many, byte by byte.
#[tokio::test]
async fn whatever_the_pieces_all_bytes_cross_in_order() {
    for version in [&TLS12, &TLS13] {
        for (pipe, bytes, piece) in [
            (1, 300, 7),
            (100, 40_000, 1000),
            (1 << 20, 500_000, 100),
            (20_000, 500_000, 70_000),
        ] {
            let (mut ours, mut theirs) = our_server(version, pipe).await;
            cross(&mut theirs, &mut ours, bytes, piece).await;
            cross(&mut ours, &mut theirs, bytes, piece).await;
            let (mut ours, mut theirs) = our_client(version, pipe).await;
            cross(&mut ours, &mut theirs, bytes, piece).await;
            cross(&mut theirs, &mut ours, bytes, piece).await;
        }
    }
}

#[tokio::test]
async fn an_idle_stream_holds_no_buffer() {
    let (mut ours, mut theirs) = our_server(&TLS13, 700).await;
    assert!(holds_nothing(&ours));
    cross(&mut theirs, &mut ours, 100_000, 100).await;
    assert!(holds_nothing(&ours));
    cross(&mut ours, &mut theirs, 100_000, 100).await;
    assert!(holds_nothing(&ours));
}

/// A socket that takes nothing more bounds what is sealed ahead.
#[tokio::test]
async fn a_peer_that_does_not_read_stops_the_writer() {
    let (mut ours, _theirs) = our_server(&TLS13, 1000).await;
    let block = vec![7; 1 << 20];
    let all = ours.write_all(&block);
    let ended = tokio::time::timeout(Duration::from_millis(50), all).await;
    assert!(ended.is_err());
    assert!(ours.outgoing.rest().len() <= SEALED);
}

/// RFC 8446 section 4.6.3: the peer changes its keys and asks us to change ours.
#[tokio::test]
async fn keys_that_the_peer_changes_are_followed() {
    let (mut ours, mut theirs) = our_server(&TLS13, 1 << 16).await;
    for _ in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        cross(&mut theirs, &mut ours, 1000, 100).await;
        cross(&mut ours, &mut theirs, 1000, 100).await;
    }
    let (mut ours, mut theirs) = our_client(&TLS13, 1 << 16).await;
    theirs.get_mut().1.refresh_traffic_keys().unwrap();
    cross(&mut theirs, &mut ours, 1000, 100).await;
    cross(&mut ours, &mut theirs, 1000, 100).await;
}

/// RFC 8446 section 6.1: each direction ends for itself.
#[tokio::test]
async fn close_notify_ends_one_direction() {
    for version in [&TLS12, &TLS13] {
        let (mut ours, mut theirs) = our_server(version, 1 << 16).await;
        theirs.write_all(b"last").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut seen = Vec::new();
        ours.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"last");
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        ours.write_all(b"answer").await.unwrap();
        ours.shutdown().await.unwrap();
        ours.shutdown().await.unwrap();
        assert!(ours.write(b"more").await.is_err());
        seen.clear();
        theirs.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"answer");
    }
}

/// An end without close_notify may be an attacker's: it is told apart.
#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    let (mut ours, theirs) = our_server(&TLS13, 1 << 16).await;
    drop(theirs);
    let error = ours.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_forged_record_ends_the_stream_with_an_alert() {
    let (mut ours, mut theirs) = our_server(&TLS13, 1 << 16).await;
    let forged = [&[23, 3, 3, 0, 32][..], &[9; 32]].concat();
    theirs.get_mut().0.write_all(&forged).await.unwrap();
    let error = ours.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(ours.read(&mut [0; 8]).await.is_err());
    assert!(ours.write(b"more").await.is_err());
    let told = theirs.read(&mut [0; 8]).await.unwrap_err();
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
}

/// What came in one piece with the end of the handshake is not lost.
#[tokio::test]
async fn bytes_that_came_with_the_handshake_are_read() {
    let (server, client) = configurations(&TLS13);
    let (near, far) = duplex(1 << 16);
    let connection = UnbufferedServerConnection::new(server).unwrap();
    let mut ours = TlsStream::new(near, connection, Vec::new());
    let mut theirs = TlsConnector::from(client).connect_with(name(), far, |connection| {
        io::Write::write_all(&mut connection.writer(), b"early").unwrap();
    });
    let (handshake, theirs) = tokio::join!(ours.handshake(Blanks::NONE), &mut theirs);
    handshake.unwrap();
    let mut seen = [0; 5];
    ours.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"early");
    drop(theirs);
}
