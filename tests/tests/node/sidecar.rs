//! The pod of `examples/sidecar`, once it talks: it is made anew while there is no operator (B-38, B-36), and its
//! containers are killed while there is no API server either (B-29).

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use serde_json::{Value, json};
use xmpp_edge_tests::{servers::C2S_PORT, traffic::End, wait};

use crate::{
    pods::PROXY,
    stage::{SOON, SYSTEM, Stage},
    talk::Talk,
};

const ORG: &str = "demo-org";
const ALICE: &str = "alice@chat.demo-org.svc.cluster.local";
const BOB: &str = "bob@chat.demo-partner.svc.cluster.local";
const SIDECAR: &str = "xmpp-edge-sidecar";
/// How Prosody's process begins.
const PROSODY: &str = "lua";
/// An init container that needs DNS: names of the cluster, which the sidecar forwards.
const ASKS_DNS: &str = "asks-dns";
const ASKED: &str = "hq-trunk.demo-org.svc.cluster.local";

/// What is so of a container of the pod.
#[derive(Debug)]
struct PodContainer {
    started: String,
    restarts: i64,
}

/// The pod of the organisation's server; there is one.
#[derive(Debug)]
struct ServerPod(Value);

impl ServerPod {
    fn uid(&self) -> &str {
        self.0["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// One that runs, or ran and ended well.
    fn container(&self, name: &str) -> Result<PodContainer> {
        let status = &self.0["status"];
        let lists = ["initContainerStatuses", "containerStatuses"];
        let all = lists.iter().filter_map(|list| status[list].as_array());
        let found = all.flatten().find(|it| it["name"] == name);
        let found = found.with_context(|| format!("no {name}: {status:#}"))?;
        let state = &found["state"];
        let state = match &state["terminated"] {
            Value::Null => &state["running"],
            ended => ended,
        };
        let started = state["startedAt"].as_str();
        Ok(PodContainer {
            started: started
                .with_context(|| format!("{name} has not started: {status:#}"))?
                .to_owned(),
            restarts: found["restartCount"].as_i64().unwrap_or_default(),
        })
    }
}

fn pod(stage: &Stage) -> Result<ServerPod> {
    let arguments = "get pods --selector=app=prosody --output=json --namespace";
    let arguments: Vec<&str> = arguments.split(' ').chain([ORG]).collect();
    let mut all: Value = serde_json::from_str(&stage.kubectl().run(&arguments)?)?;
    let items = all["items"].as_array_mut().context("items")?;
    items.retain(|it| it["metadata"]["deletionTimestamp"].is_null());
    ensure!(items.len() == 1, "{} pods", items.len());
    Ok(ServerPod(items.remove(0)))
}

/// A user at the server behind a Service of clients.
fn end(stage: &Stage, service: &str, namespace: &str, jid: &str) -> Result<End> {
    let output = "--output=jsonpath={.spec.clusterIP}";
    let arguments = ["get", "service", service, "--namespace", namespace, output];
    let address: Ipv4Addr = stage.kubectl().run(&arguments)?.parse()?;
    Ok(End {
        server: SocketAddr::from((address, C2S_PORT)),
        jid: jid.to_owned(),
    })
}

async fn talk(stage: &Stage) -> Result<Talk> {
    let alice = end(stage, "prosody", ORG, ALICE)?;
    let bob = end(stage, "chat", "demo-partner", BOB)?;
    Talk::between(alice, bob).await
}

/// All of it; whatever was taken away is back then.
pub async fn goes_on(stage: &Stage) -> Result<()> {
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        let place = ["--namespace", SYSTEM, &replicas];
        let scale = ["scale", "deployment/xmpp-edge"];
        stage.kubectl().run(&[&scale[..], &place].concat())
    };
    let output = "--output=jsonpath={.spec.replicas}";
    let asked = ["get", "deployment/xmpp-edge", "--namespace", SYSTEM, output];
    let replicas = stage.kubectl().run(&asked)?;
    scale("0")?;
    let away = async {
        made_without_operator(stage).await.context("no operator")?;
        restarted_without_api_server(stage)
            .await
            .context("no API server")
    };
    let away = away.await;
    scale(&replicas)?;
    away
}

/// B-38, and B-36: the namespace is restricted, and the sidecar is there before whoever needs DNS.
async fn made_without_operator(stage: &Stage) -> Result<()> {
    let of = "get pods --selector=app.kubernetes.io/name=xmpp-edge --output=name --namespace";
    let of: Vec<&str> = of.split(' ').chain([SYSTEM]).collect();
    let gone = async || {
        let operators = stage.kubectl().run(&of).ok()?;
        operators.is_empty().then_some(())
    };
    wait::until("no operator runs", SOON, gone).await?;
    let asks = json!({
        "name": ASKS_DNS,
        "image": "xmpp-edge-demo-servers:1",
        "command": ["nslookup", ASKED],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
    });
    let add = "/spec/template/spec/initContainers/-";
    let patch = json!([{ "op": "add", "path": add, "value": asks }]).to_string();
    let patch = ["--type=json", "--patch", &patch, "--namespace", ORG];
    stage
        .kubectl()
        .run(&[&["patch", "deployment/prosody"], &patch[..]].concat())?;
    let rollout = ["rollout", "status", "deployment/prosody", "--timeout=90s"];
    stage
        .kubectl()
        .run(&[&rollout[..], &["--namespace", ORG]].concat())?;
    let pod = pod(stage)?;
    let order = [SIDECAR, ASKS_DNS, "prosody"].map(|name| pod.container(name));
    let [sidecar, asks, prosody] = order;
    let (sidecar, asks, prosody) = (sidecar?, asks?, prosody?);
    // Times in seconds, which sort as text.
    let in_order = sidecar.started <= asks.started && asks.started <= prosody.started;
    ensure!(in_order, "{sidecar:?}, {asks:?}, {prosody:?}");
    ensure!(asks.restarts == 0, "it had no DNS at first: {asks:?}");
    talk(stage).await?.end().await?.nothing_lost()
}

/// B-29.
async fn restarted_without_api_server(stage: &Stage) -> Result<()> {
    let uid = pod(stage)?.uid().to_owned();
    let talk = talk(stage).await?;
    let programs = [PROXY, PROSODY];
    let before = processes(stage, &uid, programs)?;
    stage.cluster.server().kill();
    let meanwhile = async {
        talk.goes_on().await?;
        for program in programs {
            stage.kill_called(&uid, program)?;
        }
        let back = async || {
            let now = processes(stage, &uid, programs).ok()?;
            let mut pairs = now.iter().zip(&before);
            let anew = |(now, old): (&Vec<Pid>, &Vec<Pid>)| now.iter().any(|id| !old.contains(id));
            pairs.all(anew).then_some(())
        };
        wait::until("both run again", SOON, back).await?;
        talk.goes_on().await
    };
    let meanwhile = meanwhile.await;
    stage.cluster.server().launch().await?;
    meanwhile?;
    drop(talk);
    Ok(())
}

fn processes(stage: &Stage, uid: &str, programs: [&str; 2]) -> Result<[Vec<Pid>; 2]> {
    let [one, other] = programs;
    Ok([
        stage.processes_called(uid, one)?,
        stage.processes_called(uid, other)?,
    ])
}
