//! Edges that are replaced are ready only with trunks (B-30): real Prosody on both sides, real processes.

use anyhow::{Result, ensure};

use crate::{
    load::{BothWays, MOST_TWICE, turn},
    scene::{OWN, SidecarScene, SidecarScenePlan},
};

/// A new process takes the place of this edge. Nothing but `/readyz` says when it may be relied upon.
async fn replace(scene: &mut SidecarScene, edge: usize) -> Result<()> {
    scene.edges[edge].stop().await?;
    // While its sidecar does nothing, all that it waits for is a trunk.
    scene.sidecars[0].freeze();
    let new = &mut scene.edges[edge];
    new.begin()?;
    let waits = format!("waiting for a trunk from a sidecar of gateway {OWN}");
    new.says("it waits for a trunk", |code, text| {
        code == 503 && text.lines().next() == Some(waits.as_str())
    })
    .await?;
    scene.sidecars[0].thaw();
    scene.edges[edge].gets_ready().await?;
    ensure!(
        scene.trunks(edge).await? == 1,
        "it is ready without a trunk"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_30_an_edge_is_ready_only_with_trunks_and_nothing_is_answered_while_all_are_replaced() {
    let _turn = turn().await;
    let plan = SidecarScenePlan {
        edges: vec![("one", 10), ("two", 10)],
        ..SidecarScenePlan::default()
    };
    let mut scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let traffic = BothWays::start(&scene).await?;
        for edge in 0..scene.edges.len() {
            replace(&mut scene, edge).await?;
        }
        traffic.flows(1).await?;
        let accounts = traffic.finish().await?;
        accounts.ensure_kept(&scene)?;
        for account in [&accounts.outbound, &accounts.inbound] {
            ensure!(account.conditions.is_empty(), "{account}");
            ensure!(account.duplicates <= MOST_TWICE, "{account}");
        }
        Ok::<_, anyhow::Error>(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
