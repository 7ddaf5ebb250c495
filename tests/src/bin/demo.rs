//! The demonstration: a real Prosody as the organisation, a real ejabberd as its partner, and the
//! edge between them, governed by the manifests of `examples/demo`.
//!
//! `--keep` leaves everything running until Ctrl-C, so that manifests can be edited and clients
//! connected.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xmpp_edge_tests::{
    address::Block,
    client::{Client, PASSWORD},
    edge::{self, Edge, Place, texts},
    lab::Lab,
    pki::Usage,
    servers::{Kind, S2S_PORT, Security, Server},
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

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let keep = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--keep"] => true,
        _ => bail!("usage: demo [--keep]"),
    };
    let demo = Demo::start().await?;
    demo.show().await?;
    if keep {
        demo.introduce();
        tokio::signal::ctrl_c().await?;
    }
    demo.end().await
}

struct Demo {
    edge: Edge,
    inside: Server,
    partner: Server,
    lab: Lab,
}

impl Demo {
    async fn start() -> Result<Self> {
        title("Starting: ejabberd of partner.example, the edge, Prosody of org.example");
        let block = Block::exactly(PREFIX[1], PREFIX[2]).unwrap_or_else(Block::claim);
        let lab = Lab::within(block).await?;
        let place = Place::in_lab(&lab, EDGE_HOST, EDGE_INTERNAL_HOST);
        lab.dns().host(FQDN, place.bind);
        lab.dns().xmpp_server(OWN, 0, 0, S2S_PORT, FQDN);
        let outer = lab.spec(PARTNER, PARTNER_HOST, "bob", Security::Certificates);
        lab.publish(&outer);

        copy_examples(&lab, &place.directory)?;
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
        let (edge, partner) = tokio::try_join!(
            Edge::start(place.clone(), &written),
            Server::start(Kind::Ejabberd, outer, lab.directory())
        )?;

        let mut inner = lab.spec(OWN, INSIDE_HOST, "alice", Security::Certificates);
        inner.users.push("carol".into());
        inner.resolver = place.internal_bind;
        inner.trust = edge.internal_ca()?;
        inner.identity = edge.gateway_identity(OWN)?;
        let inside = Server::start(Kind::Prosody, inner, lab.directory()).await?;
        Ok(Self {
            edge,
            inside,
            partner,
            lab,
        })
    }

    async fn show(&self) -> Result<()> {
        let (alice, carol, bob) = tokio::try_join!(
            self.inside.login("alice"),
            self.inside.login("carol"),
            self.partner.login("bob")
        )?;
        title("Allowed: Alice has an access policy");
        deliver(&alice, &bob, "Good morning, Bob! Does this reach you?").await?;
        deliver(&bob, &alice, "It does. Good morning, Alice!").await?;

        title("Refused: Carol has none");
        refuse(&carol, &bob, "And this?").await?;
        title("Why: xmpp-edge-operator explain");
        self.explain("carol@org.example", "bob@partner.example")?;

        title("Streams (/status)");
        self.streams().await?;
        title("Metrics (/metrics, some)");
        self.metrics().await
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
        println!(
            "clients     alice@{OWN} and carol@{OWN} at {}, bob@{PARTNER} at {}; password {PASSWORD}, no TLS",
            self.inside.c2s(),
            self.partner.c2s()
        );
        println!(
            "manifests   {}/manifests (edits take effect within 2 s)",
            place.directory.display()
        );
        println!(
            "admin port  http://{}:9090/status /metrics /explain?from=&to=",
            place.internal_bind
        );
        println!("logs        {}", self.lab.directory().display());
    }

    async fn end(mut self) -> Result<()> {
        title("Stopping");
        self.edge.stop().await
    }
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
