//! A minimal client (c2s): plain login on loopback, then stanzas in and out.
//!
//! A task reads the stream into an inbox; [`Client::expect`] takes the first stanza that fits out
//! of it, so that tests need not care about the order of unrelated stanzas. `Client` neither
//! reconnects nor answers anything by itself.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    wait,
    xml::{Element, Framer, Item, escape},
};

/// Password of every user of every test server.
pub const PASSWORD: &str = "secret";

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

/// A logged-in client with a resource.
pub struct Client {
    bare: String,
    full: String,
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    inbox: Arc<Inbox>,
    reader: JoinHandle<()>,
    ids: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<ClientState>,
    changed: Notify,
}

#[derive(Default)]
struct ClientState {
    stanzas: VecDeque<Element>,
    ended: bool,
}

/// Reads items off the socket before the reader task exists.
struct Opening {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    framer: Framer,
}

impl Opening {
    async fn item(&mut self) -> Result<Item> {
        loop {
            if let Some(item) = self.framer.next_item()? {
                return Ok(item);
            }
            let mut buffer = [0; 8192];
            let length = self.read.read(&mut buffer).await?;
            if length == 0 {
                bail!("the server closed the connection");
            }
            self.framer.push(&buffer[..length]);
        }
    }

    async fn element(&mut self) -> Result<Element> {
        match self.item().await? {
            Item::Element(element) if element.is("error", "http://etherx.jabber.org/streams") => {
                bail!("stream error {element:?}")
            }
            Item::Element(element) => Ok(element),
            other => bail!("expected an element, got {other:?}"),
        }
    }

    async fn open(&mut self, domain: &str) -> Result<Element> {
        self.framer = Framer::default();
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xml:lang='en' \
             xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        self.write.write_all(header.as_bytes()).await?;
        match self.item().await? {
            Item::Open(_) => self.element().await,
            other => bail!("expected a stream header, got {other:?}"),
        }
    }
}

impl Client {
    /// Logs `user@domain` in at `server` with SASL PLAIN and binds `resource`. Sends no presence.
    ///
    /// # Errors
    /// When any step fails or takes longer than [`wait::GENEROUS`].
    pub async fn login(server: SocketAddr, jid: &str, resource: &str) -> Result<Self> {
        let what = format!("{jid} logs in at {server}");
        wait::within(&what, wait::GENEROUS, Self::connect(server, jid, resource)).await
    }

