//! The demonstration: a real Prosody as the organisation, a real ejabberd as its partner, and the
//! edge between them, governed by the manifests of `examples/demo`.
//!
//! `--keep` leaves everything running until Ctrl-C, so that manifests can be edited and clients
//! connected. With `--sidecar` a sidecar beside Prosody dials the edge, which dials nobody inside. With `--sip` a real
//! Kamailio and its users, who speak SIP, stand in Prosody's place.

mod sip;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xmpp_edge_crds::edge_config::GatewayMode;
use xmpp_edge_tests::{
    address::Block,
    client::{Client, PASSWORD},
    edge::{self, Edge, Place, texts},
    lab::Lab,
    pki::Usage,
    servers::{Kind, S2S_PORT, Security, Server, Spec},
    sidecar::Sidecar,
    sip::{Kamailio, SIP_PORT, SipParty},
    wait,
};

const OWN: &str = "org.example";
const PARTNER: &str = "partner.example";
const FQDN: &str = "edge.example";

/// Start of the addresses in `examples/demo`; another block is put in where it is taken.
const PREFIX: [u8; 3] = [127, 0, 10];
const PARTNER_HOST: u8 = 10;
const EDGE_HOST: u8 = 20;
const EDGE_INTERNAL_HOST: u8 = 21;
const INSIDE_HOST: u8 = 30;
const SIDECAR_HOST: u8 = 40;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: BTreeSet<_> = std::env::args().skip(1).collect();
    let known = ["--keep", "--sidecar", "--sip"];
    if let Some(other) = arguments.iter().find(|it| !known.contains(&it.as_str())) {
        bail!("{other}: usage: demo [--keep] [--sidecar | --sip]");
    }
    let way = if arguments.contains("--sidecar") {
        GatewayMode::Sidecar
    } else if arguments.contains("--sip") {
        GatewayMode::Sip
    } else {
        GatewayMode::Direct
    };
    let demo = Demo::start(way).await?;
    let _agents = demo.show().await?;
    if arguments.contains("--keep") {
        demo.introduce();
        tokio::signal::ctrl_c().await?;
    }
    demo.end().await
}

struct Demo {
    edge: Edge,
    inside: Inside,
    partner: Server,
    sidecar: Option<Sidecar>,
    // Last, so that its directory and DNS outlive the processes.
    lab: Lab,
}

/// The organisation's own server.
enum Inside {
    Xmpp(Server),
    Sip(Kamailio),
}

