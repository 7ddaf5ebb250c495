//! One organisation with its partners, that the tests of this suite share: one cluster, in which
//! `examples/cluster` was applied, and two partners on the internet.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use xmpp_edge_tests::{
    cluster::{
        Helm, Kubectl, Major,
        images::{Images, Product},
        inside::{self, CHAT},
        node::{Cluster, DNS, Internet, Lacking, Site, on_the_internet},
    },
    pki::{Authority, Usage},
    primary::{EDITOR, Primary, SECRET, Software},
    servers::{Acknowledge, C2S_PORT, Kind, Security, Server, Spec},
    wait,
};

/// The organisation's domain, as the examples have it.
pub const OWN: &str = "org.example";
/// Namespace of the edge.
pub const EDGE: &str = "edge";
/// Namespace of the operator.
pub const SYSTEM: &str = "edge-system";
/// The chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/xmpp-edge");

/// What one test may take, the start of all included.
const TEST: Duration = Duration::from_secs(900);
/// What pods may take to get as they should be.
pub const SOON: Duration = Duration::from_secs(90);

/// The suite's stage; nothing starts before the first test.
pub static STAGE: Shared = Shared {
    stage: OnceCell::const_new(),
};

/// Starts with the first test and ends with the process.
pub struct Shared {
    stage: OnceCell<Stage>,
}

impl Shared {
    /// Runs one test, none beside it. Each leaves the organisation as the examples have it.
    ///
    /// # Panics
    /// When the test fails.
    pub fn test(&'static self, body: impl AsyncFnOnce(&'static Stage) -> Result<()>) {
        on_the_internet(TEST, async |internet| {
            let stage = self.stage.get_or_try_init(|| Stage::start(internet));
            let stage = stage.await?;
            let outcome = body(stage).await;
            outcome.map_err(|error| stage.explain(error))
        });
    }
}

/// The organisation, and who it talks to.
pub struct Stage {
    /// `bob@partner.example`: ejabberd.
    pub partner: Server,
    /// `dave@friend.example`: Prosody, which acknowledges and sends again.
    pub friend: Server,
    /// Where clients of the organisation's Prosody connect.
    pub inside: SocketAddr,
    /// The internet's name server: BIND, primary of `example`.
    pub dns: Primary,
    /// Whom partners trust and are trusted by.
    pub authority: Authority,
    pub cluster: Cluster,
    pub internet: &'static Internet,
}

impl Stage {
    async fn start(internet: &'static Internet) -> Result<Self> {
        let images = Images::find().map_err(Lacking::from)?;
        let folder = tempfile::Builder::new().prefix("node-").tempdir()?;
        let archives = tokio::task::spawn_blocking(move || -> Result<_> {
            // The folder lives on as long as what is in it is wanted.
            Ok((build(&images, folder.path())?, folder))
        });
        let authority = Authority::new("Test Root of the Internet");
        let address = SocketAddr::from((internet.address(DNS.octets()[3])?, 53));
        let dns = Primary::start_at(Software::Bind, address, &[("example", "")]).await?;
        let cluster = Cluster::start(Site::First).await?;
        let (archives, folder) = archives.await??;
        for archive in archives {
            cluster.import(&archive)?;
        }
        drop(folder);
        // Below the cluster's folder, which somebody tidies: what all tests share is never dropped.
        let directory = cluster.server().directory().join("partners");
        let outside = async |kind, domain: &str, host, user| -> Result<Server> {
            let ip = internet.address(host)?;
            publish(&dns, domain, ip).await?;
            let spec = outside(&authority, domain, ip, user);
            Server::start(kind, spec, &directory).await
        };
        let (partner, friend) = tokio::try_join!(
            outside(Kind::Ejabberd, "partner.example", 10, "bob"),
            outside(Kind::Prosody, "friend.example", 11, "dave"),
        )?;
        let mut stage = Self {
            partner,
            friend,
            inside: SocketAddr::from((Ipv4Addr::UNSPECIFIED, C2S_PORT)),
            dns,
            authority,
            cluster,
            internet,
        };
        let installed = stage.install().await;
        installed.map_err(|error| stage.explain(error))?;
        Ok(stage)
    }