    async fn connect(server: SocketAddr, jid: &str, resource: &str) -> Result<Self> {
        let (user, domain) = jid.split_once('@').context("a user's JID has an @")?;
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let (read, write) = socket.into_split();
        let mut opening = Opening {
            read,
            write,
            framer: Framer::default(),
        };
        opening.open(domain).await?;
        let plain = STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
        let auth = format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{plain}</auth>");
        opening.write.write_all(auth.as_bytes()).await?;
        let answer = opening.element().await?;
        if !answer.is("success", SASL) {
            bail!("login refused: {answer:?}");
        }
        opening.open(domain).await?;
        let bind = format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{}</resource></bind></iq>",
            escape(resource)
        );
        opening.write.write_all(bind.as_bytes()).await?;
        let bound = opening.element().await?;
        let full = bound
            .child("bind")
            .and_then(|b| b.child("jid"))
            .with_context(|| format!("no JID in {bound:?}"))?
            .text
            .clone();
        let Opening {
            read,
            write,
            framer,
        } = opening;
        let inbox = Arc::new(Inbox::default());
        let reader = tokio::spawn(receive(read, framer, Arc::clone(&inbox)));
        Ok(Self {
            bare: jid.to_owned(),
            full,
            write: tokio::sync::Mutex::new(write),
            inbox,
            reader,
            ids: AtomicU64::new(1),
        })
    }

    /// `user@domain`.
    pub fn bare(&self) -> &str {
        &self.bare
    }

    /// `user@domain/resource`.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// An id that this client has not used.
    pub fn fresh_id(&self) -> String {
        format!("t{}", self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends raw XML.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&self, xml: &str) -> Result<()> {
        self.write.lock().await.write_all(xml.as_bytes()).await?;
        Ok(())
    }

    /// Sends a chat message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn message(&self, to: &str, id: &str, body: &str) -> Result<()> {
        self.send(&format!(
            "<message to='{to}' type='chat' id='{id}'><body>{}</body></message>",
            escape(body)
        ))
        .await
    }

    /// Sends presence of `kind` (`None`: available) to `to` (`None`: everyone).
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn presence(
        &self,
        to: Option<&str>,
        kind: Option<&str>,
        payload: &str,
    ) -> Result<()> {
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        let kind = kind
            .map(|kind| format!(" type='{kind}'"))
            .unwrap_or_default();
        self.send(&format!("<presence{to}{kind}>{payload}</presence>"))
            .await
    }

    /// Sends an iq and waits for its result or error.
    ///
    /// # Errors
    /// When neither comes within [`wait::GENEROUS`].
    pub async fn request(&self, to: Option<&str>, kind: &str, payload: &str) -> Result<Element> {
        let id = self.fresh_id();
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        self.send(&format!("<iq type='{kind}'{to} id='{id}'>{payload}</iq>"))
            .await?;
        self.expect(&format!("answer to {payload}"), |stanza| {
            stanza.name == "iq"
                && stanza.attribute("id") == Some(&id)
                && matches!(stanza.attribute("type"), Some("result" | "error"))
        })
        .await
    }

    /// Takes the first stanza that fits, now or within [`wait::GENEROUS`].
    ///
    /// # Errors
    /// When none comes in time or the stream ends first; shows what did come.
    pub async fn expect(&self, what: &str, fits: impl FnMut(&Element) -> bool) -> Result<Element> {
        self.expect_within(what, wait::GENEROUS, fits).await
    }

    /// [`Self::expect`] with a limit.
    ///
    /// # Errors
    /// As there.
    pub async fn expect_within(
        &self,
        what: &str,
        limit: Duration,
        mut fits: impl FnMut(&Element) -> bool,
    ) -> Result<Element> {
        let end = Instant::now() + limit;
        loop {
            let changed = self.inbox.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.inbox.state.lock();
                if let Some(at) = state.stanzas.iter().position(&mut fits) {
                    return Ok(state.stanzas.remove(at).expect("the position is in range"));
                }
                if state.ended {
                    bail!(
                        "{}: {what}: the stream ended; inbox: {:#?}",
                        self.full,
                        state.stanzas
                    );
                }
            }
            if timeout(end.saturating_duration_since(Instant::now()), changed)
                .await
                .is_err()
            {
                let state = self.inbox.state.lock();
                bail!(
                    "{}: {what}: not within {limit:?}; inbox: {:#?}",
                    self.full,
                    state.stanzas
                );
            }
        }
    }

    /// Takes the message with `id`, be it the message or its error.
    ///
    /// # Errors
    /// As [`Self::expect`].
    pub async fn expect_message(&self, id: &str) -> Result<Element> {
        self.expect(&format!("message {id}"), |stanza| {
            stanza.name == "message" && stanza.attribute("id") == Some(id)
        })
        .await
    }

    /// Takes presence of `kind` (`None`: available) from the bare or full JID `from`.
    ///
    /// # Errors
    /// As [`Self::expect`].
    pub async fn expect_presence(&self, from: &str, kind: Option<&str>) -> Result<Element> {
        self.expect(&format!("presence {kind:?} from {from}"), |stanza| {
            stanza.name == "presence"
                && stanza.attribute("type") == kind
                && stanza
                    .attribute("from")
                    .is_some_and(|f| f == from || f.split('/').next() == Some(from))
        })
        .await
    }

    /// Takes everything that came so far.
    pub fn drain(&self) -> Vec<Element> {
        self.inbox.state.lock().stanzas.drain(..).collect()
    }

    /// Waits until something is in the inbox, the stream has ended, or `limit` has passed; then
    /// as [`Self::drain`], `None` once the stream ended and all was taken.
    pub async fn batch(&self, limit: Duration) -> Option<Vec<Element>> {
        let changed = self.inbox.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        {
            let mut state = self.inbox.state.lock();
            if !state.stanzas.is_empty() {
                return Some(state.stanzas.drain(..).collect());
            }
            if state.ended {
                return None;
            }
        }
        let _ = timeout(limit, changed).await;
        Some(self.drain())
    }

    /// Answers the next iq request that fits with a result of `payload`.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn answer(&self, namespace: &str, payload: &str) -> Result<Element> {
        let request = self
            .expect(&format!("a request of {namespace}"), |stanza| {
                stanza.name == "iq"
                    && stanza.attribute("type") == Some("get")
                    && stanza.children.iter().any(|c| c.namespace == namespace)
            })
            .await?;
        let from = escape(request.attribute("from").unwrap_or_default());
        let id = escape(request.attribute("id").unwrap_or_default());
        self.send(&format!(
            "<iq type='result' to='{from}' id='{id}'>{payload}</iq>"
        ))
        .await?;
        Ok(request)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn receive(mut read: OwnedReadHalf, mut framer: Framer, inbox: Arc<Inbox>) {
    let mut buffer = vec![0; 65536];
    loop {
        loop {
            match framer.next_item() {
                Ok(Some(Item::Element(element))) => inbox.state.lock().stanzas.push_back(element),
                Ok(Some(Item::Open(_))) => {}
                Ok(None) => break,
                Ok(Some(Item::Close)) | Err(_) => {
                    inbox.state.lock().ended = true;
                    inbox.changed.notify_waiters();
                    return;
                }
            }
        }
        inbox.changed.notify_waiters();
        match read.read(&mut buffer).await {
            Ok(length) if length > 0 => framer.push(&buffer[..length]),
            _ => {
                inbox.state.lock().ended = true;
                inbox.changed.notify_waiters();
                return;
            }
        }
    }
}
