//! An edge on a generated configuration, or HAProxy as the plain relay, with a sink behind.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use xmpp_edge_tests::{
    pki::{Authority, Leaf, Usage},
    pod::BINARY,
};

use xmpp_edge_proxy::contacts::{ContactChange, ContactEvent, ContactStore};

use crate::{
    load::{Partner, Shape},
    process::Process,
    sink::Sink,
};

/// The hop inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// Plain TCP with dialback.
    Plain,
    /// Mutual TLS with SASL EXTERNAL.
    MutualTls,
    /// That, and XEP-0198 on both legs.
    Custody,
    /// A trunk to a sidecar, which goes on as [`Self::Custody`].
    Trunk,
}

impl Inside {
    /// Whether what the partner sends is acknowledged, and by whom it is taken too.
    pub fn has_custody(self) -> bool {
        matches!(self, Self::Custody | Self::Trunk)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::MutualTls => "mutual TLS",
            Self::Custody => "custody",
            Self::Trunk => "a trunk",
        }
    }
}

/// By which rules stanzas pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// A partner of type Federated and users who are granted.
    Federated,
    /// The same of users whose policy would refuse, in mode Audit.
    Audit,
    /// A partner of type PublicUnverified: rule 4 asks 100,000 contacts.
    Contacts,
}

impl Rules {
    pub fn name(self) -> &'static str {
        match self {
            Self::Federated => "Federated",
            Self::Audit => "Audit",
            Self::Contacts => "PublicUnverified with 100,000 contacts",
        }
    }
}

/// What the edge may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    One,
    All,
}

/// What an edge has to do.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub inside: Inside,
    pub rules: Rules,
    /// Users that are granted, one of whom receives.
    pub users: usize,
    /// Partners, one of whom sends.
    pub partners: usize,
    pub shape: Shape,
    pub cores: Cores,
}

impl Task {
    pub fn of(inside: Inside) -> Self {
        Self {
            inside,
            rules: Rules::Federated,
            users: 1_000,
            partners: 1,
            shape: Shape::Message,
            cores: Cores::All,
        }
    }
}

const EDGE: &str = "127.77.0.1";
const INSIDE: &str = "127.77.0.2";
const SIDECAR: &str = "127.77.0.4";
const RELAY: &str = "127.77.0.3";

pub struct Rig {
    pub edge: Process,
    /// With [`Inside::Trunk`].
    pub sidecar: Option<Process>,
    pub sink: Sink,
    pub partner: Partner,
    pub config_bytes: usize,
    config: Value,
    generation: AtomicU64,
    directory: TempDir,
}

impl Rig {
    pub async fn start(task: Task) -> Result<Self> {
        let inside = task.inside;
        let directory = tempfile::tempdir()?;
        let public = Authority::new("Public");
        let internal = Authority::new("Internal");
        let own = public.issue(
            &["org.example", "edge.org.example"],
            Usage::ServerAndClientAuth,
        );
        let peer = public.issue(
            &["partner.example", "*.pairs.example"],
            Usage::ServerAndClientAuth,
        );
        let gateway = internal.issue(&["org.example"], Usage::ServerAndClientAuth);
        let issuer = internal.intermediate();
        let secrets = directory.path();
        write(secrets, "tls.crt", &own.certificate)?;
        write(secrets, "tls.key", &own.key)?;
        write(secrets, "internal-ca.crt", &internal.certificate())?;
        write(secrets, "issuer.crt", &issuer.certificate)?;
        write(secrets, "issuer.key", &issuer.key)?;
        write(secrets, "dialback-secret", "a secret for the benches alone")?;
        let beside = match inside {
            Inside::Trunk => Some(Beside::prepare(secrets, &internal.certificate()).await?),
            Inside::Plain | Inside::MutualTls | Inside::Custody => None,
        };
        let clients = match &beside {
            None => internal.certificate(),
            Some(beside) => beside.authority()?,
        };
        let acceptor = (inside != Inside::Plain)
            .then(|| acceptor(&gateway, &clients))
            .transpose()?;
        let sink = Sink::start(INSIDE, task.shape, Some((inside, acceptor))).await?;
        let mut config = config(task, &sink.address.to_string(), &public.certificate());
        if let Some(beside) = &beside {
            config["version"]["minor"] = json!(1);
            config["gateways"][0] = beside.gateway()?;
        }
        if task.rules == Rules::Contacts {
            fill_contacts(&secrets.join("state/contacts")).await?;
        }
        let text = config.to_string();
        let file = secrets.join("edge.json");
        fs::write(&file, &text)?;
        let edge = Process::start_on(
            task.cores,
            &binary(),
            &[
                "run",
                "--config",
                &file.display().to_string(),
                "--state",
                &secrets.join("state").display().to_string(),
                "--bind",
                EDGE,
                "--internal-bind",
                EDGE,
                "--resolver",
                "127.77.0.9:53",
            ],
            &secrets.join("edge.log"),
        )?;
        let sidecar = beside.as_ref().map(|it| it.start(Some(sink.address)));
        let rig = Self {
            edge,
            sidecar: sidecar.transpose()?,
            sink,
            partner: Partner {
                address: format!("{EDGE}:5270").parse()?,
                authority: public.certificate(),
                chain: peer.certificate,
                key: peer.key,
            },
            config_bytes: text.len(),
            config,
            generation: AtomicU64::new(1),
            directory,
        };
        rig.await_generation(1).await?;
        if rig.sidecar.is_some() {
            rig.await_metric("xmpp_edge_trunks{gateway=\"org.example\"} 1")
                .await?;
        }
        Ok(rig)
    }

