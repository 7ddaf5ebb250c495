//! The server inside: ejabberd as packaged, a server and its sidecar that are replaced, and two that are worlds of
//! their own (B-03, B-27, B-29, B-34).

use anyhow::{Result, ensure};
use serde_json::Value;
use xmpp_edge_tests::{
    conversation,
    servers::Kind,
    traffic::{RATE, Traffic},
    wait,
};

use crate::scene::{SidecarScene, SidecarScenePlan};

/// Messages of one run.
const COUNT: u32 = 3000;
/// How many have arrived when it strikes.
const BEFORE: usize = 800;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_03_ejabberd_as_packaged_federates_by_dialback_and_loses_nothing_inbound_when_it_is_killed()
 {
    let plan = SidecarScenePlan {
        inside: Kind::Ejabberd,
        ..SidecarScenePlan::default()
    };
    let mut scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let alice = scene.insides[0].login("alice").await?;
        let bob = scene.partner.login("bob").await?;
        conversation::messages(&alice, &bob).await?;
        drop(alice);
        let traffic = Traffic::start(scene.bob(), scene.alice(0), COUNT, RATE).await?;
        traffic.arrived(BEFORE).await?;
        scene.insides[0].kill();
        scene.insides[0].launch().await?;
        let account = traffic.finish().await?;
        println!("ejabberd killed, inbound: {account}");
        ensure!(account.lost == 0, "{account}");
        ensure!(account.duplicates <= 4 * RATE as usize, "{account}");
        Ok(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}

/// The server first, then its sidecar, as a pod ends; then both anew, on what they kept. Nobody but them is asked
/// for anything (B-29).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_27_b_29_what_comes_in_waits_while_server_and_sidecar_are_replaced() {
    let plan = SidecarScenePlan::default();
    let mut scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let traffic = Traffic::start(scene.bob(), scene.alice(0), COUNT, RATE).await?;
        traffic.arrived(BEFORE).await?;
        scene.insides[0].stop().await?;
        scene.sidecars[0].stop().await?;
        scene.sidecars[0].start().await?;
        scene.insides[0].launch().await?;
        let account = traffic.finish().await?;
        println!("server and sidecar replaced, inbound: {account}");
        let lost = account.lost_unread(&scene.insides[0].log());
        ensure!(lost.is_empty(), "{lost:?}: {account}");
        scene.all_trunks().await
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}

/// Which sidecar each edge has active; none while they disagree.
async fn active(scene: &SidecarScene) -> Result<Option<String>> {
    let mut all = Vec::new();
    for edge in 0..scene.edges.len() {
        let shown = scene.shown_sidecars(edge).await?;
        let active: Vec<&Value> = shown.iter().filter(|it| it["active"] == true).collect();
        ensure!(active.len() <= 1, "two at once: {shown:?}");
        all.push(active.first().map(|it| it["instance"].to_string()));
    }
    all.dedup();
    Ok(if all.len() == 1 { all.remove(0) } else { None })
}

/// Until all edges have this one active.
async fn becomes_active(scene: &SidecarScene, sidecar: usize) -> Result<()> {
    let name = format!("{:?}", scene.sidecars[sidecar].instance());
    let what = format!("{name} is active");
    wait::until(&what, wait::GENEROUS, async || {
        (active(scene).await.ok()? == Some(name.clone())).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_34_of_two_single_servers_one_serves_and_the_other_after_a_drain_and_after_a_freeze() {
    let plan = SidecarScenePlan {
        edges: vec![("hq", 10), ("dr", 20)],
        servers: 2,
        ..SidecarScenePlan::default()
    };
    let mut scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let first = wait::until("one is active", wait::GENEROUS, async || {
            active(&scene).await.ok()?
        })
        .await?;
        let first = usize::from(first.contains("prosody-1"));
        let other = 1 - first;
        let mut traffic = Traffic::start(scene.bob(), scene.alice(0), 60 * RATE, RATE).await?;
        traffic.arrives_also_at(scene.alice(1)).await?;
        traffic.arrived(BEFORE).await?;
        scene.sidecars[first].stop().await?;
        becomes_active(&scene, other).await?;
        traffic.arrived(traffic.so_far() + RATE as usize).await?;
        scene.sidecars[first].start().await?;
        scene.all_trunks().await?;
        becomes_active(&scene, other).await?;
        scene.sidecars[other].freeze();
        becomes_active(&scene, first).await?;
        traffic.arrived(traffic.so_far() + RATE as usize).await?;
        scene.sidecars[other].thaw();
        scene.all_trunks().await?;
        becomes_active(&scene, first).await?;
        traffic.stop();
        let account = traffic.finish().await?;
        println!("one of two single servers drained, the other frozen: {account}");
        ensure!(account.lost == 0, "{account}");
        Ok(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
