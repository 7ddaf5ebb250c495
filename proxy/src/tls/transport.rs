//! A connection, with or without TLS, as bytes in and out.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use rustls::{
    CipherSuite, CommonState, ProtocolVersion, client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{TlsFacts, stream::TlsStream};

/// A socket in one of its three lives. Shutting it down sends close_notify where there is TLS, and
/// FIN.
#[derive(Debug)]
pub enum Transport<S = TcpStream> {
    Plain(S),
    /// We were the TLS server.
    Server(Box<TlsStream<S, UnbufferedServerConnection>>),
    /// We were the TLS client.
    Client(Box<TlsStream<S, UnbufferedClientConnection>>),
}

impl<S> Transport<S> {
    /// What the handshake told; `None` without TLS.
    #[must_use]
    pub fn facts(&self) -> Option<TlsFacts<'_>> {
        let common: &CommonState = match self {
            Self::Plain(_) => return None,
            Self::Server(stream) => stream.common(),
            Self::Client(stream) => stream.common(),
        };
        Some(TlsFacts {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: common
                .negotiated_cipher_suite()
                .map_or("unknown", |suite| iana_name(suite.suite())),
            peer_chain: common.peer_certificates().unwrap_or_default(),
        })
    }

    /// What the peer showed in TLS, end entity first; empty where it showed nothing, or there is no TLS.
    #[must_use]
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        self.facts().map_or(&[], |facts| facts.peer_chain)
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &S {
        match self {
            Self::Plain(socket) => socket,
            Self::Server(stream) => stream.socket(),
            Self::Client(stream) => stream.socket(),
        }
    }

    /// The socket, where there is no TLS yet.
    ///
    /// # Errors
    /// Itself, where there is.
    pub fn into_plain(self) -> Result<S, Self> {
        match self {
            Self::Plain(socket) => Ok(socket),
            tls => Err(tls),
        }
    }
}

/// rustls writes `TLS13_` where IANA has `TLS_`.
fn iana_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Server(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Client(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Server(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Client(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, pieces),
            Self::Server(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Client(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Server(_) | Self::Client(_) => true,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Server(stream) => Pin::new(stream).poll_flush(cx),
            Self::Client(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Server(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Client(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