    /// What docs/guide/install.md and the comments in the examples say.
    async fn install(&mut self) -> Result<()> {
        self.apply(&example("namespaces.yaml"))?;
        let place = ["--namespace", SYSTEM, "--create-namespace"];
        let values = ["--set", "watchNamespaces={edge}"];
        self.helm()?
            .run(&[&["install", "xmpp-edge", CHART], &place[..], &values].concat())?;
        self.secret("tsig", &json!({"name": EDITOR, "secret": SECRET}))?;
        self.certify()?;
        let roots = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "roots", "namespace": EDGE},
            "data": {"ca.crt": self.authority.certificate()}});
        self.apply(&roots.to_string())?;
        for (file, pool) in [
            ("pool.yaml", "epool/hq"),
            ("second-site.yaml", "epool/branch"),
        ] {
            self.apply(&example(file))?;
            // No public CA vouches for anyone here.
            let trust = json!({"trust": {"caConfigMapRef": {"name": "roots", "key": "ca.crt"}}});
            self.edit(pool, &trust)?;
        }
        self.apply(&example("policy.yaml"))?;
        let partner = example("partner.yaml");
        self.apply(&partner)?;
        self.apply(
            &partner
                .replace("partner.example", "friend.example")
                .replace("name: partner", "name: friend"),
        )?;

        for (service, host) in [("hq-edge", 1), ("branch-edge", 2)] {
            self.found(&format!("service/{service}")).await?;
            self.cluster.balance(EDGE, service, host).await?;
        }
        self.start_inside().await?;
        for pool in ["epool/hq", "epool/branch"] {
            self.says(pool, "Ready", "True").await?;
        }
        Ok(())
    }

    /// Waits until the newest form of an object has this condition.
    pub async fn says(&self, what: &str, name: &str, status: &str) -> Result<()> {
        let wanted = format!("{name} is {status}");
        self.until(what, &wanted, |it| {
            (condition(it, name)? == status).then_some(())
        })
        .await
    }

    /// The organisation's Prosody, in a namespace of its own, with what the operator made for it.
    async fn start_inside(&mut self) -> Result<()> {
        let mut resolvers = Vec::new();
        for service in ["service/hq-internal", "service/branch-internal"] {
            let found = self.found(service).await?;
            let address = found["spec"]["clusterIP"].as_str().context("clusterIP")?;
            resolvers.push(address.to_owned());
        }
        let mut own = self.found("secret/xmpp-edge-gateway-org.example").await?;
        own["metadata"] = json!({"name": own["metadata"]["name"], "namespace": CHAT});
        self.apply(&own.to_string())?;
        let prosody = inside::manifest(&resolvers);
        self.apply(&prosody)?;
        self.inside = inside::until_it_runs(self.kubectl(), &["alice", "carol"])?;
        Ok(())
    }

    /// Gives the pool a certificate, or another one.
    pub fn certify(&self) -> Result<()> {
        let names = [OWN, "edge.org.example", "edge2.org.example"];
        let leaf = self.authority.issue(&names, Usage::ServerAndClientAuth);
        let pair = json!({"tls.crt": leaf.certificate, "tls.key": leaf.key});
        self.secret("edge-certificate", &pair)
    }

    fn secret(&self, name: &str, data: &Value) -> Result<()> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": EDGE},
            "stringData": data});
        self.apply(&secret.to_string())
    }

    pub fn kubectl(&self) -> &Kubectl {
        self.cluster.server().kubectl()
    }

    pub fn helm(&self) -> Result<Helm> {
        let server = self.cluster.server();
        Helm::on(server, Major::Four, server.admin())
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, text: &str) -> Result<()> {
        self.kubectl().run_with(&["apply", "--filename=-"], text)?;
        Ok(())
    }

    /// Merges into the spec of an object (`KIND/NAME`) of the edge's namespace.
    pub fn edit(&self, what: &str, spec: &Value) -> Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        let place = ["--namespace", EDGE, "--type=merge", "--patch", &patch];
        self.kubectl()
            .run(&[&["patch", what], &place[..]].concat())?;
        Ok(())
    }

    /// An object of the edge's namespace.
    pub fn get(&self, what: &str) -> Result<Value> {
        let place = ["--namespace", EDGE, "--output=json"];
        let text = self.kubectl().run(&[&["get", what], &place[..]].concat())?;
        serde_json::from_str(&text).with_context(|| what.to_owned())
    }

    /// Waits until an object is as wanted.
    pub async fn until<T>(
        &self,
        what: &str,
        wanted: &str,
        fits: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut last = Value::Null;
        let found = wait::until(&format!("{what}: {wanted}"), SOON, async || {
            last = self.get(what).ok()?;
            fits(&last)
        })
        .await;
        found.with_context(|| format!("{last:#}"))
    }

    async fn found(&self, what: &str) -> Result<Value> {
        self.until(what, "it is there", |it| Some(it.clone())).await
    }

    /// Keeps what explains a failure beside the cluster's logs.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let mut all = String::new();
        for command in [
            "get pods,services,endpointslices --all-namespaces --output=wide",
            "get xmpp --all-namespaces --output=yaml",
            "get events --all-namespaces",
            "logs --namespace=edge-system --selector=app.kubernetes.io/name=xmpp-edge --prefix --tail=-1",
            "logs --namespace=edge --selector=app.kubernetes.io/name=xmpp-edge-proxy --prefix --tail=-1",
            "logs --namespace=chat --selector=app=prosody --prefix --tail=-1",
        ] {
            let arguments: Vec<&str> = command.split(' ').collect();
            let said = match self.kubectl().run(&arguments) {
                Ok(said) => said,
                Err(error) => error.to_string(),
            };
            all += &format!("=== kubectl {command}\n{said}\n");
        }
        for server in [&self.partner, &self.friend] {
            all += &format!("=== {}\n{}\n", server.spec().domain, server.log());
        }
        all += &format!("=== DNS\n{}\n", self.dns.log());
        let path = self.cluster.server().directory().join("failure.log");
        let _ = fs::write(&path, all);
        error.context(format!("see {}", path.display()))
    }
}

