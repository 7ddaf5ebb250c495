//! Bounded memory: 190,000 stanzas against a next hop that never answers. The edge stays within
//! its configured bounds, and every sender learns the fate of each stanza.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tokio::{net::TcpListener, time::Instant};
use xmpp_edge_tests::{
    client::Client,
    federation::{Federation, FederationPlan, Method, PARTNER, PARTNER_NAME},
    servers::{Acknowledge, Kind::Prosody, S2S_PORT},
    wait,
};

/// Stanzas in all.
const STANZAS: usize = 190_000;
/// Bound of a pair's queue, in bytes.
const QUEUE_BYTES: u64 = 1 << 20;
/// What the edge may grow by beyond its queue: buffers of the sockets and of the one stream, and
/// the allocator's slack.
const SLACK_KIB: u64 = 48 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_hop_that_never_answers_costs_bounded_memory_and_every_stanza_is_answered() {
    let plan = FederationPlan {
        partner: Prosody,
        partner_method: Method::External,
        inside: Prosody,
        inside_method: Method::External,
        inside_acknowledge: Acknowledge::Resending,
        trace: false,
    };
    let settings = json!({ "queueBytes": QUEUE_BYTES, "queueTimeoutSeconds": 5, "streamEstablishmentTimeoutSeconds": 10 });
    let mut scene = Federation::start_with(plan, &settings).await.unwrap();
    // The partner's place is taken by a socket that accepts and never says a word.
    scene.partner.kill();
    let mute = TcpListener::bind((scene.partner.spec().ip, S2S_PORT))
        .await
        .unwrap();
    let mute = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = mute.accept().await {
            held.push(stream);
        }
    });
    let alice = scene.inside.login("alice").await.unwrap();
    let before = scene.edge.resident_kib().unwrap();

    let mut unanswered = BTreeSet::new();
    let mut peak = before;
    let mut sent = 0;
    while sent < STANZAS {
        let burst: String = (sent..sent + 500)
            .map(|n| format!("<message to='bob@{PARTNER}' type='chat' id='{n}'><body>anybody there? {n}</body></message>"))
            .collect();
        // Blocks while the server takes no more: that is back-pressure, not loss.
        wait::within(
            "the server takes 500 more",
            Duration::from_secs(60),
            alice.send(&burst),
        )
        .await
        .unwrap();
        unanswered.extend(sent..sent + 500);
        sent += 500;
        settle(&alice, &mut unanswered, Duration::ZERO).await;
        peak = peak.max(scene.edge.resident_kib().unwrap());
    }
    let end = Instant::now() + Duration::from_secs(240);
    while !unanswered.is_empty() {
        settle(&alice, &mut unanswered, Duration::from_millis(200)).await;
        peak = peak.max(scene.edge.resident_kib().unwrap());
        assert!(
            Instant::now() < end,
            "{} of {STANZAS} unanswered\n{}",
            unanswered.len(),
            tail(&scene.edge.log())
        );
    }
    let queued = scene
        .edge
        .metric("queue_bytes", &[&format!("partner=\"{PARTNER_NAME}\"")])
        .await
        .unwrap();
    println!("memory before {before} KiB, peak {peak} KiB, queued at the end {queued} B");
    assert!(
        peak - before < QUEUE_BYTES / 1024 + SLACK_KIB,
        "grew from {before} to {peak} KiB"
    );
    mute.abort();
}

/// Takes what came and strikes off the numbers that were answered with an error.
async fn settle(alice: &Client, unanswered: &mut BTreeSet<usize>, limit: Duration) {
    for stanza in alice.batch(limit).await.expect("alice's stream stays") {
        if stanza.error_condition().is_some()
            && let Some(number) = stanza.attribute("id").and_then(|id| id.parse().ok())
        {
            unanswered.remove(&number);
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
