//! The partner: one stream over direct TLS with SASL EXTERNAL, and stanzas as fast as they are taken.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpSocket, TcpStream},
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

/// What is sent as fast as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The chat message of 220 bytes.
    Message,
    /// The same between [`CROWD`] pairs of people in turn: nobody writes twice in a row.
    Crowd,
    Presence,
    /// A message with 4 KiB in its body.
    Long,
    /// One with 64 KiB.
    Huge,
}

/// Pairs of people of [`Shape::Crowd`].
const CROWD: u64 = 1_000;

impl Shape {
    pub const ALL: [Self; 5] = [
        Self::Message,
        Self::Crowd,
        Self::Presence,
        Self::Long,
        Self::Huge,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "messages of 220 bytes",
            Self::Crowd => "the same between 1,000 pairs of people in turn",
            Self::Presence => "presences of 64 bytes",
            Self::Long => "messages of 4 KiB",
            Self::Huge => "messages of 64 KiB",
        }
    }

    /// How its element begins.
    pub fn start(self) -> &'static [u8] {
        match self {
            Self::Presence => b"<p",
            Self::Message | Self::Crowd | Self::Long | Self::Huge => b"<m",
        }
    }

    pub fn stanza(self) -> Vec<u8> {
        let body = match self {
            Self::Message => return stanza(0, ""),
            Self::Crowd => return Self::of_crowd(0),
            Self::Presence => {
                return b"<presence from='rob@partner.example/d' to='user42@org.example'/>"
                    .to_vec();
            }
            Self::Long => 4 * 1024,
            Self::Huge => 64 * 1024,
        };
        // As people write: words, and now and then a line or a letter beyond ASCII.
        let text = "Some words of a longer text that somebody has pasted, caf\u{e9} and all.\n";
        let mut body = text.repeat(body / text.len());
        body.truncate(body.floor_char_boundary(body.len()));
        format!(
            "<message from='rob@partner.example/desk' to='user42@org.example' type='chat' id='1'><body>{body}</body></message>"
        )
        .into_bytes()
    }

    /// One of the crowd's, as long as [`stanza`].
    fn of_crowd(number: u64) -> Vec<u8> {
        let text = String::from_utf8(stanza(number, "")).unwrap_or_default();
        let (remote, user) = (number % CROWD, 10 + number * 7 % 90);
        text.replace(
            "rob@partner.example/desk",
            &format!("r{remote:05}@partner.example/d"),
        )
        .replace("user42@", &format!("user{user}@"))
        .into_bytes()
    }

    /// How many make a run: some 200 MB, or a million.
    pub fn count(self) -> u64 {
        1_000_000.min(200_000_000 / self.stanza().len() as u64)
    }
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
        Self::connect_from(partner, 0, domain, acks).await
    }

    /// The same as one of many: an address has ports for some 28,000.
    pub async fn connect_from(
        partner: &Partner,
        number: usize,
        domain: &str,
        acks: bool,
    ) -> Result<Self> {
        let mut stream = tls(partner, number).await?;
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
        Ok(Self::of(tls(partner, 0).await?, false))
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
        self.send_shape(Shape::Message, count).await
    }

    /// The same of another shape.
    pub async fn send_shape(&mut self, shape: Shape, count: u64) -> Result<()> {
        if shape == Shape::Crowd {
            return self.send_crowd(count).await;
        }
        self.send_all(&shape.stanza(), count).await
    }

    async fn send_crowd(&mut self, count: u64) -> Result<()> {
        const AT_ONCE: u64 = 50;
        let all: Vec<_> = (0..CROWD).map(Shape::of_crowd).collect();
        let blocks: Vec<_> = all.chunks(AT_ONCE as usize).map(<[_]>::concat).collect();
        for block in blocks.iter().cycle().take((count / AT_ONCE) as usize) {
            self.write.write_all(block).await?;
        }
        self.write.flush().await?;
        self.send_all(&Shape::of_crowd(0), count % AT_ONCE).await
    }

    /// The same from a user of another domain, of the same length.
    pub async fn send_from(&mut self, domain: &str, count: u64) -> Result<()> {
        let message = |body: &str| {
            format!(
                "<message from='rob@{domain}/desk' to='user42@org.example' type='chat' id='m'><body>{body}</body></message>"
            )
        };
        let room = Shape::Message
            .stanza()
            .len()
            .saturating_sub(message("").len());
        self.send_all(message(&"x".repeat(room)).as_bytes(), count)
            .await
    }

    async fn send_all(&mut self, stanza: &[u8], count: u64) -> Result<()> {
        let at_once = (16 * 1024 / stanza.len() as u64).clamp(1, 64);
        let mut block = Vec::new();
        let mut left = count;
        while left > 0 {
            block.clear();
            for _ in 0..left.min(at_once) {
                block.extend_from_slice(stanza);
            }
            left -= left.min(at_once);
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

async fn tls(partner: &Partner, number: usize) -> Result<TlsStream<TcpStream>> {
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
    let own = Ipv4Addr::new(127, 78, 0, u8::try_from(number / 20_000)?);
    let socket = TcpSocket::new_v4()?;
    socket.bind((own, 0).into())?;
    let socket = socket.connect(partner.address).await?;
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
