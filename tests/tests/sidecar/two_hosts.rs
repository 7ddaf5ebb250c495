//! The guide on two hosts: nothing is opened inwards, and messages go both ways.

use anyhow::Result;
use xmpp_edge_tests::wait;

use crate::scene::TwoHosts;

async fn talk(scene: &TwoHosts) -> Result<()> {
    let alice = scene.inside.login("alice").await?;
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
    let scene = TwoHosts::start().await.unwrap();
    let told = async {
        wait::until("the line to add is told", wait::GENEROUS, async || {
            let log = scene.sidecar.log();
            log.contains("spec.gateways[].sidecar.keys").then_some(())
        })
        .await?;
        assert_eq!(scene.trunks().await?, 0);
        scene.list_key()?;
        let stands = async || (scene.trunks().await.ok()? == 1).then_some(());
        wait::until("the trunk stands", wait::GENEROUS, stands).await?;
        scene.switch().await?;
        talk(&scene).await?;
        scene.unlist_key()?;
        wait::until("the trunk is closed", wait::GENEROUS, async || {
            (scene.trunks().await.ok()? == 0).then_some(())
        })
        .await
    };
    if let Err(error) = told.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