    /// Where the sidecar's DNS view answers.
    pub fn view(&self) -> SocketAddr {
        ([127, 77, 0, 4], 53).into()
    }

    /// Writes the same configuration with the next number and waits until it is in force.
    pub async fn next_generation(&self) -> Result<()> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let mut config = self.config.clone();
        config["generation"] = json!(generation);
        let file = self.directory.path().join("edge.json");
        let next = self.directory.path().join("edge.json.next");
        fs::write(&next, config.to_string())?;
        fs::rename(next, file)?;
        self.await_generation(generation).await
    }

    async fn await_generation(&self, generation: u64) -> Result<()> {
        self.await_metric(&format!("xmpp_edge_config_generation {generation}"))
            .await
    }

    async fn await_metric(&self, wanted: &str) -> Result<()> {
        for _ in 0..3000 {
            if let Ok(text) = get(&format!("{EDGE}:9090"), "/metrics").await
                && text.contains(wanted)
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = fs::read_to_string(self.directory.path().join("edge.log")).unwrap_or_default();
        bail!("{wanted} did not come:\n{log}")
    }
}

/// What a sidecar has beside the sink.
struct Beside(PathBuf);

impl Beside {
    /// Files that an administrator copies, and the authority and key that its first start makes.
    async fn prepare(secrets: &Path, internal_ca: &str) -> Result<Self> {
        let own = Self(secrets.join("sidecar"));
        fs::create_dir_all(&own.0)?;
        let document = json!({
            "version": {"major": 1, "minor": 0}, "namespace": "default", "name": "org.example",
            "domains": ["org.example"], "server": {"address": format!("{INSIDE}:1")},
            "edges": [format!("{EDGE}:23456")],
        });
        write(&own.0, "sidecar.json", &document.to_string())?;
        write(&own.0, "ca.crt", internal_ca)?;
        let first = own.start(None)?;
        for _ in 0..500 {
            if own.authority().is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(first);
        own.authority()?;
        Ok(own)
    }

    fn state(&self) -> String {
        self.0.join("state").display().to_string()
    }

    /// PEM of its authority towards the server.
    fn authority(&self) -> Result<String> {
        let path = self.0.join("state/public/ca.crt");
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The gateway that it serves, as the edge's document has it.
    fn gateway(&self) -> Result<Value> {
        let output = std::process::Command::new(binary())
            .args(["sidecar", "key", "--state", &self.state()])
            .output()?;
        let key = String::from_utf8(output.stdout)?;
        let key = key.trim().trim_start_matches("sha256:");
        Ok(json!({
            "name": "org.example", "domains": ["org.example"], "mode": "Sidecar",
            "negotiation": {"tls": "Required", "sasl": "Required", "dialback": false},
            "methods": ["SaslOverTls"],
            "sidecar": {"keys": [{"name": "bench", "spkiSha256": key}]},
        }))
    }

    fn start(&self, server: Option<SocketAddr>) -> Result<Process> {
        let (config, state) = (self.0.join("sidecar.json"), self.state());
        let (config, dns) = (config.display().to_string(), format!("{SIDECAR}:53"));
        let server = server.map(|it| it.to_string());
        let mut arguments = vec![
            "sidecar",
            "--config",
            &config,
            "--state",
            &state,
            "--bind",
            SIDECAR,
            "--dns",
            &dns,
            "--resolver",
            "127.77.0.9:53",
        ];
        if let Some(server) = &server {
            arguments.extend(["--server", server]);
        }
        let log = self.0.join("log");
        Process::start(&binary(), &arguments, &log)
    }
}

/// HAProxy that ends TLS and passes bytes on.
pub struct Relay {
    pub process: Process,
    pub sink: Sink,
    pub partner: Partner,
    _directory: TempDir,
}

impl Relay {
    pub async fn start(shape: Shape) -> Result<Self> {
        Self::start_on(Cores::All, shape).await
    }

    pub async fn start_on(cores: Cores, shape: Shape) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let public = Authority::new("Public");
        let own = public.issue(&["org.example"], Usage::ServerAndClientAuth);
        let peer = public.issue(&["partner.example"], Usage::ServerAndClientAuth);
        let sink = Sink::start(RELAY, shape, None).await?;
        write(
            directory.path(),
            "own.pem",
            &format!("{}{}", own.certificate, own.key),
        )?;
        write(directory.path(), "ca.pem", &public.certificate())?;
        let at = directory.path().display();
        let threads = match cores {
            Cores::One => 1,
            Cores::All => 2,
        };
        let text = format!(
            "global\n  nbthread {threads}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             frontend f\n  bind {RELAY}:5270 ssl crt {at}/own.pem ca-file {at}/ca.pem verify optional alpn xmpp-server\n  default_backend b\n\
             backend b\n  server s {}\n",
            sink.address
        );
        write(directory.path(), "haproxy.cfg", &text)?;
        let file = directory.path().join("haproxy.cfg").display().to_string();
        let process = Process::start_on(
            cores,
            Path::new("/usr/sbin/haproxy"),
            &["-db", "-f", &file],
            &directory.path().join("log"),
        )?;
        let address: SocketAddr = format!("{RELAY}:5270").parse()?;
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let partner = Partner {
            address,
            authority: public.certificate(),
            chain: peer.certificate,
            key: peer.key,
        };
        Ok(Self {
            process,
            sink,
            partner,
            _directory: directory,
        })
    }
}

/// 100,000 contacts, with the one who sends among them.
async fn fill_contacts(state: &Path) -> Result<()> {
    let store = ContactStore::embedded(state);
    let mut loaded = store.health();
    loaded.wait_for(|health| health.loaded).await?;
    for user in 0..1_000 {
        for remote in 0..100 {
            let change = ContactChange {
                user: format!("user{user}@org.example").into(),
                remote: match remote {
                    0 => "rob@partner.example".into(),
                    _ => format!("u{remote}@partner.example").into(),
                },
                event: ContactEvent::UserWrites,
            };
            while store.contacts().record(&change).is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(store.stop().await?)
}

fn config(task: Task, gateway: &str, ca: &str) -> Value {
    let (negotiation, methods) = match task.inside {
        Inside::Plain => (
            json!({"tls": "NotSupported", "sasl": "NotSupported", "dialback": true}),
            json!(["TcpDialback"]),
        ),
        _ => (
            json!({"tls": "Required", "sasl": "Required", "dialback": false}),
            json!(["SaslOverTls"]),
        ),
    };
    let partner_type = match task.rules {
        Rules::Federated | Rules::Audit => "Federated",
        Rules::Contacts => "PublicUnverified",
    };
    let (opens, mode) = match task.rules {
        Rules::Audit => (false, "Audit"),
        Rules::Federated | Rules::Contacts => (true, "Enforce"),
    };
    let all: Vec<Value> = (0..task.partners)
        .map(|n| {
            let domains = if n == 0 {
                json!(["partner.example", "*.pairs.example"])
            } else {
                json!([format!("p{n}.partners.example")])
            };
            json!({
                "name": format!("partner-{n}"), "domains": domains, "partnerType": partner_type,
                "negotiation": {"tls": "Required", "sasl": "Required", "dialback": true},
                "methods": ["SaslOverTls"], "enableKeepAlive": true, "connectionLimit": 100_000,
                "trust": {"ca": if n == 0 { Value::from(ca) } else { Value::Null }},
            })
        })
        .collect();
    let granted: Vec<String> = (0..task.users)
        .map(|n| format!("user{n}@org.example"))
        .collect();
    json!({
        "version": {"major": 1, "minor": 0}, "generation": 1, "namespace": "default", "pool": "bench", "site": "bench",
        "fqdn": "edge.org.example", "domains": ["org.example"], "namespaceDomains": ["org.example"],
        "listeners": {"s2s": 5269, "directTls": 5270, "internal": 23456, "admin": 9090, "dns": 0},
        "gateways": [{"domains": ["org.example"], "mode": "Direct", "address": gateway, "negotiation": negotiation, "methods": methods}],
        "partners": all,
        "access": {"policies": [{
            "name": "granted", "scope": {"User": {"users": granted}}, "enableFederationAccess": true,
            "mode": mode, "enableXmppAccess": opens, "enablePublicCloudAccess": true}],
            "homeSites": {"org.example": "bench"}},
        "settings": {"connectionLimit": 100_000, "partnerConnectionLimit": 100_000},
        "contacts": "Embedded",
    })
}

fn acceptor(leaf: &Leaf, clients: &str) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.as_bytes())?)?;
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    )
    .build()?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            CertificateDer::pem_slice_iter(leaf.certificate.as_bytes())
                .collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?,
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn write(directory: &Path, name: &str, text: &str) -> Result<()> {
    fs::write(directory.join(name), text)
        .with_context(|| format!("{name} in {}", directory.display()))
}

/// The release binary of this workspace, or the one that the environment names: two builds are compared so.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os(BINARY) {
        return named.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    target.join("release/xmpp-edge-proxy")
}

async fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
