//! Packets between the sidecar and one edge are lost without a word: in, out, both (B-23). Each host in a network
//! of its own.

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    network::{Loss, apart},
    traffic::{RATE, Traffic},
};

use crate::scene::{SidecarScene, SidecarScenePlan, WIRE};

async fn moved(scene: &SidecarScene) -> Result<()> {
    let inside = &scene.networks.as_ref().context("it has networks")?.inside;
    let traffic = Traffic::start(scene.alice(0), scene.bob(), 200 * RATE, RATE).await?;
    for loss in [Loss::In, Loss::Out, Loss::Both] {
        traffic.arrived(traffic.so_far() + RATE as usize).await?;
        inside.lose(WIRE, loss)?;
        // It goes on by the other edge while they are lost.
        traffic
            .arrived(traffic.so_far() + 4 * RATE as usize)
            .await?;
        inside.heal()?;
        scene.all_trunks().await?;
    }
    traffic.stop();
    let account = traffic.finish().await?;
    println!("packets lost: {account}");
    let lost = account.lost_beside(&scene.partner.log());
    ensure!(
        lost.is_empty() && account.bounced == 0,
        "{lost:?}: {account}"
    );
    let late = account.late_beside(&scene.insides[0].log());
    ensure!(late.is_empty(), "{late:?}: {account}");
    Ok(())
}

#[test]
fn b_23_what_goes_by_an_edge_to_which_packets_are_lost_moves_to_the_other() {
    apart(|world| async move {
        let plan = SidecarScenePlan {
            edges: vec![("hq", 10), ("dr", 20)],
            ..SidecarScenePlan::default()
        };
        let scene = SidecarScene::apart(&world, &plan).await?;
        let done = moved(&scene).await;
        done.with_context(|| scene.logs())
    });
}
