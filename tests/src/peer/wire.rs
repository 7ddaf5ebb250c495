//! One connection: bytes out as the test wants them, items in with a deadline.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{ClientTls, Open, ServerTls, Session, ns};
use crate::xml::{Element, Framer, Item};

/// How long a peer waits for anything, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// What arrives on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `<stream:stream …>`.
    Open(Element),
    /// A complete top-level element.
    Element(Element),
    /// `</stream:stream>`.
    Close,
    /// The end of the connection; with TLS: after `close_notify`.
    Eof,
    /// The end of the connection by an error: a reset, a TLS alert, no `close_notify`.
    Broken(String),
}

enum Transport {
    Plain(TcpStream),
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// A handshake failed.
    Gone,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One connection of the scripted server.
pub struct Peer {
    transport: Transport,
    framer: Framer,
    received: Vec<u8>,
    session: Option<Session>,
    patience: Duration,
}

impl Peer {
    /// Connects by TCP.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connect to {address}"))?;
        Ok(Self::over(stream))
    }

    /// Takes the next connection of `listener`.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn accept(listener: &TcpListener) -> Result<Self> {
        let (stream, _) = timeout(PATIENCE, listener.accept())
            .await
            .context("nobody connected")??;
        Ok(Self::over(stream))
    }

    /// On a connection that stands.
    pub fn over(stream: TcpStream) -> Self {
        // Fails only on a dead socket, which the next write tells.
        let _ = stream.set_nodelay(true);
        Self {
            transport: Transport::Plain(stream),
            framer: Framer::default(),
            received: Vec::new(),
            session: None,
            patience: PATIENCE,
        }
    }

    /// Waits at most this long for each event from now on.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What the TLS handshake brought, once there was one.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Every byte received, decrypted.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Adds to `text` what came after its first `noted` bytes, and counts it; the start of a character
    /// that is not whole yet waits.
    pub fn note_received(&self, text: &mut String, noted: &mut usize) {
        for chunk in self.received[*noted..].utf8_chunks() {
            text.push_str(chunk.valid());
            *noted += chunk.valid().len();
            let broken = chunk.invalid().len();
            if broken == 0 || *noted + broken == self.received.len() {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            *noted += broken;
        }
    }

    fn stream(&mut self) -> Result<&mut dyn Stream> {
        Ok(match &mut self.transport {
            Transport::Plain(stream) => stream,
            Transport::Client(stream) => stream.as_mut(),
            Transport::Server(stream) => stream.as_mut(),
            Transport::Gone => bail!("the connection is gone"),
        })
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// When the connection breaks, or the other side does not read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let patience = self.patience;
        let stream = self.stream()?;
        timeout(patience, async {
            stream.write_all(bytes.as_ref()).await?;
            stream.flush().await
        })
        .await
        .context("the peer does not read")?
        .context("write")
    }

    /// As [`Self::send`], but a connection that the other side has ended is no error: for bytes that
    /// it may refuse to read.
    pub async fn send_anyway(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.send(bytes).await;
    }

    /// One byte a write.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_slowly(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        for byte in bytes.as_ref() {
            self.send([*byte]).await?;
        }
        Ok(())
    }

    /// Sends `<stream:stream …>`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn open_with(&mut self, open: &Open) -> Result<()> {
        self.send(open.text()).await
    }

    /// Ends our side of the TCP connection (with TLS: `close_notify` first).
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn half_close(&mut self) -> Result<()> {
        self.stream()?.shutdown().await.context("shutdown")
    }

    /// Forgets the stream that was read so far: the next bytes begin a new one.
    pub fn restart(&mut self) {
        self.framer = Framer::default();
    }

    /// The next thing that arrives.
    ///
    /// # Errors
    /// When nothing comes in time, or what comes is no XML.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(item) = self.framer.next_item().context("read an item")? {
                return Ok(match item {
                    Item::Open(element) => Event::Open(element),
                    Item::Element(element) => Event::Element(element),
                    Item::Close => Event::Close,
                });
            }
            let mut buffer = [0; 8192];
            let patience = self.patience;
            let read = timeout(patience, self.stream()?.read(&mut buffer))
                .await
                .with_context(|| format!("nothing for {patience:?}; so far: {}", self.tail()))?;
            match read {
                Ok(0) => return Ok(Event::Eof),
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    self.framer.push(&buffer[..count]);
                }
                Err(error) => return Ok(Event::Broken(error.to_string())),
            }
        }
    }

    fn tail(&self) -> String {
        let from = self.received.len().saturating_sub(600);
        String::from_utf8_lossy(&self.received[from..]).into_owned()
    }

    /// The other side's stream header, which must come next.
    ///
    /// # Errors
    /// When something else comes.
    pub async fn header(&mut self) -> Result<Element> {
        match self.next().await? {
            Event::Open(header) => {
                ensure!(
                    header.is("stream", ns::STREAM),
                    "not a stream header: {header:?}"
                );
                Ok(header)
            }
            other => bail!("no stream header but {other:?}"),
        }
    }

    /// The next element, which must come next.
    ///
    /// # Errors
    /// When something else comes.
    pub async fn element(&mut self) -> Result<Element> {
        match self.next().await? {
            Event::Element(element) => Ok(element),
            other => bail!("no element but {other:?}; so far: {}", self.tail()),
        }
    }

    /// The next element that `wanted` accepts; others are passed over.
    ///
    /// # Errors
    /// When the stream ends or time is up first.
    pub async fn expect(
        &mut self,
        what: &str,
        wanted: impl Fn(&Element) -> bool,
    ) -> Result<Element> {
        loop {
            let element = self.element().await.with_context(|| what.to_owned())?;
            if wanted(&element) {
                return Ok(element);
            }
        }
    }

    /// The stanza of this `id`; others are passed over.
    ///
    /// # Errors
    /// As [`Self::expect`].
    pub async fn stanza(&mut self, id: &str) -> Result<Element> {
        self.expect(&format!("a stanza with id {id}"), |e| {
            e.attribute("id") == Some(id)
        })
        .await
    }

    /// The condition of the stream error that must come, then the end of stream and connection.
    /// Elements before it are passed over.
    ///
    /// # Errors
    /// When the stream ends without an error, or does not end.
    pub async fn stream_error(&mut self) -> Result<String> {
        let error = loop {
            match self.next().await? {
                Event::Element(element) if element.is("error", ns::STREAM) => break element,
                Event::Open(_) | Event::Element(_) => {}
                other => bail!("no stream error but {other:?}; so far: {}", self.tail()),
            }
        };
        let condition = error
            .children
            .iter()
            .find(|c| c.namespace == ns::STREAM_ERRORS && c.name != "text")
            .with_context(|| format!("a stream error without condition: {error:?}"))?
            .name
            .clone();
        let after = self.next().await?;
        ensure!(
            after == Event::Close,
            "</stream:stream> follows {condition}, not {after:?}"
        );
        self.ended().await?;
        Ok(condition)
    }

    /// As [`Self::stream_error`], which must be of this condition.
    ///
    /// # Errors
    /// When it is not.
    pub async fn expect_stream_error(&mut self, condition: &str) -> Result<()> {
        let got = self.stream_error().await?;
        ensure!(
            got == condition,
            "stream error {got}, not {condition}: {}",
            self.tail()
        );
        Ok(())
    }

    /// Reads until the other side ends the connection, in order or not.
    ///
    /// # Errors
    /// When it does not within the patience.
    pub async fn ended(&mut self) -> Result<Vec<Event>> {
        let mut before = Vec::new();
        let whole = self.patience;
        timeout(whole, async {
            loop {
                match self.next().await? {
                    Event::Eof | Event::Broken(_) => return Ok(before),
                    event => before.push(event),
                }
            }
        })
        .await
        .context("the connection is not ended")?
    }

    /// Reads bytes as they come, without looking for XML.
    ///
    /// # Errors
    /// When nothing comes in time.
    pub async fn raw(&mut self) -> Result<Vec<u8>> {
        let mut buffer = vec![0; 65536];
        let count = timeout(self.patience, self.stream()?.read(&mut buffer))
            .await
            .context("no bytes")?
            .unwrap_or(0);
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Hands the connection to TLS, as client.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn tls_client(&mut self, tls: &ClientTls) -> Result<()> {
        let (config, name) = tls.config()?;
        let Transport::Plain(stream) = std::mem::replace(&mut self.transport, Transport::Gone)
        else {
            bail!("TLS is on already");
        };
        let connector = TlsConnector::from(Arc::new(config));
        let stream = timeout(self.patience, connector.connect(name, stream))
            .await
            .context("the handshake takes too long")?
            .context("handshake as client")?;
        let (_, connection) = stream.get_ref();
        self.session = Some(Session {
            version: connection.protocol_version(),
            alpn: connection
                .alpn_protocol()
                .map(|p| String::from_utf8_lossy(p).into_owned()),
            sni: None,
            certificates: owned(connection.peer_certificates()),
        });
        self.transport = Transport::Client(Box::new(stream));
        self.restart();
        Ok(())
    }

    /// Hands the connection to TLS, as server.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn tls_server(&mut self, tls: &ServerTls) -> Result<()> {
        let config = tls.config()?;
        let Transport::Plain(stream) = std::mem::replace(&mut self.transport, Transport::Gone)
        else {
            bail!("TLS is on already");
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let stream = timeout(self.patience, acceptor.accept(stream))
            .await
            .context("the handshake takes too long")?
            .context("handshake as server")?;
        let (_, connection) = stream.get_ref();
        self.session = Some(Session {
            version: connection.protocol_version(),
            alpn: connection
                .alpn_protocol()
                .map(|p| String::from_utf8_lossy(p).into_owned()),
            sni: connection.server_name().map(str::to_owned),
            certificates: owned(connection.peer_certificates()),
        });
        self.transport = Transport::Server(Box::new(stream));
        self.restart();
        Ok(())
    }

    /// The first byte that arrives, left in place; `None` on TLS or when the connection ends.
    pub(super) async fn first_byte(&self) -> Option<u8> {
        let Transport::Plain(stream) = &self.transport else {
            return None;
        };
        let mut byte = [0];
        (stream.peek(&mut byte).await.ok()? == 1).then_some(byte[0])
    }
}

fn owned(
    certificates: Option<&[rustls_pki_types::CertificateDer<'_>]>,
) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    certificates
        .unwrap_or_default()
        .iter()
        .map(|c| c.clone().into_owned())
        .collect()
}
