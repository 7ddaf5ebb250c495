//! One edge that serves many scripted tests: own domains, scripted servers inside, a partner object
//! for each test, and a well-behaved partner that must never notice what the tests do.
//!
//! A [`Shared`] rig starts with the first test that needs it and ends with the last; each test works
//! as a [`Scene`] with a partner's domain of its own, so that its metrics and attempts are its own.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::Mutex};

use crate::{
    edge::{Edge, INTERNAL_PORT, Place, manifest, texts},
    lab::Lab,
    peer::{Behaviour, ClientTls, Features, Identity, Login, Peer, PeerServer},
    pki::{Leaf, Usage},
    servers::{DIRECT_TLS_PORT, S2S_PORT},
    wait,
};

/// The organisation's domains; the second has a gateway of its own.
pub const OWN: &str = "org.example";
pub const SECOND: &str = "second.example";
/// An own domain whose server inside does not run, until a test starts one at [`Rig::down`].
pub const DOWN: &str = "down.example";
/// Allowed to talk to everyone.
pub const ALICE: &str = "alice@org.example";
/// Has a policy that allows nothing.
pub const BOB: &str = "bob@org.example";
/// In no partner object.
pub const EVIL: &str = "evil.example";
/// The partner that always behaves.
pub const GOOD: &str = "good.example";

const FQDN: &str = "edge.example";
const EDGE_HOST: u8 = 20;
const EDGE_INTERNAL_HOST: u8 = 21;
const INSIDE_HOST: u8 = 30;
const SECOND_HOST: u8 = 31;
const DOWN_HOST: u8 = 32;
const GOOD_HOST: u8 = 50;
const EVIL_HOST: u8 = 51;
/// Host part of the first test's partner.
const FIRST_PARTNER_HOST: u8 = 60;

/// What a rig is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Partners are named by it: `x` makes `x-01` with domain `x01.example`, and so on.
    pub section: &'static str,
    /// How many tests, each with a partner.
    pub tests: u8,
    /// Fields of the partner's `spec` that differ from the standard (Federated, all negotiable
    /// except plaintext), by test. A test can have no partner: null.
    pub partner: fn(u8) -> Value,
    /// `spec.settings` of the pool.
    pub settings: fn() -> Value,
    /// Fields of the pool's `spec` that differ.
    pub pool: fn() -> Value,
    /// Objects more.
    pub objects: fn(&Lab) -> Vec<Value>,
}

impl Plan {
    /// All standard.
    pub const fn standard(section: &'static str, tests: u8) -> Self {
        Self {
            section,
            tests,
            partner: |_| json!({}),
            settings: || json!({}),
            pool: || json!({}),
            objects: |_| Vec::new(),
        }
    }

    fn name(&self, test: u8) -> String {
        format!("{}-{test:02}", self.section)
    }

    fn domain(&self, test: u8) -> String {
        format!("{}{test:02}.example", self.section)
    }
}

/// The running rig.
pub struct Rig {
    pub plan: Plan,
    /// Locked by those who restart it or edit its manifests.
    pub edge: Mutex<Edge>,
    /// The scripted server of [`OWN`].
    pub inside: PeerServer,
    /// The scripted server of [`SECOND`].
    pub second: PeerServer,
    /// The scripted server of [`GOOD`].
    pub good: PeerServer,
    good_identity: Leaf,
    own_identity: Leaf,
    place: Place,
    number: AtomicU64,
    // Last, so that its directory and DNS outlive the processes.
    pub lab: Lab,
}

impl Rig {
    /// Starts edge, servers inside and the good partner.
    ///
    /// # Errors
    /// The first part that does not get ready.
    pub async fn start(plan: Plan) -> Result<Self> {
        let lab = Lab::new().await?;
        let place = Place::in_lab(&lab, EDGE_HOST, EDGE_INTERNAL_HOST);
        lab.dns().host(FQDN, place.bind);
        for domain in [OWN, SECOND, DOWN] {
            lab.dns().xmpp_server(domain, 0, 0, S2S_PORT, FQDN);
        }
        publish(&lab, GOOD, GOOD_HOST);
        publish(&lab, EVIL, EVIL_HOST);
        for test in 1..=plan.tests {
            publish(&lab, &plan.domain(test), FIRST_PARTNER_HOST - 1 + test);
        }
        let edge = Edge::start(place.clone(), &manifests(&lab, &plan)).await?;
        let own_identity = edge.gateway_identity(OWN)?;
        let second_identity = edge.gateway_identity(SECOND)?;
        let good_identity = lab.authority().issue(&[GOOD], Usage::ServerAuth);
        let server = async |host: u8, leaf: &Leaf| {
            let at = SocketAddr::from((lab.ip(host), S2S_PORT));
            PeerServer::listen(at, Behaviour::good(Identity::of(leaf)?)).await
        };
        Ok(Self {
            inside: server(INSIDE_HOST, &own_identity).await?,
            second: server(SECOND_HOST, &second_identity).await?,
            good: server(GOOD_HOST, &good_identity).await?,
            plan,
            edge: Mutex::new(edge),
            good_identity,
            own_identity,
            place,
            number: AtomicU64::new(0),
            lab,
        })
    }

