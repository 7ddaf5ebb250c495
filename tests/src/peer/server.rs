//! A listening server whose behaviour is a table: it answers as receiving and authoritative server
//! and keeps every stanza. Tests that need another order of things accept by [`Peer::accept`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};

use super::{Event, Identity, Open, PATIENCE, Peer, ServerTls, Session, ns};
use crate::xml::Element;

/// What it does with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    Never,
    Offered,
    Required,
}

/// How a question is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    Invalid,
    /// An error with this condition.
    Error(&'static str),
    /// No answer at all.
    Never,
    /// The connection is ended without a word.
    Close,
}

/// How a [`PeerServer`] behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// `None`: it has no TLS.
    pub identity: Option<Identity>,
    pub encryption: Encryption,
    /// EXTERNAL is offered to whoever shows a certificate.
    pub external: bool,
    /// How `<auth/>` is answered: [`Verdict::Valid`] is success, an error names the SASL condition.
    pub external_verdict: Verdict,
    /// Dialback is announced.
    pub dialback: bool,
    /// `<errors/>` in it: several pairs on one stream.
    pub errors: bool,
    /// How `db:result` is answered. `None`: by asking the key's maker at [`Self::authority`].
    pub result: Option<Verdict>,
    /// Where keys sent to us are verified: the edge's listener.
    pub authority: Option<SocketAddr>,
    /// How `db:verify` is answered. `None`: by the keys given with [`PeerServer::made`].
    pub verify: Option<Verdict>,
    pub acks: bool,
    /// XEP-0288 is offered.
    pub bidi: bool,
    /// `max-bytes` of XEP-0478 that is told.
    pub max_bytes: Option<u64>,
}

impl Behaviour {
    /// A good server: TLS required, EXTERNAL, dialback for those without a certificate.
    pub fn good(identity: Identity) -> Self {
        Self {
            identity: Some(identity),
            encryption: Encryption::Required,
            external: true,
            external_verdict: Verdict::Valid,
            dialback: true,
            errors: true,
            result: Some(Verdict::Valid),
            authority: None,
            verify: None,
            acks: true,
            bidi: false,
            max_bytes: None,
        }
    }

    /// TLS, no EXTERNAL.
    pub fn tls_dialback(identity: Identity) -> Self {
        Self {
            external: false,
            ..Self::good(identity)
        }
    }

    /// No TLS, dialback.
    pub fn plain() -> Self {
        Self {
            identity: None,
            encryption: Encryption::Never,
            external: false,
            external_verdict: Verdict::Valid,
            dialback: true,
            errors: true,
            result: Some(Verdict::Valid),
            authority: None,
            verify: None,
            acks: false,
            bidi: false,
            max_bytes: None,
        }
    }
}

/// A stanza that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Number of the connection, from 1.
    pub connection: usize,
    pub stanza: Element,
}

/// What a test makes a connection do beside its behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Writes these bytes.
    Send(String),
    /// Ends our side of the connection.
    HalfClose,
    /// Ends the connection at once, without a word.
    Drop,
    /// Reads nothing any more.
    Freeze,
    /// Reads again.
    Thaw,
}

/// What is known of one connection.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `from` and `to` of the last header.
    pub from: String,
    pub to: String,
    pub tls: Option<Session>,
    /// `External`, `Dialback`, or empty.
    pub method: &'static str,
    /// Keys received by `db:result`: from, to, the id that we gave the stream, key.
    pub keys: Vec<(String, String, String, String)>,
    /// Keys that we were asked about by `db:verify`.
    pub asked: usize,
    pub ended: bool,
    /// All bytes, decrypted.
    pub text: String,
}

#[derive(Default)]
struct State {
    behaviour: Mutex<Option<Behaviour>>,
    stanzas: Mutex<Vec<Received>>,
    connections: Mutex<BTreeMap<usize, Seen>>,
    keys: Mutex<Vec<String>>,
    commands: Mutex<BTreeMap<usize, mpsc::UnboundedSender<Command>>>,
    count: AtomicUsize,
    changed: Notify,
}