impl Demo {
    async fn start(way: GatewayMode) -> Result<Self> {
        title(match way {
            GatewayMode::Direct => {
                "Starting: ejabberd of partner.example, the edge, Prosody of org.example"
            }
            GatewayMode::Sip => {
                "Starting: ejabberd of partner.example, the edge, Kamailio of org.example"
            }
            GatewayMode::Sidecar => {
                "Starting: ejabberd of partner.example, the edge, Prosody of org.example with a sidecar"
            }
        });
        let block = Block::exactly(PREFIX[1], PREFIX[2]).unwrap_or_else(Block::claim);
        let lab = Lab::within(block).await?;
        let place = Place::in_lab(&lab, EDGE_HOST, EDGE_INTERNAL_HOST);
        lab.dns().host(FQDN, place.bind);
        lab.dns().xmpp_server(OWN, 0, 0, S2S_PORT, FQDN);
        let outer = lab.spec(PARTNER, PARTNER_HOST, "bob", Security::Certificates);
        lab.publish(&outer);

        copy_examples(&lab, &place.directory)?;
        let mut sidecar = match way {
            GatewayMode::Direct => None,
            GatewayMode::Sip => {
                sip::lead_by_sip(&place.directory)?;
                None
            }
            GatewayMode::Sidecar => {
                let sidecar = Sidecar::in_lab(&lab, SIDECAR_HOST)?;
                let key = sidecar.key()?;
                println!("xmpp-edge-proxy sidecar key: {key}");
                lead_by_sidecar(&place.directory, &key)?;
                Some(sidecar)
            }
        };
        let certificate = lab
            .authority()
            .issue(&[OWN, FQDN], Usage::ServerAndClientAuth);
        let written = [
            texts(
                "ConfigMap",
                "roots",
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
        ];
        let (edge, partner, ()) = tokio::try_join!(
            // Ready once the sidecar's trunk stands.
            Edge::start(place.clone(), &written),
            Server::start(Kind::Ejabberd, outer, lab.directory()),
            async {
                match &mut sidecar {
                    None => Ok(()),
                    Some(sidecar) => begin(sidecar, &place).await,
                }
            },
        )?;

        let inside = match way {
            GatewayMode::Sip => Inside::Sip(sip::start(&lab, &edge).await?),
            GatewayMode::Direct | GatewayMode::Sidecar => {
                Inside::Xmpp(start_prosody(&lab, &place, &edge, sidecar.as_ref()).await?)
            }
        };
        Ok(Self {
            edge,
            inside,
            partner,
            sidecar,
            lab,
        })
    }

    /// Gives back who speaks SIP, until the end.
    async fn show(&self) -> Result<Vec<SipParty>> {
        let bob = self.partner.login("bob").await?;
        let mut agents = Vec::new();
        match &self.inside {
            Inside::Sip(kamailio) => agents = sip::show(kamailio, &bob).await?,
            Inside::Xmpp(prosody) => {
                let (alice, carol) =
                    tokio::try_join!(prosody.login("alice"), prosody.login("carol"))?;
                title("Allowed: Alice has an access policy");
                deliver(&alice, &bob, "Good morning, Bob! Does this reach you?").await?;
                deliver(&bob, &alice, "It does. Good morning, Alice!").await?;

                title("Refused: Carol has none");
                refuse(&carol, &bob, "And this?").await?;
            }
        }
        title("Why: xmpp-edge-operator explain");
        self.explain("carol@org.example", "bob@partner.example")?;

        title("Streams (/status)");
        self.streams().await?;
        title("Metrics (/metrics, some)");
        self.metrics().await?;
        Ok(agents)
    }

    fn explain(&self, from: &str, to: &str) -> Result<()> {
        let manifests = self.edge.place().directory.join("manifests");
        let output = Command::new(edge::binary()?)
            .arg("explain")
            .arg("--manifests")
            .arg(manifests)
            .args(["--from", from, "--to", to])
            .env("RUST_LOG", "error")
            .output()?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    async fn streams(&self) -> Result<()> {
        let status = self.edge.status().await?;
        println!(
            "{:<8} {:<9} {:<16} {:<12} {:<12} {:<8} {:<5} {:>4} {:>4}  address",
            "side", "direction", "peer", "local", "method", "TLS", "acks", "in", "out"
        );
        for stream in status["streams"]
            .as_array()
            .context("no streams in /status")?
        {
            println!(
                "{:<8} {:<9} {:<16} {:<12} {:<12} {:<8} {:<5} {:>4} {:>4}  {}",
                text(&stream["side"]),
                text(&stream["direction"]),
                text(&stream["peerDomains"]),
                text(&stream["localDomains"]),
                text(&stream["method"]),
                text(&stream["tlsVersion"]),
                text(&stream["acknowledged"]),
                text(&stream["stanzasIn"]),
                text(&stream["stanzasOut"]),
                text(&stream["address"]),
            );
        }
        Ok(())
    }

    async fn metrics(&self) -> Result<()> {
        let (_, body) = self.edge.get("/metrics").await?;
        let shown = [
            "streams{",
            "stanzas_total{",
            "stanzas_refused_total{",
            "config_generation",
        ];
        for line in body.lines() {
            let metric = line.strip_prefix("xmpp_edge_").unwrap_or_default();
            if shown.iter().any(|start| metric.starts_with(start)) && !line.ends_with(" 0") {
                println!("{line}");
            }
        }
        Ok(())
    }

    fn introduce(&self) {
        let place = self.edge.place();
        title("Running until Ctrl-C");
        let outside = self.partner.c2s();
        match &self.inside {
            Inside::Xmpp(prosody) => println!(
                "clients     alice@{OWN} and carol@{OWN} at {}, bob@{PARTNER} at {outside}; password {PASSWORD}, no TLS",
                prosody.c2s()
            ),
            Inside::Sip(_) => println!(
                "clients     sip:alice@{OWN} and sip:carol@{OWN} at {}, TCP port {SIP_PORT}, any password; bob@{PARTNER} at {outside}, password {PASSWORD}, no TLS",
                self.lab.ip(INSIDE_HOST)
            ),
        }
        println!(
            "manifests   {}/manifests (edits take effect within 2 s)",
            place.directory.display()
        );
        println!(
            "admin port  http://{}:9090/status /metrics /explain?from=&to=",
            place.internal_bind
        );
        if let Some(sidecar) = &self.sidecar {
            println!("sidecar     its DNS view at {}", sidecar.dns());
        }
        println!("logs        {}", self.lab.directory().display());
    }

    async fn end(mut self) -> Result<()> {
        title("Stopping");
        self.edge.stop().await
    }
}

/// A Prosody with Alice and Carol, which reaches partners by the edge or by its sidecar.
async fn start_prosody(
    lab: &Lab,
    place: &Place,
    edge: &Edge,
    sidecar: Option<&Sidecar>,
) -> Result<Server> {
    let inner = match sidecar {
        None => {
            let mut inner = lab.spec(OWN, INSIDE_HOST, "alice", Security::Certificates);
            inner.resolver = place.internal_bind;
            inner.trust = edge.internal_ca()?;
            inner.identity = edge.gateway_identity(OWN)?;
            inner
        }
        Some(sidecar) => {
            // A certificate that nobody trusts: none has to be copied.
            let mut inner = lab.spec(OWN, INSIDE_HOST, "alice", Security::TlsDialback);
            inner.resolver = lab.ip(SIDECAR_HOST);
            inner.trust = fs::read_to_string(sidecar.path("state/public/ca.crt"))?;
            inner
        }
    };
    let inner = Spec {
        users: vec!["alice".to_owned(), "carol".to_owned()],
        ..inner
    };
    Server::start(Kind::Prosody, inner, lab.directory()).await
}

/// Starts the sidecar with what the edge has for it.
async fn begin(sidecar: &mut Sidecar, edge: &Place) -> Result<()> {
    wait::until("the edge has a sidecar.json", wait::GENEROUS, async || {
        sidecar.copy_from(edge, OWN).ok()
    })
    .await?;
    sidecar.start().await
}

/// The pool of the demonstration with a sidecar in place of the edge's own way inside.
fn lead_by_sidecar(directory: &Path, key: &str) -> Result<()> {
    let path = directory.join("manifests/pool.yaml");
    let pool = fs::read_to_string(&path)?;
    let direct = "      mode: Direct\n      address: ";
    let by_sidecar = format!(
        "      mode: Sidecar\n      sidecar:\n        keys: [{{name: demo, spkiSha256: \"{key}\"}}]\n        serverAddress: "
    );
    ensure!(pool.contains(direct), "examples/demo/pool.yaml is another");
    fs::write(&path, pool.replace(direct, &by_sidecar))?;
    Ok(())
}

/// Manifests as they stand in `examples/demo`, with the addresses of the block in use.
fn copy_examples(lab: &Lab, directory: &Path) -> Result<()> {
    let to = directory.join("manifests");
    fs::create_dir_all(&to)?;
    let dotted = |ip: Ipv4Addr| {
        let [a, b, c, _] = ip.octets();
        format!("{a}.{b}.{c}.")
    };
    let [a, b, c] = PREFIX;
    let ours = dotted(lab.ip(1));
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo");
    for entry in fs::read_dir(&examples).with_context(|| examples.display().to_string())? {
        let entry = entry?;
        let manifest =
            fs::read_to_string(entry.path())?.replace(&dotted(Ipv4Addr::new(a, b, c, 0)), &ours);
        println!("examples/demo/{}", entry.file_name().to_string_lossy());
        fs::write(to.join(entry.file_name()), manifest)?;
    }
    Ok(())
}

async fn deliver(from: &Client, to: &Client, body: &str) -> Result<()> {
    let id = format!("demo-{}", from.fresh_id());
    println!("{} → {}: {body}", from.bare(), to.bare());
    from.message(to.full(), &id, body).await?;
    let arrived = tokio::select! {
        arrived = to.expect_message(&id) => arrived?,
        refused = from.expect_message(&id) => bail!("refused: {:?}", refused?),
    };
    println!(
        "    arrived, from {}",
        arrived.attribute("from").unwrap_or("nobody")
    );
    Ok(())
}

async fn refuse(from: &Client, to: &Client, body: &str) -> Result<()> {
    let id = format!("demo-{}", from.fresh_id());
    println!("{} → {}: {body}", from.bare(), to.bare());
    from.message(to.full(), &id, body).await?;
    let answer = from.expect_message(&id).await?;
    let condition = answer
        .error_condition()
        .context("the message was not refused")?;
    let reason = answer
        .child("error")
        .and_then(|e| e.child_in("policy", "urn:xmpp-edge:errors:0"))
        .and_then(|p| p.attribute("reason"));
    ensure!(reason.is_some(), "no reason in {answer:?}");
    println!(
        "    {condition}, reason {}: {}",
        reason.unwrap_or_default(),
        answer.error_text()
    );
    Ok(())
}

/// A JSON value for a table.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn title(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}
