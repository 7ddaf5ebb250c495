//! Handshakes on both sides, with a deadline. They accept any certificate whose key the peer
//! holds; [`super::Trust::judge`] decides afterwards, per domain.

use std::{io, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig,
    client::UnbufferedClientConnection,
    server::{Acceptor, UnbufferedServerConnection},
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use xmpp_edge_crds::domain::DomainName;

use super::{
    blanks::Blanks,
    config::{ALPN, client_builder},
    identity::Identity,
    stream::TlsStream,
    transport::Transport,
};

/// Bytes of a ClientHello read at once.
const HELLO_READ: usize = 4 * 1024;
/// First octet of a TLS record that holds a handshake message (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// How TLS began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// After STARTTLS: no ALPN from us, none wanted.
    StartTls,
    /// From the first byte (XEP-0368): ALPN `xmpp-server`; a peer may offer none, but not only
    /// others (`no_application_protocol`).
    Direct,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the TLS handshake did not end in time")]
    Timeout,
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    #[error("the peer does not speak TLS here")]
    NotTls,
    #[error("no certificate of ours is for {}", sni.as_deref().unwrap_or("a peer that names no domain"))]
    NoIdentity { sni: Option<String> },
    #[error("the peer refused the TLS handshake: alert {0:?}")]
    Alert(AlertDescription),
    #[error("the TLS versions or parameters do not fit: {0}")]
    Incompatible(String),
    #[error("the TLS handshake failed: {0}")]
    Failed(String),
    #[error("the connection failed during the TLS handshake: {0}")]
    Io(io::Error),
}

impl HandshakeError {
    /// A fixed CamelCase word for metrics and attempts.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "TlsTimeout",
            Self::Closed => "TlsClosed",
            Self::NotTls => "NotTls",
            Self::NoIdentity { .. } => "NoCertificateForName",
            Self::Alert(_) => "TlsAlert",
            Self::Incompatible(_) => "TlsIncompatible",
            Self::Failed(_) => "TlsFailed",
            Self::Io(_) => "TlsIo",
        }
    }

    fn from_io(error: io::Error) -> Self {
        use rustls::Error;
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(Error::InvalidMessage(_)) => Self::NotTls,
            Some(cause @ (Error::PeerIncompatible(_) | Error::NoApplicationProtocol)) => {
                Self::Incompatible(cause.to_string())
            }
            Some(cause) => Self::Failed(cause.to_string()),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::Closed,
                _ => Self::Io(error),
            },
        }
    }
}

/// The alert with which the peer ended a connection that had been set up.
#[must_use]
pub fn alert(error: &io::Error) -> Option<HandshakeError> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match inner {
        rustls::Error::AlertReceived(alert) => Some(HandshakeError::Alert(*alert)),
        _ => None,
    }
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstByte {
    /// A TLS handshake record.
    Tls,
    Other(u8),
    /// Nothing: the peer closed.
    Closed,
}

/// Waits for the first byte without taking it. The caller sets the deadline.
///
/// # Errors
/// What the socket says.
pub async fn sniff(socket: &TcpStream) -> io::Result<FirstByte> {
    let mut first = [0];
    Ok(match socket.peek(&mut first).await? {
        0 => FirstByte::Closed,
        _ if first[0] == HANDSHAKE_RECORD => FirstByte::Tls,
        _ => FirstByte::Other(first[0]),
    })
}

/// Serves a handshake. `choose` is asked once, with what the client names (SNI, lower case); on a
/// STARTTLS stream it falls back to the stream's `to`, which it knows.
///
/// # Errors
/// [`HandshakeError`]; the connection is of no use afterwards.
pub async fn accept<S>(
    io: S,
    mode: Mode,
    deadline: Instant,
    choose: impl FnOnce(Option<&str>) -> Option<Arc<Identity>>,
) -> Result<Transport<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        let mut io = io;
        let (sni, hello) = client_hello(&mut io, blanks_before(mode)).await?;
        let identity = choose(sni.as_deref()).ok_or(HandshakeError::NoIdentity { sni })?;
        let connection = UnbufferedServerConnection::new(identity.server(mode == Mode::Direct))
            .map_err(|cause| HandshakeError::Failed(cause.to_string()))?;
        let mut stream = Box::new(TlsStream::new(io, connection, hello));
        let shaken = stream.handshake(Blanks::NONE).await;
        shaken.map_err(HandshakeError::from_io)?;
        Ok(Transport::Server(stream))
    };
    timeout_at(deadline, handshake)
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
}

/// Reads until the ClientHello is complete: what it names, in lower case, and all that was read.
/// Which configuration answers it depends on it, so it is read once to look at.
async fn client_hello<S>(
    io: &mut S,
    mut blanks: Blanks,
) -> Result<(Option<String>, Vec<u8>), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut read = Vec::with_capacity(HELLO_READ);
    loop {
        read.reserve(HELLO_READ);
        let before = read.len();
        let count = io
            .read_buf(&mut read)
            .await
            .map_err(HandshakeError::from_io)?;
        if count == 0 {
            return Err(HandshakeError::Closed);
        }
        if before == 0 {
            blanks.drop_from(&mut read);
        }
        let mut fresh = &read[before..];
        while !fresh.is_empty() {
            acceptor
                .read_tls(&mut fresh)
                .map_err(HandshakeError::from_io)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let sni = hello.server_name().map(str::to_ascii_lowercase);
                    return Ok((sni, read));
                }
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    let _ = alert.write_all(&mut bytes);
                    let _ = io.write_all(&bytes).await;
                    let error = io::Error::new(io::ErrorKind::InvalidData, error);
                    return Err(HandshakeError::from_io(error));
                }
            }
        }
    }
}

/// Makes a handshake with `domain` as SNI. Without an identity no certificate is presented.
///
/// # Errors
/// [`HandshakeError`]; the connection is of no use afterwards.
pub async fn connect<S>(
    io: S,
    identity: Option<&Identity>,
    domain: &DomainName,
    mode: Mode,
    deadline: Instant,
) -> Result<Transport<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = match identity {
        Some(identity) => identity.client(),
        None => Arc::new(
            client_builder()
                .map_err(|cause| HandshakeError::Failed(cause.to_string()))?
                .with_no_client_auth(),
        ),
    };
    // A domain with an underscore is no host name for TLS; it goes without SNI then.
    let (name, config) = match ServerName::try_from(domain.as_str().to_owned()) {
        Ok(name) => (name, config),
        Err(_) => {
            let mut without = ClientConfig::clone(&config);
            without.enable_sni = false;
            (
                ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
                Arc::new(without),
            )
        }
    };
    let handshake = async {
        let connection = match mode {
            Mode::StartTls => UnbufferedClientConnection::new(config, name),
            Mode::Direct => {
                UnbufferedClientConnection::new_with_alpn(config, name, vec![ALPN.to_vec()])
            }
        }
        .map_err(|cause| HandshakeError::Failed(cause.to_string()))?;
        let mut stream = Box::new(TlsStream::new(io, connection, Vec::new()));
        let shaken = stream.handshake(blanks_before(mode)).await;
        shaken.map_err(HandshakeError::from_io)?;
        Ok(Transport::Client(stream))
    };
    timeout_at(deadline, handshake)
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
}

/// What may still stand before the first record.
fn blanks_before(mode: Mode) -> Blanks {
    match mode {
        Mode::StartTls => Blanks::BEHIND_STARTTLS,
        Mode::Direct => Blanks::NONE,
    }
}

#[cfg(test)]
mod tests;
