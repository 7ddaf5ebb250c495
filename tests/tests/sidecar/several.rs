//! Two servers of one domain, each with its sidecar: where they are worlds of their own, one gets what comes in, and
//! the other when that ends or is cut off (B-34); where they say that they are one, both do (B-33).

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::wait;

use crate::{
    load::{EACH_WAY, one_way, turn},
    scene::{SidecarScene, SidecarScenePlan},
};

/// The instance that each edge takes for the active one; none where they disagree, or one has several.
async fn active(scene: &SidecarScene) -> Result<Option<String>> {
    let mut all = Vec::new();
    for edge in 0..scene.edges.len() {
        let shown = scene.shown_sidecars(edge).await?;
        let active = shown.iter().filter(|it| it["active"] == true);
        let names: Vec<_> = active
            .filter_map(|it| Some(it["instance"].as_str()?.to_owned()))
            .collect();
        ensure!(names.len() <= 1, "two are active at one edge: {names:?}");
        all.push(names.into_iter().next());
    }
    all.dedup();
    Ok((all.len() == 1).then(|| all.remove(0)).flatten())
}

async fn becomes_active(scene: &SidecarScene, number: usize) -> Result<()> {
    let instance = scene.sidecars[number].instance();
    wait::until("it is active everywhere", wait::GENEROUS, async || {
        let active = active(scene).await.ok()??;
        (active == instance).then_some(())
    })
    .await
    .context(instance.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_34_of_two_single_servers_the_other_takes_over_after_an_end_and_after_a_cut() {
    let _turn = turn().await;
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
        let at = usize::from(first != scene.sidecars[0].instance());
        let other = 1 - at;
        let mut traffic = one_way(scene.bob(), scene.alice(at)).await?;
        traffic.arrives_also_at(scene.alice(other)).await?;
        let second = EACH_WAY as usize;
        traffic.arrived(2 * second).await?;
        // It ends in order.
        scene.sidecars[at].stop().await?;
        becomes_active(&scene, other).await?;
        traffic.arrived(traffic.so_far() + 2 * second).await?;
        scene.sidecars[at].start().await?;
        scene.all_trunks().await?;
        becomes_active(&scene, other).await?;
        // It is cut off.
        scene.sidecars[other].freeze();
        becomes_active(&scene, at).await?;
        traffic.arrived(traffic.so_far() + 2 * second).await?;
        scene.sidecars[other].thaw();
        scene.all_trunks().await?;
        // Its claim may be the older one still: what counts is that all edges agree.
        wait::until("one is active", wait::GENEROUS, async || {
            active(&scene).await.ok()?
        })
        .await?;
        traffic.arrived(traffic.so_far() + second).await?;
        traffic.stop();
        let account = traffic.finish().await?;
        println!("two single servers: {account}");
        ensure!(account.lost == 0 && account.bounced == 0, "{account}");
        ensure!(account.duplicates <= 12 * second, "{account}");
        Ok(())
    };
    if let Err(error) = run.await {
        let mut shown = Vec::new();
        for edge in &scene.edges {
            shown.push(edge.status().await.unwrap_or_default().to_string());
        }
        panic!("{error:#}\n{}\n{}", shown.join("\n"), scene.logs());
    }
}

/// The two are not one in truth; alice is at both, and either is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_33_of_two_clustered_servers_the_other_takes_over_when_one_or_its_sidecar_is_killed() {
    let _turn = turn().await;
    let plan = SidecarScenePlan {
        servers: 2,
        sidecar_server: "Clustered",
        ..SidecarScenePlan::default()
    };
    let mut scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let mut traffic = one_way(scene.bob(), scene.alice(0)).await?;
        traffic.arrives_also_at(scene.alice(1)).await?;
        let second = EACH_WAY as usize;
        traffic.arrived(second).await?;
        for server in [0, 1] {
            scene.insides[server].kill();
            traffic.arrived(traffic.so_far() + second).await?;
            scene.insides[server].launch().await?;
            traffic.arrived(traffic.so_far() + second).await?;
            scene.sidecars[server].kill();
            traffic.arrived(traffic.so_far() + second).await?;
            scene.sidecars[server].start().await?;
            scene.all_trunks().await?;
        }
        traffic.stop();
        let account = traffic.finish().await?;
        println!("two clustered servers: {account}");
        let logs = scene.insides[0].log() + &scene.insides[1].log();
        let lost = account.lost_beside(&logs);
        ensure!(
            lost.is_empty() && account.bounced == 0,
            "{lost:?}: {account}"
        );
        ensure!(account.duplicates <= 12 * second, "{account}");
        Ok(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