/// The server; it stops with the value, connections included.
pub struct PeerServer {
    address: SocketAddr,
    state: Arc<State>,
    task: Option<JoinHandle<()>>,
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl PeerServer {
    /// Listens on `address`; TLS that comes at once is served as direct TLS.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn listen(address: SocketAddr, behaviour: Behaviour) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        let state = Arc::new(State::default());
        *state.behaviour.lock() = Some(behaviour);
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            task: Some(task),
        })
    }

    /// Stops as a killed process does; its address is free afterwards.
    pub async fn kill(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it behaves towards connections that come from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        if let Some(behaviour) = &mut *self.state.behaviour.lock() {
            change(behaviour);
        }
    }

    /// As authoritative server, knows this key as its own.
    pub fn made(&self, key: &str) {
        self.state.keys.lock().push(key.to_owned());
    }

    /// Makes a connection do something; one that has ended does nothing.
    pub fn tell(&self, connection: usize, command: Command) {
        if let Some(commands) = self.state.commands.lock().get(&connection) {
            let _ = commands.send(command);
        }
    }

    /// As [`Self::tell`], all connections.
    pub fn tell_all(&self, command: &Command) {
        for commands in self.state.commands.lock().values() {
            let _ = commands.send(command.clone());
        }
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.state.count.load(Ordering::SeqCst)
    }

    /// Every connection so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.connections.lock().values().cloned().collect()
    }

    /// Everything received on all connections.
    pub fn transcript(&self) -> String {
        self.seen().into_iter().map(|seen| seen.text).collect()
    }

    /// All stanzas so far.
    pub fn stanzas(&self) -> Vec<Received> {
        self.state.stanzas.lock().clone()
    }

    /// The first stanza that `wanted` accepts, now or later.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn stanza(&self, what: &str, wanted: impl Fn(&Element) -> bool) -> Result<Received> {
        let found = timeout(PATIENCE, async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = self
                    .state
                    .stanzas
                    .lock()
                    .iter()
                    .find(|received| wanted(&received.stanza))
                    .cloned();
                if let Some(found) = found {
                    return found;
                }
                changed.await;
            }
        })
        .await;
        found.with_context(|| {
            let have: Vec<_> = self.seen().into_iter().map(|s| s.text).collect();
            format!("{}: no {what}; connections: {have:#?}", self.address)
        })
    }

    /// The stanza of this `id`.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn stanza_id(&self, id: &str) -> Result<Element> {
        self.stanza(&format!("stanza {id}"), |e| e.attribute("id") == Some(id))
            .await
            .map(|received| received.stanza)
    }

    /// Waits until the connections are as `wanted` says.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Seen]) -> bool) -> Result<Vec<Seen>> {
        timeout(PATIENCE, async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let seen = self.seen();
                if wanted(&seen) {
                    return seen;
                }
                changed.await;
            }
        })
        .await
        .with_context(|| format!("{what}: {:#?}", self.seen()))
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // Ends all connections with the server.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = state.count.fetch_add(1, Ordering::SeqCst) + 1;
        state.connections.lock().insert(number, Seen::default());
        let (tell, commands) = mpsc::unbounded_channel();
        state.commands.lock().insert(number, tell);
        let behaviour = state
            .behaviour
            .lock()
            .clone()
            .expect("a behaviour is set before the task starts");
        let mut connection = Connection {
            number,
            behaviour,
            state: Arc::clone(&state),
            stream_id: String::new(),
            authenticated: false,
            commands,
        };
        connections.spawn(async move {
            // An hour of silence is the edge's right; tests end earlier.
            let mut peer = Peer::over(stream).with_patience(std::time::Duration::from_secs(3600));
            let _ = connection.run(&mut peer).await;
            connection.note(&peer, |seen| seen.ended = true);
        });
        state.changed.notify_waiters();
    }
}

struct Connection {
    number: usize,
    behaviour: Behaviour,
    state: Arc<State>,
    stream_id: String,
    authenticated: bool,
    commands: mpsc::UnboundedReceiver<Command>,
}

impl Connection {
    fn note(&self, peer: &Peer, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.state.connections.lock().get_mut(&self.number) {
            change(seen);
            seen.text = peer.received();
            seen.tls = peer.session().cloned();
        }
        self.state.changed.notify_waiters();
    }