    /// A text that nobody else uses.
    pub fn fresh(&self) -> String {
        format!("n{}", self.number.fetch_add(1, Ordering::Relaxed))
    }

    /// The public STARTTLS listener.
    pub fn public(&self) -> SocketAddr {
        SocketAddr::from((self.place.bind, S2S_PORT))
    }

    /// The public direct TLS listener.
    pub fn direct(&self) -> SocketAddr {
        SocketAddr::from((self.place.bind, DIRECT_TLS_PORT))
    }

    /// The internal listener.
    pub fn internal(&self) -> SocketAddr {
        SocketAddr::from((self.place.internal_bind, INTERNAL_PORT))
    }

    /// Starts the server of [`DOWN`].
    ///
    /// # Errors
    /// When it runs already.
    pub async fn down(&self) -> Result<PeerServer> {
        let identity = self.edge.lock().await.gateway_identity(DOWN)?;
        let at = SocketAddr::from((self.lab.ip(DOWN_HOST), S2S_PORT));
        PeerServer::listen(at, Behaviour::good(Identity::of(&identity)?)).await
    }

    /// The certificate that the edge keeps for the server of [`OWN`].
    pub fn own_identity(&self) -> &Leaf {
        &self.own_identity
    }

    /// `/metrics` as text.
    ///
    /// # Errors
    /// When the admin port does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.edge.lock().await.get("/metrics").await?.1)
    }

    /// A message each way with the good partner, over a new stream inwards.
    ///
    /// # Errors
    /// When one does not arrive.
    pub async fn serves_the_good_partner(&self) -> Result<()> {
        let login = Login::External(&self.good_identity);
        let mut peer = Peer::login(self.public(), GOOD, OWN, &login).await?;
        let id = self.fresh();
        let friend = format!("friend@{GOOD}");
        peer.message(&friend, ALICE, &id, "hello").await?;
        self.inside.stanza_id(&id).await?;
        peer.send("</stream:stream>").await?;
        let login = Login::External(&self.own_identity);
        let mut inside = Peer::login(self.internal(), OWN, GOOD, &login).await?;
        let id = self.fresh();
        inside.message(ALICE, &friend, &id, "hello").await?;
        self.good.stanza_id(&id).await?;
        inside.send("</stream:stream>").await
    }
}

fn publish(lab: &Lab, domain: &str, host: u8) {
    let target = format!("xmpp.{domain}");
    lab.dns().host(&target, lab.ip(host));
    lab.dns().xmpp_server(domain, 0, 0, S2S_PORT, &target);
}

fn manifests(lab: &Lab, plan: &Plan) -> Vec<Value> {
    let certificate = lab
        .authority()
        .issue(&[OWN, SECOND, DOWN, FQDN], Usage::ServerAndClientAuth);
    let gateway = |domain: &str, host: u8| {
        json!({
            "domains": [domain],
            "mode": "Direct",
            "address": format!("{}:{S2S_PORT}", lab.ip(host)),
        })
    };
    let mut pool = json!({
        "site": "here",
        "domains": [OWN, SECOND, DOWN],
        "accessEdge": { "fqdn": FQDN },
        "listeners": { "dns": 53 },
        "gateways": [
            gateway(OWN, INSIDE_HOST),
            gateway(SECOND, SECOND_HOST),
            gateway(DOWN, DOWN_HOST),
        ],
        "certificate": { "secretRef": { "name": "edge-certificate" } },
        "trust": { "caConfigMapRef": { "name": "public-roots", "key": "ca.crt" } },
        "settings": (plan.settings)(),
    });
    merge(&mut pool, (plan.pool)());
    let access = |scope: &str, granted: bool, users: Value| {
        let mut spec = json!({
            "scope": scope,
            "enableFederationAccess": granted,
            "enableXmppAccess": granted,
            "enablePublicCloudAccess": granted,
        });
        merge(&mut spec, users);
        spec
    };
    let mut all = vec![
        texts(
            "ConfigMap",
            "public-roots",
            &BTreeMap::from([("ca.crt", lab.authority().certificate())]),
        ),
        texts(
            "Secret",
            "edge-certificate",
            &BTreeMap::from([
                ("tls.crt", certificate.certificate),
                ("tls.key", certificate.key),
            ]),
        ),
        manifest("EdgePool", "edge", pool),
        manifest(
            "XmppFederatedPartner",
            "good",
            json!({ "domain": GOOD, "partnerType": "Federated", "connectionLimit": 1000 }),
        ),
        manifest(
            "ExternalAccessPolicy",
            "everyone",
            access("Global", true, json!({})),
        ),
        manifest(
            "ExternalAccessPolicy",
            "nothing-for-bob",
            access("User", false, json!({ "users": [BOB] })),
        ),
    ];
    all.extend((1..=plan.tests).filter_map(|test| partner(plan, test)));
    all.extend((plan.objects)(lab));
    all
}

