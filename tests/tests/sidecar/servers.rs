//! The server inside is ejabberd as packaged (B-03).

use anyhow::ensure;
use xmpp_edge_tests::{
    conversation,
    servers::Kind,
    traffic::{RATE, Traffic},
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