    async fn run(&mut self, peer: &mut Peer) -> Result<()> {
        if peer.first_byte().await == Some(0x16) {
            self.handshake(peer).await?;
        }
        let mut handled = 0_u32;
        let mut acks = false;
        loop {
            let event = match self.event(peer).await? {
                Some(event) => event,
                None => return Ok(()),
            };
            self.note(peer, |_| {});
            let element = match event {
                Event::Open(header) => {
                    self.header(peer, &header).await?;
                    continue;
                }
                Event::Element(element) => element,
                Event::Close => {
                    peer.send_anyway("</stream:stream>").await;
                    let _ = peer.half_close().await;
                    return Ok(());
                }
                Event::Eof | Event::Broken(_) => return Ok(()),
            };
            match (element.name.as_str(), element.namespace.as_str()) {
                ("starttls", ns::TLS) => {
                    peer.send(format!("<proceed xmlns='{}'/>", ns::TLS)).await?;
                    self.handshake(peer).await?;
                }
                ("auth", ns::SASL) => self.auth(peer).await?,
                ("result", ns::DIALBACK) => self.result(peer, &element).await?,
                ("verify", ns::DIALBACK) => self.verify(peer, &element).await?,
                ("enable", ns::ACKS) => {
                    acks = true;
                    peer.send(format!("<enabled xmlns='{}'/>", ns::ACKS))
                        .await?;
                }
                ("r", ns::ACKS) if acks => {
                    peer.send(format!("<a xmlns='{}' h='{handled}'/>", ns::ACKS))
                        .await?;
                }
                ("message" | "presence" | "iq", _) => {
                    handled = handled.wrapping_add(1);
                    self.state.stanzas.lock().push(Received {
                        connection: self.number,
                        stanza: element,
                    });
                    self.state.changed.notify_waiters();
                }
                _ => {}
            }
        }
    }

    /// The next event, while doing what the test tells; `None` to drop the connection.
    async fn event(&mut self, peer: &mut Peer) -> Result<Option<Event>> {
        let mut frozen = false;
        loop {
            let command = tokio::select! {
                event = peer.next(), if !frozen => return event.map(Some),
                command = self.commands.recv() => command,
            };
            match command {
                Some(Command::Send(text)) => peer.send(text).await?,
                Some(Command::HalfClose) => peer.half_close().await?,
                Some(Command::Freeze) => frozen = true,
                Some(Command::Thaw) => frozen = false,
                Some(Command::Drop) | None => return Ok(None),
            }
        }
    }

    async fn handshake(&self, peer: &mut Peer) -> Result<()> {
        let identity = self
            .behaviour
            .identity
            .clone()
            .context("TLS without an identity")?;
        peer.tls_server(&ServerTls {
            alpn: vec![b"xmpp-server".to_vec()],
            ..ServerTls::new(identity)
        })
        .await
    }

    async fn header(&mut self, peer: &mut Peer, header: &Element) -> Result<()> {
        let of = |name| header.attribute(name).unwrap_or_default().to_owned();
        let (from, to) = (of("from"), of("to"));
        self.stream_id = format!("peer-{}-{}", self.number, peer.received().len());
        self.note(peer, |seen| {
            seen.from.clone_from(&from);
            seen.to.clone_from(&to);
        });
        let mut open = Open::new(&to, &from);
        open.id = Some(self.stream_id.clone());
        peer.send(open.text() + &self.features(peer)).await
    }

    fn features(&self, peer: &Peer) -> String {
        let behaviour = &self.behaviour;
        let mut features = String::from("<stream:features>");
        let secured = peer.session();
        if secured.is_none() && behaviour.identity.is_some() {
            match behaviour.encryption {
                Encryption::Never => {}
                Encryption::Offered => features += &format!("<starttls xmlns='{}'/>", ns::TLS),
                Encryption::Required => {
                    features += &format!("<starttls xmlns='{}'><required/></starttls>", ns::TLS);
                }
            }
        }
        let open = secured.is_some() || behaviour.encryption != Encryption::Required;
        if open {
            let shown = secured.is_some_and(|tls| !tls.certificates.is_empty());
            if behaviour.external && shown && !self.authenticated {
                features += &format!(
                    "<mechanisms xmlns='{}'><mechanism>EXTERNAL</mechanism></mechanisms>",
                    ns::SASL
                );
            }
            if behaviour.dialback {
                let errors = if behaviour.errors { "<errors/>" } else { "" };
                features += &format!(
                    "<dialback xmlns='{}'>{errors}</dialback>",
                    ns::DIALBACK_FEATURE
                );
            }
            if behaviour.bidi && !self.authenticated {
                features += &format!("<bidi xmlns='{}'/>", ns::BIDI_FEATURE);
            }
            if behaviour.acks {
                features += &format!("<sm xmlns='{}'/>", ns::ACKS);
            }
            if let Some(bytes) = behaviour.max_bytes {
                features += &format!(
                    "<limits xmlns='{}'><max-bytes>{bytes}</max-bytes></limits>",
                    ns::LIMITS
                );
            }
        }
        features + "</stream:features>"
    }

