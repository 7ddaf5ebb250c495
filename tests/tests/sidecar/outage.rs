//! No edge is reachable, for a while or for longer (B-24): real Prosody on both sides, real processes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::Instant;
use xmpp_edge_tests::{
    client::Client,
    conversation::subscribe,
    traffic::{Account, End},
    wait,
    xml::Element,
};

use crate::{
    figures::trunks_are_given_up,
    load::{BothWays, EACH_WAY, MOST_TWICE, one_way, turn},
    scene::{SidecarScene, SidecarScenePlan},
};

/// So long stanzas wait at most.
const WAIT: Duration = Duration::from_secs(25);
/// So long without any edge, and users of partners are away.
const ABSENCE: Duration = Duration::from_secs(60);

async fn scene(queue_timeout_seconds: u32) -> SidecarScene {
    let plan = SidecarScenePlan {
        edges: vec![("hq", 10), ("dr", 20)],
        settings: json!({ "queueTimeoutSeconds": queue_timeout_seconds }),
        ..SidecarScenePlan::default()
    };
    SidecarScene::connected(&plan).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_24_nothing_is_answered_while_all_edges_are_away_for_less_than_queues_wait() {
    let _turn = turn().await;
    let scene = scene(u32::try_from(WAIT.as_secs()).unwrap()).await;
    let run = async {
        let traffic = BothWays::start(&scene).await?;
        let began = Instant::now();
        for edge in &scene.edges {
            edge.freeze();
        }
        for pool in ["hq", "dr"] {
            trunks_are_given_up(&scene, pool).await?;
        }
        for edge in &scene.edges {
            edge.thaw();
        }
        scene.all_trunks().await?;
        traffic.flows(1).await?;
        // A machine that takes as long as stanzas wait shows only that none is lost.
        let is_shorter = began.elapsed() < WAIT;
        let accounts = traffic.finish().await?;
        for (account, receiver) in [
            (&accounts.outbound, scene.partner.log()),
            (&accounts.inbound, scene.insides[0].log()),
        ] {
            let lost = account.lost_beside(&receiver);
            ensure!(
                lost.is_empty() && (account.conditions.is_empty() || !is_shorter),
                "{lost:?}: {account}"
            );
            // Both edges may have it in their sockets still.
            ensure!(account.duplicates <= 2 * MOST_TWICE, "{account}");
        }
        Ok::<_, anyhow::Error>(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}

/// Of each user one more client, which sees the other one's presence.
async fn see_each_other(alice: End, bob: End) -> Result<(Client, Client)> {
    let alice = Client::login(alice.server, &alice.jid, "desk").await?;
    let bob = Client::login(bob.server, &bob.jid, "desk").await?;
    for client in [&alice, &bob] {
        let roster = "<query xmlns='jabber:iq:roster'/>";
        client.request(None, "get", roster).await?;
        client.presence(None, None, "").await?;
    }
    subscribe(&alice, &bob).await?;
    Ok((alice, bob))
}

/// How often the partner's server was asked for presence by the user inside.
fn asked_for(scene: &SidecarScene) -> usize {
    let log = scene.partner.log();
    let is_probe = |line: &&str| {
        line.contains("RECV: <presence")
            && line.contains("type='probe'")
            && line.contains(&format!("from='{}'", scene.alice(0).jid))
    };
    log.lines().filter(is_probe).count()
}

/// Each message arrived or was answered, and each answer says why.
fn ensure_told(account: &Account, scene: &SidecarScene) -> Result<()> {
    let lost = account.lost_beside(&scene.partner.log());
    ensure!(lost.is_empty(), "{lost:?}: {account}");
    let unexplained = account.refusals.iter().find(|(_, condition, text)| {
        condition != "remote-server-timeout" || !text.contains("no edge is connected since")
    });
    ensure!(unexplained.is_none(), "{unexplained:?}: {account}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_24_while_no_edge_is_there_messages_are_answered_and_presence_is_taken_back_until_one_is()
{
    let _turn = turn().await;
    let mut scene = scene(3).await;
    let run = async {
        let (alice, bob) = see_each_other(scene.alice(0), scene.bob()).await?;
        let traffic = one_way(scene.alice(0), scene.bob()).await?;
        traffic.arrived(EACH_WAY as usize).await?;
        for (edge, pool) in [(1, "dr"), (0, "hq")] {
            scene.edges[edge].kill();
            trunks_are_given_up(&scene, pool).await?;
        }
        traffic.answered(1).await?;
        let is_gone = |stanza: &Element| {
            stanza.name == "presence"
                && stanza.attribute("type") == Some("unavailable")
                && stanza.attribute("from") == Some(bob.full())
        };
        alice
            .expect_within("bob is gone", ABSENCE + wait::GENEROUS, is_gone)
            .await?;
        let asked = asked_for(&scene);
        // Whoever writes now is told, too.
        traffic.answered(traffic.answered_so_far() + 1).await?;
        try_join_all(scene.edges.iter_mut().map(|edge| edge.launch())).await?;
        traffic
            .arrived(traffic.so_far() + EACH_WAY as usize)
            .await
            .context("it flows again")?;
        wait::until("bob is asked for", wait::GENEROUS, async || {
            (asked_for(&scene) > asked).then_some(())
        })
        .await?;
        traffic.stop();
        let account = traffic.finish().await?;
        println!("no edge for longer: {account}");
        ensure!(account.duplicates <= MOST_TWICE, "{account}");
        ensure_told(&account, &scene)
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