/// The partner object of a test; `None` where it has none.
fn partner(plan: &Plan, test: u8) -> Option<Value> {
    let more = (plan.partner)(test);
    if more.is_null() {
        return None;
    }
    let mut spec = json!({ "domain": plan.domain(test), "partnerType": "Federated" });
    merge(&mut spec, more);
    Some(manifest("XmppFederatedPartner", &plan.name(test), spec))
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// A rig that a file's tests share.
pub struct Shared {
    plan: Plan,
    running: OnceLock<Mutex<Weak<Rig>>>,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be built")
    })
}

impl Shared {
    /// Nothing starts before the first test.
    pub const fn new(plan: Plan) -> Self {
        Self {
            plan,
            running: OnceLock::new(),
        }
    }

    async fn rig(&self) -> Result<Arc<Rig>> {
        let running = self.running.get_or_init(|| Mutex::new(Weak::new()));
        let mut running = running.lock().await;
        if let Some(rig) = running.upgrade() {
            return Ok(rig);
        }
        let rig = Arc::new(Rig::start(self.plan).await?);
        *running = Arc::downgrade(&rig);
        Ok(rig)
    }

    /// Runs one test in its scene.
    ///
    /// # Panics
    /// When the test fails; shows what the edge logged about its domain.
    pub fn test(&self, number: u8, body: impl AsyncFnOnce(&Scene) -> Result<()>) {
        assert!(number <= self.plan.tests, "the plan has fewer partners");
        runtime().block_on(async {
            let rig = self.rig().await.expect("the rig starts");
            let scene = Scene::new(Arc::clone(&rig), number)
                .await
                .expect("the scene is set");
            let outcome = tokio::time::timeout(wait::GENEROUS * 3, body(&scene)).await;
            let failure = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "the test takes too long".to_owned(),
            };
            let log = rig.edge.lock().await.log();
            let about: Vec<_> = log
                .lines()
                .filter(|line| line.contains(&scene.domain) || line.contains("panic"))
                .collect();
            panic!(
                "{failure}\n--- edge about {} ---\n{}",
                scene.domain,
                about.join("\n")
            );
        });
    }
}

/// One test's part of a rig.
pub struct Scene {
    pub rig: Arc<Rig>,
    number: u8,
    /// The partner's domain, this test's alone.
    pub domain: String,
    /// The partner's object.
    pub name: String,
    /// A certificate for the domain as public CAs issue them.
    pub identity: Leaf,
    before: String,
    /// Length of the edge's log when the test began.
    logged: usize,
}

impl Scene {
    async fn new(rig: Arc<Rig>, number: u8) -> Result<Self> {
        let domain = rig.plan.domain(number);
        let identity = rig.lab.authority().issue(&[&domain], Usage::ServerAuth);
        let before = rig.metrics().await?;
        let logged = rig.edge.lock().await.log().len();
        Ok(Self {
            logged,
            number,
            name: rig.plan.name(number),
            domain,
            identity,
            before,
            rig,
        })
    }

    /// `local@domain` of the partner.
    pub fn user(&self, local: &str) -> String {
        format!("{local}@{}", self.domain)
    }

    /// A text that no other test uses.
    pub fn fresh(&self) -> String {
        format!("{}-{}", self.name, self.rig.fresh())
    }

    /// A text for what must not get through: [`Self::unharmed`] looks for it.
    pub fn forbidden(&self) -> String {
        format!("forbidden-{}", self.name)
    }

