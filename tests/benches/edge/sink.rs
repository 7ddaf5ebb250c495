//! The gateway inside: accepts what is sent to it and counts.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    load::{self, Shape},
    rig::Inside,
};

pub struct Sink {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    shape: Shape,
    stanzas: AtomicU64,
    /// That have brought something.
    streams: AtomicU64,
    changed: Notify,
    latencies: Mutex<Vec<u64>>,
}

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' from='org.example' to='partner.example' id='s1' version='1.0'>";

impl Sink {
    /// `inside`: what kind of server it plays; `None` reads raw bytes.
    pub async fn start(
        ip: &str,
        shape: Shape,
        inside: Option<(Inside, Option<TlsAcceptor>)>,
    ) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            shape,
            stanzas: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            changed: Notify::new(),
            latencies: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.set_nodelay(true);
                let (shared, inside) = (Arc::clone(&own), inside.clone());
                tokio::spawn(async move {
                    let result = match inside {
                        None => shared.count(socket, Vec::new(), false).await,
                        Some((Inside::Plain, _)) => {
                            let features = "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>";
                            match greet(&mut socket, features, "</db:result>").await {
                                Ok(()) => {
                                    let valid = "<db:result from='org.example' to='partner.example' type='valid'/>";
                                    let _ = socket.write_all(valid.as_bytes()).await;
                                    shared.count(socket, Vec::new(), false).await
                                }
                                Err(error) => Err(error),
                            }
                        }
                        Some((kind, Some(acceptor))) => {
                            serve_tls(&shared, socket, kind, acceptor).await
                        }
                        Some((_, None)) => Ok(()),
                    };
                    if let Err(error) = result {
                        eprintln!("sink: {error}");
                    }
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// Waits until so many stanzas came in all.
    pub async fn await_stanzas(&self, count: u64) -> Result<()> {
        let limit = Duration::from_secs(120);
        let arrived = async {
            while self.shared.stanzas.load(Ordering::Acquire) < count {
                self.shared.changed.notified().await;
            }
        };
        if tokio::time::timeout(limit, arrived).await.is_err() {
            let got = self.shared.stanzas.load(Ordering::Acquire);
            bail!("{got} of {count} stanzas arrived within {limit:?}");
        }
        Ok(())
    }

    /// Waits until so many streams have brought a stanza.
    pub async fn await_streams(&self, count: u64) -> Result<()> {
        let limit = Duration::from_secs(120);
        let arrived = async {
            while self.shared.streams.load(Ordering::Acquire) < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(limit, arrived).await.is_err() {
            let got = self.shared.streams.load(Ordering::Acquire);
            bail!("{got} of {count} streams came within {limit:?}");
        }
        Ok(())
    }

    pub fn take_latencies(&self) -> Vec<u64> {
        std::mem::take(&mut *self.shared.latencies.lock())
    }
}

async fn serve_tls(
    shared: &Shared,
    mut socket: tokio::net::TcpStream,
    inside: Inside,
    acceptor: TlsAcceptor,
) -> Result<()> {
    let starttls = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
    greet(&mut socket, starttls, "<starttls").await?;
    socket
        .write_all(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        .await?;
    let mut stream = acceptor.accept(socket).await?;
    let external = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms></stream:features>";
    greet(&mut stream, external, "</auth>").await?;
    stream
        .write_all(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
        .await?;
    if inside == Inside::MutualTls {
        read_until(&mut stream, "<stream:stream").await?;
        stream.write_all(HEADER.as_bytes()).await?;
        stream.write_all(b"<stream:features/>").await?;
        return shared.count(stream, Vec::new(), false).await;
    }
    greet(
        &mut stream,
        "<stream:features><sm xmlns='urn:xmpp:sm:3'/></stream:features>",
        "<enable",
    )
    .await?;
    stream
        .write_all(b"<enabled xmlns='urn:xmpp:sm:3'/>")
        .await?;
    shared.count(stream, Vec::new(), true).await
}

/// Header and features, then waits for what the edge says next.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    features: &str,
    next: &str,
) -> Result<()> {
    read_until(stream, "<stream:stream").await?;
    stream.write_all(HEADER.as_bytes()).await?;
    stream.write_all(features.as_bytes()).await?;
    read_until(stream, next).await
}

async fn read_until<S: AsyncRead + Unpin>(stream: &mut S, marker: &str) -> Result<()> {
    let mut seen = Vec::new();
    let mut byte = [0; 1];
    // A byte at a time: what follows is counted.
    while !(seen.ends_with(b">") && String::from_utf8_lossy(&seen).contains(marker)) {
        if stream.read(&mut byte).await? == 0 {
            bail!(
                "ended while waiting for {marker}: {}",
                String::from_utf8_lossy(&seen)
            );
        }
        seen.push(byte[0]);
    }
    Ok(())
}

/// A question by which the edge learns what has arrived: its length, and the answer. A ping gets none,
/// as of a server that knows no pings.
fn question(bytes: &[u8]) -> Option<(usize, String)> {
    let text = std::str::from_utf8(bytes.get(..1024.min(bytes.len()))?).ok()?;
    let end = |tag: &str| Some(text.find(tag)? + tag.len());
    if text.starts_with("<iq") {
        return Some((end("</iq>")?, String::new()));
    }
    let len = text
        .starts_with("<db:verify")
        .then(|| end("</db:verify>"))??;
    let value = |name: &str| {
        let rest = text.split_once(&format!(" {name}='"))?.1;
        rest.split_once('\'').map(|(value, _)| value)
    };
    let (from, to, id) = (value("from")?, value("to")?, value("id")?);
    let answer = format!("<db:verify from='{to}' to='{from}' id='{id}' type='invalid'/>");
    Some((len, answer))
}

impl Shared {
    /// Counts bytes of stanzas; with `acks`, leaves out `<r/>` and answers it.
    async fn count<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        mut left: Vec<u8>,
        acks: bool,
    ) -> Result<()> {
        const ASK: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";
        let (size, start) = (self.shape.stanza().len(), self.shape.start());
        let mut buffer = vec![0; 256 * 1024];
        let mut handled = 0_u64;
        let mut counted = 0_u64;
        let mut first = true;
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            if std::mem::take(&mut first) {
                self.streams.fetch_add(1, Ordering::AcqRel);
            }
            let now = load::now();
            left.extend_from_slice(&buffer[..count]);
            let mut at = 0;
            let (mut asked, mut answers) = (false, String::new());
            loop {
                let rest = &left[at..];
                if acks && rest.starts_with(b"<r") {
                    if rest.len() < ASK.len() {
                        break;
                    }
                    at += ASK.len();
                    asked = true;
                } else if rest.len() >= size && rest.starts_with(start) {
                    self.stamp(&rest[..size], now);
                    at += size;
                    handled += 1;
                } else if rest.first() == Some(&b' ') {
                    at += 1;
                } else if let Some((len, answer)) = question(rest) {
                    at += len;
                    answers += &answer;
                } else {
                    break;
                }
            }
            left.drain(..at);
            self.stanzas.fetch_add(handled - counted, Ordering::AcqRel);
            counted = handled;
            self.changed.notify_waiters();
            self.changed.notify_one();
            if asked {
                answers += &format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>");
            }
            if !answers.is_empty() {
                stream.write_all(answers.as_bytes()).await?;
                stream.flush().await?;
            }
        }
    }

    fn stamp(&self, stanza: &[u8], now: u64) {
        if self.shape != Shape::Message {
            return;
        }
        let Some(at) = stanza.windows(5).position(|window| window == b"id='m") else {
            return;
        };
        let digits = stanza
            .get(at + 5..at + 25)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| digits.parse::<u64>().ok()) {
            Some(sent) if sent > 0 => self.latencies.lock().push(now.saturating_sub(sent)),
            _ => {}
        }
    }
}
