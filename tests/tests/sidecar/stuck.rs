//! A partner that stops reading slows its own senders down and nobody else (B-13): real Prosody on all sides.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    edge::manifest,
    servers::{Kind, Security, Server},
    traffic::{End, Traffic},
    wait,
};

use crate::{
    load::{AHEAD, BothWays, EACH_WAY, turn},
    scene::{OWN, SidecarScene, SidecarScenePlan},
};

const QUIET: &str = "quiet.example";
const QUIET_HOST: u8 = 12;
/// Seconds of traffic that are measured, before and while.
const MEASURED: u32 = 5;
/// What others' p99 may be of what it was. A partner that keeps others waiting makes seconds of milliseconds; less is
/// what a busy machine does by itself.
const MOST_SLOWER: u32 = 20;
/// Looks in a row that find nothing read.
const STILL: u32 = 10;

/// Another partner, at its own server.
async fn quiet_partner(scene: &SidecarScene) -> Result<Server> {
    let lab = &scene.lab;
    let mut spec = lab.spec(QUIET, QUIET_HOST, "carol", Security::Certificates);
    spec.trace = true;
    lab.publish(&spec);
    let partner = json!({ "domain": QUIET, "partnerType": "Federated" });
    scene.edges[0].apply(&manifest("XmppFederatedPartner", "quiet", partner))?;
    let server = Server::start(Kind::Prosody, spec, lab.directory()).await?;
    wait::until("the partner is known", wait::GENEROUS, async || {
        let status = scene.edges[0].status().await.ok()?;
        let mut partners = status["partners"].as_array()?.iter();
        partners.any(|it| it["name"] == "quiet").then_some(())
    })
    .await?;
    Ok(server)
}

/// What the sidecar says of the stream on which its server sends to the quiet partner.
async fn its_stream(scene: &SidecarScene) -> Option<Value> {
    let (_, body) = scene.sidecars[0].get("/status").await.ok()?;
    let mut status: Value = serde_json::from_str(&body).ok()?;
    let streams = status["streams"].as_array_mut()?;
    let sends = |it: &&mut Value| {
        it["trunk"] != true
            && it["initiator"] == "Peer"
            && it["peerDomains"] == json!([OWN])
            && it["localDomains"] == json!([QUIET])
    };
    streams.iter_mut().find(sends).map(Value::take)
}

/// Bytes that came from there and nobody has read: `rx_queue` of `/proc/net/tcp`.
fn unread(from: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(from) = from else {
        return None;
    };
    let address = u32::from_ne_bytes(from.ip().octets());
    let remote = format!("{address:08X}:{:04X}", from.port());
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let line = table
        .lines()
        .find(|line| line.split_whitespace().nth(2) == Some(&remote))?;
    let queues = line.split_whitespace().nth(4)?;
    u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
}

/// Until the server's stream to the quiet partner is left unread.
async fn is_left_unread(scene: &SidecarScene) -> Result<()> {
    let (mut seen, mut same) = (Value::Null, 0);
    wait::until("the stream is left unread", wait::GENEROUS, async || {
        let stream = its_stream(scene).await?;
        let from: SocketAddr = stream["address"].as_str()?.parse().ok()?;
        let now = stream["stanzasIn"].clone();
        same = match (now == seen, unread(from)?) {
            (true, 1..) => same + 1,
            _ => 0,
        };
        seen = now;
        (same >= STILL).then_some(())
    })
    .await
    .with_context(|| format!("{seen}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_13_a_partner_that_stops_reading_slows_its_own_senders_down_and_nobody_else() {
    let _turn = turn().await;
    let plan = SidecarScenePlan {
        settings: json!({
            "maxStanzaBytes": 10_000, "queueBytes": 40_000, "queueTimeoutSeconds": 6,
        }),
        ..SidecarScenePlan::default()
    };
    let scene = SidecarScene::connected(&plan).await.unwrap();
    let quiet = quiet_partner(&scene).await.unwrap();
    let run = async {
        let carol = End {
            server: quiet.c2s(),
            jid: format!("carol@{QUIET}"),
        };
        let others = BothWays::start(&scene).await?;
        // She reads nothing for a while: of what is on its way, none has a fate.
        let ahead = 10 * AHEAD;
        let hers =
            Traffic::start_within(scene.alice(0), carol, (u32::MAX, EACH_WAY), ahead).await?;
        hers.arrived(EACH_WAY as usize).await?;
        let before = measured(&others).await?;
        quiet.freeze();
        is_left_unread(&scene).await?;
        let while_stuck = measured(&others).await?;
        println!(
            "p99 before, outbound and inbound: {before:?}; while one is stuck: {while_stuck:?}"
        );
        hers.answered(1).await?;
        quiet.thaw();
        hers.arrived(hers.so_far() + EACH_WAY as usize).await?;
        hers.stop();
        let accounts = others.finish().await?;
        for (before, stuck) in [(before.0, while_stuck.0), (before.1, while_stuck.1)] {
            ensure!(stuck <= before * MOST_SLOWER, "{before:?}, {stuck:?}");
        }
        for account in [&accounts.outbound, &accounts.inbound] {
            let is_whole = account.lost == 0 && account.conditions.is_empty();
            ensure!(is_whole && account.duplicates == 0, "{account}");
        }
        let hers = hers.finish().await?;
        println!("hers: {hers}");
        let lost = hers.lost_beside(&quiet.log());
        ensure!(lost.is_empty() && hers.bounced > 0, "{lost:?}: {hers}");
        Ok::<_, anyhow::Error>(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}\n=== quiet\n{}", scene.logs(), quiet.log());
    }
}

/// p99 of what arrives in [`MEASURED`] seconds, outbound and inbound.
async fn measured(others: &BothWays) -> Result<(Duration, Duration)> {
    let after = (others.outbound.so_far(), others.inbound.so_far());
    others.flows(MEASURED).await?;
    Ok((others.outbound.p99(after.0), others.inbound.p99(after.1)))
}
