//! A lab: one edge, the organisation's server, the partner's server. The servers accept streams, grant
//! every dialback key they are shown, and confirm what they are asked about their own keys.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, Notify, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::EdgeConfig;
use xmpp_edge_proxy::{
    app::{self, RunOptions, ServeError},
    config::{ConfigInputs, ConfigSecrets, ConfigUpdate},
};
use zeroize::Zeroizing;

/// What a loaded machine may need for one step.
const GENEROUS: Duration = Duration::from_secs(40);
/// The key that our servers make; every other one is not theirs.
const KEY: &str = "thekey";
const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'";

/// What differs from test to test.
#[derive(Clone, Default)]
pub struct Plan {
    /// 0: the default.
    pub queue_timeout_seconds: u32,
    /// The gateway offers XEP-0198; its acks are the test's.
    pub gateway_acks: bool,
    /// The partner offers XEP-0198; its acks are the test's.
    pub partner_acks: bool,
    /// What the partner makes of a stream's second pair.
    pub partner_on_second: Second,
    /// So many first connections to the gateway read nothing once the stream stands.
    pub deaf_connections: usize,
    /// So many first connections to the partner are turned away: it is down.
    pub partner_turns_away: usize,
    /// How long the partner takes to answer a header.
    pub partner_is_slow: Duration,
    /// How each server confirms what it got, where the test does not.
    pub gateway_confirms: Confirms,
    pub partner_confirms: Confirms,
    /// 0: the default.
    pub max_stanza_bytes: u32,
    /// Port of the admin listener; 0: none.
    pub admin: u16,
}

/// How a server confirms what it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirms {
    /// By answering `db:verify`, where it is asked by that; acks are the test's.
    #[default]
    Verify,
    /// By XEP-0198, by itself.
    Acks,
    /// Neither; it may answer pings ([`Server::answers_pings`]).
    Nothing,
}

/// How a further `db:result` on a stream is answered.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Second {
    #[default]
    Valid,
    Error,
    /// By the test, if at all.
    Silence,
}

/// Message `id` of a user inside to a partner's.
pub fn outward(from: &str, to: &str, id: &str) -> String {
    format!(
        "<message from='alice@{from}/x' to='rob@{to}' type='chat' id='{id}'>\
         <body>hello</body></message>"
    )
}

/// Message number `id` from the partner's user to the organisation's.
pub fn message(id: u32) -> String {
    format!(
        "<message from='rob@partner.example/x' to='alice@org.example' type='chat' id='{id}'>\
         <body>hello</body></message>"
    )
}

pub struct Lab {
    public: SocketAddr,
    internal: SocketAddr,
    admin: u16,
    pub gateway: Server,
    pub partner: Server,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
    inputs: watch::Sender<ConfigUpdate>,
    _state: tempfile::TempDir,
}

impl Lab {
    pub async fn start(number: u8, plan: Plan) -> Self {
        let of = |last: u8, port| SocketAddr::from(([127, 90, number, last], port));
        let acks = plan.gateway_acks;
        let partner = Server::open(
            of(2, 5269),
            Served {
                acks: plan.partner_acks,
                confirms: plan.partner_confirms,
                on_second: plan.partner_on_second,
                turned_away: AtomicUsize::new(plan.partner_turns_away),
                slow: plan.partner_is_slow,
                ..Served::default()
            },
        );
        let gateway = Server::open(
            of(3, 5269),
            Served {
                acks,
                confirms: plan.gateway_confirms,
                deaf: plan.deaf_connections,
                ..Served::default()
            },
        );
        let inputs = inputs(number, &plan);
        let (sender, receiver) = watch::channel(inputs.into());
        let state = tempfile::tempdir().expect("a directory");
        let options = RunOptions {
            bind: vec![of(1, 0).ip()],
            internal_bind: vec![of(1, 0).ip()],
            // Nothing is looked up: every address is fixed.
            resolver: Some(of(1, 53)),
            trust_anchors: Default::default(),
            state_dir: state.path().to_owned(),
            pod: None,
            peer_keys: None,
            further_metrics: None,
        };
        let shutdown = CancellationToken::new();
        // Never told: without certificate it is not ready, and listens all the same.
        let (ready, _) = oneshot::channel();
        let running = tokio::spawn(app::run(options, receiver, shutdown.clone(), ready));
        Self {
            public: of(1, 5269),
            internal: of(1, 23456),
            admin: plan.admin,
            gateway,
            partner,
            shutdown,
            running,
            inputs: sender,
            _state: state,
        }
    }

    pub async fn connect_partner(&self) -> Stream {
        self.connect(self.public).await
    }