/// `status` of a condition.
pub fn condition<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|it| it["type"] == name)?;
    let newest = object["metadata"]["generation"] == found["observedGeneration"];
    found["status"].as_str().filter(|_| newest)
}

/// A file of `examples/cluster`.
fn example(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cluster");
    fs::read_to_string(folder.join(file)).unwrap()
}

/// The archives of the pods' images: those of the chart, and that of the servers.
fn build(images: &Images, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut archives = vec![images.servers().to_owned()];
    for product in Product::ALL {
        archives.push(images.build(product, env!("CARGO_PKG_VERSION"), folder)?);
    }
    Ok(archives)
}

async fn publish(dns: &Primary, domain: &str, ip: Ipv4Addr) -> Result<()> {
    let target = format!("xmpp.{domain}.");
    dns.edit(&format!(
        "update add {target} 60 A {ip}\nupdate add _xmpp-server._tcp.{domain}. 60 SRV 0 0 5269 {target}"
    ))
    .await
}

fn outside(authority: &Authority, domain: &str, ip: Ipv4Addr, user: &str) -> Spec {
    Spec {
        domain: domain.to_owned(),
        ip,
        resolver: DNS,
        resolvers: Vec::new(),
        identity: authority.issue(&[domain], Usage::ServerAndClientAuth),
        trust: authority.certificate(),
        users: vec![user.to_owned()],
        security: Security::Certificates,
        direct_tls: false,
        bidi: false,
        acknowledge: Acknowledge::Resending,
        trace: true,
    }
}
