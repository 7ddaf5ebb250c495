//! The partner: one stream over direct TLS with SASL EXTERNAL, and stanzas as fast as they are taken.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Where to connect, as whom.
pub struct Partner {
    pub address: SocketAddr,
    /// PEM
    pub authority: String,
    pub chain: String,
    pub key: String,
}

/// One chat message of 220 bytes; `stamp` is when it was sent, nanoseconds since 1970.
pub fn stanza(stamp: u64, _: &str) -> Vec<u8> {
    format!(
        "<message from='rob@partner.example/desk' to='user42@org.example' type='chat' id='m{stamp:020}'>\
         <body>{:<38}</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
        "A line of chat, as people write them."
    )
    .into_bytes()
}

/// Bytes of one stanza.
pub fn stanza_bytes() -> u64 {
    stanza(0, "").len() as u64
}

pub struct Sender {
    write: WriteHalf<TlsStream<TcpStream>>,
    _reader: tokio::task::JoinHandle<()>,
    acks: bool,
}

impl Sender {
    /// A stream to the edge, authenticated.
    pub async fn connect(partner: &Partner, acks: bool) -> Result<Self> {
        Self::connect_as(partner, "partner.example", acks).await
    }

    /// The same as another domain that the certificate names.
    pub async fn connect_as(partner: &Partner, domain: &str, acks: bool) -> Result<Self> {
        let mut stream = tls(partner).await?;
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{domain}' to='org.example' version='1.0'>"
        );
        stream.write_all(header.as_bytes()).await?;
        read_until(&mut stream, "</stream:features>").await?;
        stream
            .write_all(
                b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>",
            )
            .await?;
        read_until(&mut stream, "<success").await?;
        stream.write_all(header.as_bytes()).await?;
        read_until(&mut stream, "</stream:features>").await?;
        if acks {
            stream.write_all(b"<enable xmlns='urn:xmpp:sm:3'/>").await?;
            read_until(&mut stream, "<enabled").await?;
        }
        Ok(Self::of(stream, acks))
    }

    /// TLS alone, for the plain relay.
    pub async fn raw(partner: &Partner) -> Result<Self> {
        Ok(Self::of(tls(partner).await?, false))
    }

    fn of(stream: TlsStream<TcpStream>, acks: bool) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            write,
            _reader: tokio::spawn(drain(read)),
            acks,
        }
    }

    /// `count` stanzas, as fast as they are taken.
    pub async fn send(&mut self, count: u64) -> Result<()> {
        let mut block = Vec::new();
        let mut left = count;
        while left > 0 {
            block.clear();
            for _ in 0..left.min(64) {
                block.extend_from_slice(&stanza(0, ""));
            }
            left -= left.min(64);
            if self.acks {
                block.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
            }
            self.write.write_all(&block).await?;
        }
        self.write.flush().await?;
        Ok(())
    }

    /// One message from a user of `domain`.
    pub async fn greet(&mut self, domain: &str) -> Result<()> {
        let message = format!(
            "<message from='rob@{domain}' to='user42@org.example' type='chat'><body>hi</body></message>"
        );
        self.write.write_all(message.as_bytes()).await?;
        self.write.flush().await?;
        Ok(())
    }

    /// `pace` stanzas a second for `time`, each with its time; says how many.
    pub async fn send_paced(&mut self, pace: u32, time: Duration) -> Result<u64> {
        let began = Instant::now();
        let every = Duration::from_secs(1) / pace;
        let mut sent = 0_u32;
        while began.elapsed() < time {
            let due = every * sent;
            if began.elapsed() < due {
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
            while every * sent <= began.elapsed() {
                self.write.write_all(&stanza(now(), "")).await?;
                sent += 1;
            }
            self.write.flush().await?;
        }
        Ok(u64::from(sent))
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    u64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos(),
    )
    .unwrap_or(0)
}

async fn tls(partner: &Partner) -> Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        partner.authority.as_bytes(),
    )?)?;
    let chain =
        CertificateDer::pem_slice_iter(partner.chain.as_bytes()).collect::<Result<_, _>>()?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain,
            PrivateKeyDer::from_pem_slice(partner.key.as_bytes())?,
        )?;
    config.alpn_protocols = vec![b"xmpp-server".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let socket = TcpStream::connect(partner.address).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("org.example")?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?)
}

async fn read_until(stream: &mut TlsStream<TcpStream>, marker: &str) -> Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        seen.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&seen);
        if text.contains(marker) {
            return Ok(());
        }
        if count == 0 || text.contains("<failure") || text.contains("stream:error") {
            bail!("waited for {marker}, got {text}");
        }
    }
}

async fn drain(mut read: ReadHalf<TlsStream<TcpStream>>) {
    let mut buffer = vec![0; 1024];
    while matches!(read.read(&mut buffer).await, Ok(count) if count > 0) {}
}