    async fn connect(&self, address: SocketAddr) -> Stream {
        let stream = within("a connection to the edge", async {
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    return stream;
                }
                tokio::task::yield_now().await;
                assert!(!self.running.is_finished(), "the edge has ended");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        Stream::new(stream)
    }

    /// A stream from the partner's domain, authenticated by dialback.
    pub async fn partner_stream(&self) -> Stream {
        let stream = self.connect_partner().await;
        Self::authenticate(stream, "partner.example", "org.example").await
    }

    /// A stream from an own domain to a partner's, authenticated by dialback.
    pub async fn inside_stream(&self, from: &str, to: &str) -> Stream {
        let stream = self.connect(self.internal).await;
        Self::authenticate(stream, from, to).await
    }

    async fn authenticate(mut stream: Stream, from: &str, to: &str) -> Stream {
        stream
            .say(&format!("{HEADER} from='{from}' to='{to}'>"))
            .await;
        stream.hears("</stream:features>").await;
        stream
            .say(&format!(
                "<db:result from='{from}' to='{to}'>{KEY}</db:result>"
            ))
            .await;
        stream.hears("type='valid'").await;
        stream
    }

    /// Another configuration comes into force.
    pub fn change(&self, change: impl FnOnce(&mut EdgeConfig)) {
        self.inputs.send_modify(|offer| {
            let inputs = offer.inputs.as_mut().expect("it was begun with");
            // The edge holds the one before: this is another.
            let config = Arc::make_mut(&mut inputs.config);
            config.generation += 1;
            change(config);
        });
    }

    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// The edge no longer accepts: it drains.
    pub async fn refuses_connections(&self) {
        within("the listener's end", async {
            while TcpStream::connect(self.public).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// `GET path` on the admin port, whole.
    pub async fn get(&self, path: &str) -> String {
        let address = SocketAddr::new(self.public.ip(), self.admin);
        let answered = async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
            stream
                .write_all(request.as_bytes())
                .await
                .expect("it is read");
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .await
                .expect("it is answered");
            answer
        };
        within("an answer of the admin port", answered).await
    }

    /// Whoever offers configurations is gone.
    pub fn lose_the_configuration(&mut self) {
        self.inputs = watch::channel(ConfigUpdate::default()).0;
    }

    /// Why the edge ended.
    pub async fn failure(self) -> ServeError {
        within("the edge's end", self.running)
            .await
            .expect("no panic")
            .expect_err("it ends for a reason")
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        within("the edge's end", self.running)
            .await
            .expect("no panic")
            .expect("an orderly end");
    }
}

/// The partner's server alone, which answers for its keys.
pub fn partner_server(number: u8, plan: &Plan) -> Server {
    Server::open(
        SocketAddr::from(([127, 90, number, 2], 5269)),
        Served {
            acks: plan.partner_acks,
            ..Served::default()
        },
    )
}

/// An organisation and a partner of two domains each, both in plaintext at fixed addresses.
pub fn inputs(number: u8, plan: &Plan) -> ConfigInputs {
    let of = |last: u8, port| SocketAddr::from(([127, 90, number, last], port));
    let timeout = match plan.queue_timeout_seconds {
        0 => 20,
        seconds => seconds,
    };
    let mut config = serde_json::json!({
        "version": {"major": 1, "minor": 0}, "generation": 1,
        "namespace": "default", "pool": "edge", "site": "a", "fqdn": "edge.org.example",
        "domains": ["org.example", "org2.example"],
        "namespaceDomains": ["org.example", "org2.example"],
        "listeners": {"s2s": 5269, "directTls": 0, "internal": 23456, "admin": plan.admin, "dns": 0},
        "gateways": [{
            "domains": ["org.example", "org2.example"], "mode": "Direct",
            "address": of(3, 5269).to_string(),
            "negotiation": {"tls": "NotSupported", "sasl": "NotSupported", "dialback": true},
            "methods": ["TcpDialback"],
        }],
        "partners": [{
            "name": "partner", "domains": ["partner.example", "partner2.example"], "partnerType": "Federated",
            "negotiation": {"tls": "NotSupported", "sasl": "NotSupported", "dialback": true},
            "methods": ["TcpDialback"], "enableKeepAlive": true, "connectionLimit": 20,
            "proxyFqdn": of(2, 5269).to_string(),
        }],
        "access": {
            "policies": [{
                "name": "all", "scope": "Global", "enableFederationAccess": true,
                "enableXmppAccess": true, "enablePublicCloudAccess": true, "mode": "Enforce",
            }],
            "homeSites": {"org.example": "a", "org2.example": "a"},
        },
        "settings": {"queueTimeoutSeconds": timeout},
        "contacts": "Embedded",
    });
    if plan.max_stanza_bytes > 0 {
        config["settings"]["maxStanzaBytes"] = plan.max_stanza_bytes.into();
    }
    ConfigInputs {
        config: Arc::new(serde_json::from_value(config).expect("a configuration")),
        materials: Arc::new(ConfigSecrets {
            certificate: None,
            internal_ca: authority(),
            issuer: None,
            dialback_secret: Zeroizing::new(b"a secret of the lab".to_vec()),
            dialback_previous: None,
            admin_token: None,
            contacts_url: None,
            contacts_ca: None,
            egress_credentials: None,
        }),
    }
}

fn authority() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.self_signed(&key).expect("a certificate").pem()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GENEROUS, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {GENEROUS:?}"),
    }
}

/// A connection of the test's own.
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

pub struct Reader {
    half: Option<OwnedReadHalf>,
    heard: String,
}

pub struct Writer(Option<OwnedWriteHalf>);

impl Stream {
    fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: Reader {
                half: Some(reader),
                heard: String::new(),
            },
            writer: Writer(Some(writer)),
        }
    }

    pub fn split(&mut self) -> (Reader, Writer) {
        let reader = Reader {
            half: self.reader.half.take(),
            heard: std::mem::take(&mut self.reader.heard),
        };
        (reader, Writer(self.writer.0.take()))
    }

    pub async fn say(&mut self, text: &str) {
        self.writer.say(text).await;
    }

    /// Reads until `text` has come.
    pub async fn hears(&mut self, text: &str) {
        self.reader.hears(text).await;
    }

    pub fn heard(&self) -> &str {
        &self.reader.heard
    }

    /// Asks until so many stanzas are acknowledged.
    pub async fn acknowledged(&mut self, stanzas: usize) {
        let wanted = format!("h='{stanzas}'");
        for _ in 0..600 {
            let answers = self.heard().matches("<a ").count();
            self.say("<r xmlns='urn:xmpp:sm:3'/>").await;
            self.reader.hears_times("<a ", answers + 1).await;
            if self.heard().contains(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{wanted} did not come, but: {}", self.heard());
    }

    pub async fn close(mut self) {
        self.writer.say("</stream:stream>").await;
        self.reader.close().await;
    }
}

impl Writer {
    /// The other end may be gone: what it heard decides.
    pub async fn say(&mut self, text: &str) {
        let half = self.0.as_mut().expect("not split off");
        let _ = half.write_all(text.as_bytes()).await;
    }
}

impl Reader {
    pub async fn hears(&mut self, text: &str) {
        self.hears_times(text, 1).await;
    }

    async fn hears_times(&mut self, text: &str, times: usize) {
        let half = self.half.as_mut().expect("not split off");
        let heard = &mut self.heard;
        let came = tokio::time::timeout(GENEROUS, async {
            let mut buf = vec![0; 65_536];
            while heard.matches(text).count() < times {
                match half.read(&mut buf).await {
                    Ok(0) | Err(_) => return false,
                    Ok(count) => heard.push_str(&String::from_utf8_lossy(&buf[..count])),
                }
            }
            true
        })
        .await;
        assert!(came == Ok(true), "{text:?} did not come, but: {heard}");
    }

    pub async fn close(&mut self) {
        self.half = None;
    }
}

/// A server that listens.
pub struct Server {
    state: Arc<Served>,
}

#[derive(Default)]
struct Served {
    acks: bool,
    confirms: Confirms,
    on_second: Second,
    deaf: usize,
    /// Connections that are still to be turned away.
    turned_away: AtomicUsize,
    slow: Duration,
    accepted: AtomicUsize,
    heard: Mutex<String>,
    changed: Notify,
    writers: AsyncMutex<Vec<Option<OwnedWriteHalf>>>,
}

impl Server {
    fn open(address: SocketAddr, served: Served) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        if served.deaf > 0 {
            // So that the edge soon finds its own buffer full.
            socket.set_recv_buffer_size(8_192).expect("an option");
        }
        socket.bind(address).expect("a free address");
        let listener = socket.listen(64).expect("a free address");
        let state = Arc::new(served);
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let left = served.turned_away.load(Ordering::SeqCst);
                if left > 0 {
                    served.turned_away.store(left - 1, Ordering::SeqCst);
                    continue;
                }
                tokio::spawn(Arc::clone(&served).serve(stream));
            }
        });
        Self { state }
    }

    async fn waits_until(&self, what: &str, mut holds: impl FnMut(&Served) -> bool) {
        let came = tokio::time::timeout(GENEROUS, async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds(&self.state) {
                    return;
                }
                changed.await;
            }
        })
        .await;
        assert!(came.is_ok(), "{what}; heard: {}", self.all_heard());
    }

    fn all_heard(&self) -> String {
        self.state.heard.lock().clone()
    }

    /// Until so many connections whose stream is to carry stanzas have come.
    pub async fn connected(&self, count: usize) {
        self.waits_until("connections", |state| {
            state.accepted.load(Ordering::SeqCst) >= count
        })
        .await;
    }

    /// Until so many stanzas have come, on all connections together.
    pub async fn heard_stanzas(&self, count: usize) {
        self.waits_until("stanzas", |state| ids(&state.heard.lock()).len() >= count)
            .await;
    }

    pub async fn hears(&self, text: &str) {
        self.hears_times(text, 1).await;
    }

    pub async fn hears_times(&self, text: &str, times: usize) {
        self.waits_until(text, |state| {
            state.heard.lock().matches(text).count() >= times
        })
        .await;
    }

    pub fn heard_times(&self, text: &str) -> usize {
        self.all_heard().matches(text).count()
    }

    /// Ids of all stanzas in the order in which they came.
    pub fn ids(&self) -> Vec<String> {
        ids(&self.all_heard())
    }

    /// The newest id that begins so, of whatever came.
    pub fn newest_id(&self, prefix: &str) -> String {
        let heard = self.all_heard();
        let at = heard.rfind(prefix).expect("one came");
        let rest = &heard[at..];
        rest[..rest.find('\'').unwrap_or(rest.len())].to_owned()
    }

    /// On the stanza connection of this number, from 1 on.
    pub async fn say(&self, connection: usize, text: &str) {
        let mut writers = self.state.writers.lock().await;
        let writer = writers[connection - 1].as_mut().expect("it is open");
        writer.write_all(text.as_bytes()).await.expect("it is read");
    }

    /// It is down for so many connections from here on.
    pub fn turn_away(&self, connections: usize) {
        self.state.turned_away.store(connections, Ordering::SeqCst);
    }

    /// Connections whose stream carries stanzas, so far.
    pub fn streams(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Answers every ping that the edge asks this server by, on a stream of the server's own from `from`
    /// to `to`, until it is aborted.
    pub fn answers_pings(&self, mut stream: Stream, from: &str, to: &str) -> JoinHandle<()> {
        const PREFIX: &str = "xmpp-edge-ack-";
        let (state, ends) = (Arc::clone(&self.state), format!("from='{from}' to='{to}'"));
        tokio::spawn(async move {
            let mut answered = 0;
            loop {
                let changed = state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let ids: Vec<String> = state
                    .heard
                    .lock()
                    .split(PREFIX)
                    .skip(1 + answered)
                    .filter_map(|rest| Some(format!("{PREFIX}{}", &rest[..rest.find('\'')?])))
                    .collect();
                answered += ids.len();
                for id in ids {
                    stream
                        .say(&format!("<iq {ends} type='result' id='{id}'/>"))
                        .await;
                }
                changed.await;
            }
        })
    }

    /// How many stanzas of this id came: without and with `type='error'`.
    pub fn came(&self, id: &str) -> (usize, usize) {
        let heard = self.state.heard.lock();
        let tags = heard.split('<').filter(|rest| {
            ["message ", "iq ", "presence "]
                .iter()
                .any(|name| rest.starts_with(name))
        });
        let mine = tags.filter(|tag| attribute(&tag[..tag.find('>').unwrap_or(0)], "id") == id);
        let (errors, others): (Vec<_>, Vec<_>) =
            mine.partition(|tag| attribute(tag, "type") == "error");
        (others.len(), errors.len())
    }

    /// Until the stanzas of each of these ids have come.
    pub async fn comes<'a>(&self, ids: impl Iterator<Item = &'a String> + Clone) {
        self.waits_until("stanzas by id", |state| {
            let heard = state.heard.lock();
            ids.clone().all(|id| {
                heard.contains(&format!(" id='{id}'")) || heard.contains(&format!(" id=\"{id}\""))
            })
        })
        .await;
    }

    pub async fn hang_up(&self, connection: usize) {
        let mut writer = self.state.writers.lock().await[connection - 1]
            .take()
            .expect("it is open");
        writer.shutdown().await.expect("it is open");
    }
}

