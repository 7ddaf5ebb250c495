//! What is replaced, killed, frozen or configured anew amid traffic both ways (B-21, B-22, B-26, B-27, B-28, B-35):
//! real Prosody on both sides, real processes.

use anyhow::{Result, ensure};
use serde_json::Value;
use xmpp_edge_tests::servers::S2S_PORT;

use crate::{
    figures::{carries, trunks_are_given_up},
    load::{BothWays, EACH_WAY, MOST_TWICE, turn},
    scene::{OWN, SidecarScene, SidecarScenePlan},
};

async fn scene(edges: Vec<(&'static str, u16)>) -> SidecarScene {
    let plan = SidecarScenePlan {
        edges,
        ..SidecarScenePlan::default()
    };
    SidecarScene::connected(&plan).await.unwrap()
}

fn unless_failed(outcome: Result<()>, scene: &SidecarScene) {
    if let Err(error) = outcome {
        panic!("{error:#}\n{}", scene.logs());
    }
}

/// When the streams between the first sidecar and its server came.
async fn server_streams(scene: &SidecarScene) -> Result<Vec<String>> {
    let (_, body) = scene.sidecars[0].get("/status").await?;
    let status: Value = serde_json::from_str(&body)?;
    let streams = status["streams"].as_array().into_iter().flatten();
    let own = streams.filter(|it| it["trunk"] != true);
    let mut came: Vec<_> = own.map(|it| it["establishedTime"].to_string()).collect();
    came.sort();
    Ok(came)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_26_nothing_is_lost_or_sent_twice_outbound_when_edges_are_replaced_one_after_the_other() {
    let _turn = turn().await;
    let mut scene = scene(vec![("one", 10), ("two", 10), ("three", 10)]).await;
    let run = async {
        let traffic = BothWays::start(&scene).await?;
        for edge in 0..scene.edges.len() {
            scene.edges[edge].restart().await?;
            scene.all_trunks().await?;
            traffic.flows(1).await?;
        }
        let accounts = traffic.finish().await?;
        accounts.ensure_kept(&scene)?;
        let outbound = &accounts.outbound;
        ensure!(
            outbound.bounced + outbound.bounced_and_delivered == 0 && outbound.duplicates == 0,
            "{outbound}"
        );
        let inbound = &accounts.inbound;
        ensure!(inbound.bounced == 0, "{inbound}");
        ensure!(inbound.duplicates <= MOST_TWICE, "{inbound}");
        Ok(())
    };
    unless_failed(run.await, &scene);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_27_inbound_waits_and_loses_nothing_while_the_server_and_then_its_sidecar_are_restarted()
{
    let _turn = turn().await;
    let mut scene = scene(vec![("hq", 10)]).await;
    let run = async {
        let traffic = BothWays::start(&scene).await?;
        scene.insides[0].stop().await?;
        scene.sidecars[0].stop().await?;
        scene.sidecars[0].start().await?;
        scene.insides[0].launch().await?;
        traffic.flows(1).await?;
        let accounts = traffic.finish().await?;
        let inbound = &accounts.inbound;
        let lost = inbound.lost_beside(&scene.insides[0].log());
        ensure!(
            lost.is_empty() && inbound.bounced == 0,
            "{lost:?}: {inbound}"
        );
        ensure!(inbound.duplicates <= MOST_TWICE, "{inbound}");
        // Prosody 0.12 has no acknowledgements on streams by dialback, which its own to the sidecar is.
        let outbound = &accounts.outbound;
        let lost = outbound.lost_beside(&scene.partner.log());
        ensure!(lost.len() <= EACH_WAY as usize / 5, "{lost:?}: {outbound}");
        ensure!(outbound.duplicates == 0, "{outbound}");
        Ok(())
    };
    unless_failed(run.await, &scene);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_21_and_b_28_nothing_is_lost_when_a_pool_is_killed_and_comes_back() {
    let _turn = turn().await;
    let mut scene = scene(vec![("hq", 10), ("dr", 20)]).await;
    let run = async {
        let traffic = BothWays::start(&scene).await?;
        let before = server_streams(&scene).await?;
        scene.edges[0].kill();
        traffic.flows(2).await?;
        let after = server_streams(&scene).await?;
        ensure!(before == after, "the server notices: {before:?}, {after:?}");
        scene.edges[0].launch().await?;
        scene.all_trunks().await?;
        traffic.flows(2).await?;
        let accounts = traffic.finish().await?;
        accounts.ensure_kept(&scene)?;
        let outbound = &accounts.outbound;
        ensure!(outbound.bounced == 0, "{outbound}");
        for account in [&accounts.outbound, &accounts.inbound] {
            ensure!(account.duplicates <= MOST_TWICE, "{account}");
        }
        Ok(())
    };
    unless_failed(run.await, &scene);
}

/// Partners come by the second edge; outbound prefers the first.
fn inbound_by_the_second(scene: &SidecarScene) {
    let dns = scene.lab.dns();
    dns.remove(&format!("_xmpp-server._tcp.{OWN}"));
    for (priority, pool) in [(10, "dr"), (20, "hq")] {
        let fqdn = format!("{pool}.edge.example");
        dns.xmpp_server(OWN, priority, 0, S2S_PORT, &fqdn);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_22_what_goes_by_an_edge_that_freezes_moves_to_the_other_and_both_are_in_use_afterwards()
{
    let _turn = turn().await;
    let scene = scene(vec![("hq", 10), ("dr", 20)]).await;
    inbound_by_the_second(&scene);
    let run = async {
        let traffic = BothWays::start(&scene).await?;
        for (frozen, pool) in [(0, "hq"), (1, "dr")] {
            scene.edges[frozen].freeze();
            trunks_are_given_up(&scene, pool).await?;
            // Outbound goes by the one that is left, and so does what is sent from now on.
            let more = traffic.outbound.so_far() + 4 * EACH_WAY as usize;
            traffic.outbound.arrived(more).await?;
            carries(&scene, 1 - frozen, "outbound").await?;
            scene.edges[frozen].thaw();
            scene.all_trunks().await?;
            traffic.flows(1).await?;
            carries(&scene, 0, "outbound").await?;
            carries(&scene, 1, "inbound").await?;
        }
        let accounts = traffic.finish().await?;
        let outbound = &accounts.outbound;
        let lost = outbound.lost_beside(&scene.partner.log());
        ensure!(
            lost.is_empty() && outbound.bounced == 0,
            "{lost:?}: {outbound}"
        );
        let inbound = &accounts.inbound;
        let lost = inbound.lost_beside(&scene.insides[0].log());
        ensure!(lost.is_empty(), "{lost:?}: {inbound}");
        for account in [outbound, inbound] {
            ensure!(account.duplicates <= 2 * MOST_TWICE, "{account}");
        }
        Ok(())
    };
    unless_failed(run.await, &scene);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_35_nothing_is_lost_when_a_gateway_gets_the_mode_sidecar_and_loses_it_again() {
    let _turn = turn().await;
    let plan = SidecarScenePlan {
        is_direct_too: true,
        ..SidecarScenePlan::default()
    };
    let scene = SidecarScene::start(&plan).await.unwrap();
    let run = async {
        scene.list_keys()?;
        scene.all_trunks().await?;
        let traffic = BothWays::start(&scene).await?;
        scene.switch().await?;
        traffic.flows(2).await?;
        scene.switch_back().await?;
        traffic.flows(2).await?;
        let accounts = traffic.finish().await?;
        for (account, receiver) in [
            (&accounts.outbound, scene.partner.log()),
            (&accounts.inbound, scene.insides[0].log()),
        ] {
            let lost = account.lost_beside(&receiver);
            ensure!(
                lost.is_empty() && account.bounced == 0,
                "{lost:?}: {account}"
            );
            ensure!(account.duplicates <= MOST_TWICE, "{account}");
        }
        Ok(())
    };
    unless_failed(run.await, &scene);
}