    /// Where the partner's server is, by DNS.
    pub fn address(&self) -> SocketAddr {
        let host = FIRST_PARTNER_HOST - 1 + self.number;
        SocketAddr::from((self.rig.lab.ip(host), S2S_PORT))
    }

    /// Another port of the same address.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address().ip(), port)
    }

    /// Replaces the partner's SRV records, `_xmpp-server` and `_xmpps-server`, by none.
    pub fn unpublish(&self) {
        let dns = self.rig.lab.dns();
        dns.remove(&format!("_xmpp-server._tcp.{}", self.domain));
        dns.remove(&format!("_xmpps-server._tcp.{}", self.domain));
    }

    /// The name in the partner's SRV record; its address is [`Self::address`].
    pub fn target(&self) -> String {
        format!("xmpp.{}", self.domain)
    }

    /// Starts the partner's server.
    ///
    /// # Errors
    /// When its address is taken.
    pub async fn serve(&self, behaviour: Behaviour) -> Result<PeerServer> {
        PeerServer::listen(self.address(), behaviour).await
    }

    /// The partner's server with its certificate: EXTERNAL, dialback, acks.
    ///
    /// # Errors
    /// As [`Self::serve`].
    pub async fn outside(&self) -> Result<PeerServer> {
        self.serve(self.good_behaviour()?).await
    }

    /// How [`Self::outside`] behaves.
    ///
    /// # Errors
    /// Never, where the scene's certificate is one.
    pub fn good_behaviour(&self) -> Result<Behaviour> {
        Ok(Behaviour::good(Identity::of(&self.identity)?))
    }

    /// A connection to the public listener, nothing sent.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(&self) -> Result<Peer> {
        Peer::connect(self.rig.public()).await
    }

    /// A connection of the partner after STARTTLS with `leaf`, the new stream open.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn secured(&self, leaf: Option<&Leaf>) -> Result<(Peer, Features)> {
        let mut peer = self.connect().await?;
        peer.open(&self.domain, OWN).await?;
        let identity = leaf.map(Identity::of).transpose()?;
        peer.starttls(&ClientTls::new(Some(OWN), identity)).await?;
        let features = peer.open(&self.domain, OWN).await?;
        Ok((peer, features))
    }

    /// A stream from the partner to [`OWN`], authenticated by EXTERNAL.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn partner(&self) -> Result<Peer> {
        self.partner_by(&Login::External(&self.identity)).await
    }

    /// A stream from the partner to [`OWN`].
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn partner_by(&self, login: &Login<'_>) -> Result<Peer> {
        let address = match login {
            Login::Direct(_) => self.rig.direct(),
            _ => self.rig.public(),
        };
        Peer::login(address, &self.domain, OWN, login).await
    }

    /// A stream from the server of [`OWN`] towards the partner, authenticated by EXTERNAL.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn inside(&self) -> Result<Peer> {
        self.inside_to(&self.domain).await
    }

    /// As [`Self::inside`], towards any domain.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn inside_to(&self, domain: &str) -> Result<Peer> {
        let login = Login::External(self.rig.own_identity());
        Peer::login(self.rig.internal(), OWN, domain, &login).await
    }

    /// A chat message from the partner to alice arrives inside.
    ///
    /// # Errors
    /// When it does not.
    pub async fn delivers_inwards(&self, peer: &mut Peer) -> Result<()> {
        let id = self.fresh();
        peer.message(&self.user("rob"), ALICE, &id, "hello").await?;
        let got = self.rig.inside.stanza_id(&id).await?;
        ensure!(
            got.attribute("from") == Some(&self.user("rob")),
            "arrived as {got:?}"
        );
        Ok(())
    }

    /// A chat message from alice to the partner arrives at its server.
    ///
    /// # Errors
    /// When it does not.
    pub async fn delivers_outwards(&self, inside: &mut Peer, outside: &PeerServer) -> Result<()> {
        let id = self.fresh();
        inside
            .message(ALICE, &self.user("rob"), &id, "hello")
            .await?;
        outside.stanza_id(&id).await?;
        Ok(())
    }

    /// The stanza that the edge sends inside as from the partner, with this id.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn inside_gets(&self, id: &str) -> Result<crate::xml::Element> {
        self.rig.inside.stanza_id(id).await
    }

    /// By how much a metric of this partner grew since the test began: all series of
    /// `xmpp_edge_<name>` with all of `labels` and this partner's label.
    ///
    /// # Errors
    /// When `/metrics` does not answer.
    pub async fn grown(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let partner = format!("partner=\"{}\"", self.name);
        let labels: Vec<_> = labels.iter().copied().chain([partner.as_str()]).collect();
        let now = self.rig.metrics().await?;
        Ok(sum(&now, name, &labels) - sum(&self.before, name, &labels))
    }

    /// Waits until a metric of this partner has grown.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn moved(&self, name: &str, labels: &[&str]) -> Result<()> {
        let partner = format!("partner=\"{}\"", self.name);
        let labels: Vec<_> = labels.iter().copied().chain([partner.as_str()]).collect();
        self.moved_anywhere(name, &labels).await
    }

    /// As [`Self::moved`], whoever the partner is.
    ///
    /// # Errors
    /// As there.
    pub async fn moved_anywhere(&self, name: &str, labels: &[&str]) -> Result<()> {
        let what = format!("{name}{labels:?} moves");
        let moved = wait::until(&what, std::time::Duration::from_secs(10), || async {
            let now = self.rig.metrics().await.ok()?;
            (sum(&now, name, labels) > sum(&self.before, name, labels)).then_some(())
        })
        .await;
        if moved.is_err() {
            let now = self.rig.metrics().await?;
            let lines: Vec<_> = now
                .lines()
                .filter(|l| l.contains(&self.name) || l.contains("refused") || l.contains("other"))
                .filter(|l| !l.contains("_bucket"))
                .collect();
            anyhow::bail!("{what}: it did not; there is\n{}", lines.join("\n"));
        }
        Ok(())
    }

    /// After an attack: nothing forbidden reached either leg, the good partner is served, and
    /// the metric that tells this kind of refusal moved.
    ///
    /// # Errors
    /// The first that does not hold.
    pub async fn unharmed(&self, moved: Moved<'_>) -> Result<()> {
        self.rig
            .serves_the_good_partner()
            .await
            .context("the good partner is not served")?;
        let forbidden = self.forbidden();
        for (leg, server) in [
            ("inside", &self.rig.inside),
            ("the second server inside", &self.rig.second),
            ("the good partner", &self.rig.good),
        ] {
            ensure!(
                !server.transcript().contains(&forbidden),
                "{forbidden} reached {leg}"
            );
        }
        match moved {
            Moved::Attempt(outcome) => {
                let label = format!("outcome=\"{outcome}\"");
                self.moved("attempts_total", &[&label]).await
            }
            Moved::Stranger(outcome) => {
                let label = format!("outcome=\"{outcome}\"");
                self.moved_anywhere("attempts_total", &[&label, "partner=\"other\""])
                    .await
            }
            Moved::Refused(reason) => {
                let label = format!("reason=\"{reason}\"");
                self.moved("stanzas_refused_total", &[&label]).await
            }
            Moved::Bounced(condition) => {
                let label = format!("condition=\"{condition}\"");
                self.moved("stanzas_bounced_total", &[&label]).await
            }
            Moved::Logged(text) => {
                let log = self.rig.edge.lock().await.log();
                ensure!(
                    log[self.logged..].contains(text),
                    "the log does not say {text}"
                );
                Ok(())
            }
            Moved::Connection(reason) => {
                let label = format!("reason=\"{reason}\"");
                self.moved_anywhere("connections_refused_total", &[&label])
                    .await
            }
        }
    }
}

/// Which metric tells what was refused.
#[derive(Clone, Copy, Debug)]
pub enum Moved<'a> {
    /// `attempts_total` of this partner, with this outcome.
    Attempt(&'a str),
    /// `attempts_total` of nobody's partner, with this outcome.
    Stranger(&'a str),
    /// `stanzas_refused_total` of this partner.
    Refused(&'a str),
    /// `stanzas_bounced_total` of this partner.
    Bounced(&'a str),
    /// `connections_refused_total`.
    Connection(&'a str),
    /// No metric but a line of the log since the test began: for streams of servers inside.
    Logged(&'a str),
}

fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let name = format!("xmpp_edge_{name}");
    metrics
        .lines()
        .filter_map(|line| {
            let (series, value) = line.strip_prefix(&name)?.rsplit_once(' ')?;
            let here = series.is_empty() || series.starts_with('{');
            (here && labels.iter().all(|label| series.contains(label)))
                .then(|| value.parse::<f64>().ok())?
        })
        .sum()
}

/// Runs a future that belongs to no rig on the runtime that all tests share.
///
/// # Panics
/// When it fails.
pub fn alone(body: impl Future<Output = Result<()>>) {
    if let Err(error) = runtime().block_on(body) {
        panic!("{error:#}");
    }
}