fn ids(heard: &str) -> Vec<String> {
    heard
        .split("<message ")
        .skip(1)
        .filter(|rest| rest.contains("</message>"))
        .filter_map(|rest| {
            let tag = &rest[..rest.find('>')?];
            Some(attribute(tag, "id"))
        })
        .collect()
}

fn attribute(tag: &str, name: &str) -> String {
    for quote in ['\'', '"'] {
        let start = format!(" {name}={quote}");
        if let Some(at) = tag.find(&start) {
            let value = &tag[at + start.len()..];
            return value[..value.find(quote).unwrap_or(0)].to_owned();
        }
    }
    String::new()
}

impl Served {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let (mut reader, writer) = stream.into_split();
        let mut writer = Some(writer);
        let mut mine: Option<usize> = None;
        let mut pending = String::new();
        let mut buf = vec![0; 65_536];
        let mut handled = 0;
        loop {
            let Ok(count @ 1..) = reader.read(&mut buf).await else {
                return;
            };
            let text = String::from_utf8_lossy(&buf[..count]).into_owned();
            pending.push_str(&text);
            self.heard.lock().push_str(&text);
            let mut answer = String::new();
            while let Some((reply, rest)) = self.answer(&pending, mine.is_some(), &mut handled) {
                answer.push_str(&reply);
                pending = rest;
            }
            let is_valid = answer.contains("<db:result");
            if answer.contains("<stream:stream") {
                tokio::time::sleep(self.slow).await;
            }
            if let Some(number) = mine {
                if let Some(writer) = &mut self.writers.lock().await[number] {
                    let _ = writer.write_all(answer.as_bytes()).await;
                }
            } else if let Some(mut own) = writer.take() {
                let _ = own.write_all(answer.as_bytes()).await;
                if is_valid {
                    let mut writers = self.writers.lock().await;
                    mine = Some(writers.len());
                    writers.push(Some(own));
                    drop(writers);
                    let number = self.accepted.fetch_add(1, Ordering::SeqCst);
                    if number < self.deaf {
                        self.changed.notify_waiters();
                        std::future::pending::<()>().await;
                    }
                } else {
                    writer = Some(own);
                }
            }
            self.changed.notify_waiters();
        }
    }

    /// What is to be said to the next thing that wants an answer, and what follows it.
    fn answer(&self, text: &str, carries: bool, handled: &mut usize) -> Option<(String, String)> {
        let acks_itself = self.confirms == Confirms::Acks;
        let asked = ["<stream:stream", "<db:result", "<db:verify", "<enable"].into_iter();
        let first = asked
            .chain(acks_itself.then_some("<r xmlns='urn:xmpp:sm:3'/>"))
            .filter_map(|start| text.find(start))
            .min()?;
        let rest = &text[first..];
        let end = rest.find('>')?;
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        if acks_itself {
            let came = ["<message ", "<iq ", "<presence "];
            *handled += came
                .map(|start| text[..first].matches(start).count())
                .iter()
                .sum::<usize>();
        }
        if tag.starts_with("<r ") {
            let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>");
            return Some((ack, after.to_owned()));
        }
        if tag.starts_with("<stream:stream") {
            let acks = if self.acks || acks_itself {
                "<sm xmlns='urn:xmpp:sm:3'/>"
            } else {
                ""
            };
            // Without errors it is never asked for a sign of life: written is delivered.
            let asks = self.deaf == 0 && self.confirms != Confirms::Nothing;
            let errors = if asks { "<errors/>" } else { "" };
            let reply = format!(
                "{HEADER} id='{:x}'><stream:features><dialback xmlns='urn:xmpp:features:dialback'>\
                 {errors}</dialback>{acks}</stream:features>",
                self.accepted.load(Ordering::SeqCst)
            );
            return Some((reply, after.to_owned()));
        }
        if tag.starts_with("<enable") {
            return Some((
                "<enabled xmlns='urn:xmpp:sm:3'/>".to_owned(),
                after.to_owned(),
            ));
        }
        let close = after.find("</db:")?;
        let (key, after) = (&after[..close], &after[close..]);
        let after = after[after.find('>')? + 1..].to_owned();
        let (from, to) = (attribute(tag, "from"), attribute(tag, "to"));
        let reply = if tag.starts_with("<db:result") {
            match (carries, self.on_second) {
                (true, Second::Silence) => String::new(),
                (true, Second::Error) => {
                    format!("<db:result from='{to}' to='{from}' type='error'/>")
                }
                (false, _) | (true, Second::Valid) => {
                    format!("<db:result from='{to}' to='{from}' type='valid'/>")
                }
            }
        } else {
            let id = attribute(tag, "id");
            let verdict = if key == KEY { "valid" } else { "invalid" };
            format!("<db:verify from='{to}' to='{from}' id='{id}' type='{verdict}'/>")
        };
        Some((reply, after))
    }
}
