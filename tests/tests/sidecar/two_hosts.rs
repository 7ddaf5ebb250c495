//! The guide on two hosts: nothing is opened inwards, and messages go both ways.

use anyhow::Result;
use xmpp_edge_tests::wait;

use crate::scene::{SidecarScene, SidecarScenePlan};

async fn talk(scene: &SidecarScene) -> Result<()> {
    let alice = scene.insides[0].login("alice").await?;
    let bob = scene.partner.login("bob").await?;
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let id = from.fresh_id();
        from.message(to.full(), &id, "hello").await?;
        to.expect_message(&id).await?;
    }
    Ok(())
}

#[tokio::test]
async fn b_11_a_key_is_refused_listed_and_removed() {
    let scene = SidecarScene::start(&SidecarScenePlan::default())
        .await
        .unwrap();
    let told = async {
        wait::until("the line to add is told", wait::GENEROUS, async || {
            let log = scene.sidecars[0].log();
            log.contains("spec.gateways[].sidecar.keys").then_some(())
        })
        .await?;
        assert_eq!(scene.trunks(0).await?, 0);
        scene.list_keys()?;
        let stands = async || (scene.trunks(0).await.ok()? == 1).then_some(());
        wait::until("the trunk stands", wait::GENEROUS, stands).await?;
        scene.switch().await?;
        talk(&scene).await?;
        scene.unlist_keys()?;
        wait::until("the trunk is closed", wait::GENEROUS, async || {
            (scene.trunks(0).await.ok()? == 0).then_some(())
        })
        .await
    };
    if let Err(error) = told.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