    async fn auth(&mut self, peer: &mut Peer) -> Result<()> {
        let condition = match self.behaviour.external_verdict {
            Verdict::Valid => {
                peer.restart();
                self.authenticated = true;
                self.note(peer, |seen| seen.method = "External");
                return peer.send(format!("<success xmlns='{}'/>", ns::SASL)).await;
            }
            Verdict::Invalid => "not-authorized",
            Verdict::Error(condition) => condition,
            Verdict::Never => return Ok(()),
            Verdict::Close => anyhow::bail!("told to close"),
        };
        peer.send(format!(
            "<failure xmlns='{}'><{condition}/></failure>",
            ns::SASL
        ))
        .await
    }

    async fn result(&mut self, peer: &mut Peer, element: &Element) -> Result<()> {
        if element.attribute("type").is_some() {
            return Ok(());
        }
        let of = |name| element.attribute(name).unwrap_or_default().to_owned();
        let (from, to, key) = (of("from"), of("to"), element.text.clone());
        let id = self.stream_id.clone();
        self.note(peer, |seen| {
            seen.keys
                .push((from.clone(), to.clone(), id.clone(), key.clone()));
        });
        let verdict = match (&self.behaviour.result, self.behaviour.authority) {
            (Some(verdict), _) => verdict.clone(),
            (None, Some(authority)) => ask(authority, &from, &to, &id, &key)
                .await
                .unwrap_or(Verdict::Error("remote-connection-failed")),
            (None, None) => Verdict::Never,
        };
        if verdict == Verdict::Valid {
            self.note(peer, |seen| seen.method = "Dialback");
        }
        answer(peer, "result", &to, &from, None, &verdict).await
    }

    async fn verify(&mut self, peer: &mut Peer, element: &Element) -> Result<()> {
        let of = |name| element.attribute(name).unwrap_or_default().to_owned();
        self.note(peer, |seen| seen.asked += 1);
        let verdict = match &self.behaviour.verify {
            Some(verdict) => verdict.clone(),
            None if self.state.keys.lock().contains(&element.text) => Verdict::Valid,
            None => Verdict::Invalid,
        };
        let id = of("id");
        answer(peer, "verify", &of("to"), &of("from"), Some(&id), &verdict).await
    }
}

/// Answers a dialback request.
async fn answer(
    peer: &mut Peer,
    name: &str,
    from: &str,
    to: &str,
    id: Option<&str>,
    verdict: &Verdict,
) -> Result<()> {
    let id = id.map(|id| format!(" id='{id}'")).unwrap_or_default();
    let start = format!("<db:{name} from='{from}' to='{to}'{id}");
    match verdict {
        Verdict::Valid => peer.send(start + " type='valid'/>").await,
        Verdict::Invalid => peer.send(start + " type='invalid'/>").await,
        Verdict::Error(condition) => {
            let error = ns::STANZA_ERRORS;
            peer.send(format!(
                "{start} type='error'><error type='cancel'><{condition} xmlns='{error}'/></error></db:{name}>"
            ))
            .await
        }
        Verdict::Never => Ok(()),
        Verdict::Close => anyhow::bail!("told to close"),
    }
}

/// As receiving server, asks the authoritative server of `from` at `authority`.
async fn ask(authority: SocketAddr, from: &str, to: &str, id: &str, key: &str) -> Result<Verdict> {
    let mut peer = Peer::connect(authority).await?;
    let features = peer.open(to, from).await?;
    if features.starttls().is_some() {
        let tls = super::ClientTls::new(Some(from), None);
        peer.starttls(&tls).await?;
        peer.open(to, from).await?;
    }
    let verdict = peer.db_verify(to, from, id, key).await?;
    ensure!(
        verdict == "valid" || verdict == "invalid",
        "the authoritative server says {verdict}"
    );
    Ok(if verdict == "valid" {
        Verdict::Valid
    } else {
        Verdict::Invalid
    })
}
