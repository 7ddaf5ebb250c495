//! What dies amid traffic costs nobody a message: the sidecar, the edge, the server inside, the partner (B-20, B-24, B-25).
//! Prosody (XEP-0198) on both sides, 500 messages a second.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};
use xmpp_edge_tests::traffic::{RATE, Traffic};

use crate::scene::{SidecarScene, SidecarScenePlan};

/// Messages of one run.
const COUNT: u32 = 3000;
/// How many have arrived when it strikes.
const BEFORE: usize = 800;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Sidecar,
    /// Frozen for 3 s before.
    FrozenSidecar,
    Edge,
    Inside,
    Partner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Inbound,
    Outbound,
}

async fn strike(scene: &mut SidecarScene, victim: Victim) -> Result<()> {
    match victim {
        Victim::Sidecar => {
            scene.sidecars[0].kill();
            scene.sidecars[0].start().await
        }
        Victim::FrozenSidecar => {
            scene.sidecars[0].freeze();
            // The scenario itself is a duration.
            sleep_until(Instant::now() + Duration::from_secs(3)).await;
            scene.sidecars[0].kill();
            scene.sidecars[0].start().await
        }
        Victim::Edge => {
            scene.edges[0].kill();
            scene.edges[0].launch().await
        }
        Victim::Inside => {
            scene.insides[0].kill();
            scene.insides[0].launch().await
        }
        Victim::Partner => {
            scene.partner.kill();
            scene.partner.launch().await
        }
    }
}

/// Nothing that was handed over is lost, order is kept, and no more comes twice than can have been
/// unacknowledged when it died.
async fn kept(way: Way, victim: Victim) {
    let plan = SidecarScenePlan::default();
    let mut scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let (alice, bob) = (scene.alice(0), scene.bob());
        let (from, to) = match way {
            Way::Outbound => (alice, bob),
            Way::Inbound => (bob, alice),
        };
        let traffic = Traffic::start(from, to, COUNT, RATE).await?;
        traffic.arrived(BEFORE).await?;
        strike(&mut scene, victim).await?;
        let account = traffic.finish().await?;
        let (sender, receiver) = match way {
            Way::Outbound => (&scene.insides[0], &scene.partner),
            Way::Inbound => (&scene.partner, &scene.insides[0]),
        };
        println!("{way:?}, {victim:?}: {account}");
        // Prosody 0.12 has no acknowledgements on streams by dialback, which its own to the sidecar is: what it
        // had written and the sidecar not read is its own loss.
        let unread = match (way, victim) {
            (Way::Outbound, Victim::Sidecar) => RATE as usize / 5,
            _ => 0,
        };
        let lost = account.lost_beside(&receiver.log());
        assert!(lost.len() <= unread, "{lost:?}: {account}");
        assert!(account.late_beside(&sender.log()).is_empty(), "{account}");
        let twice = account.duplicates + account.bounced_and_delivered;
        assert!(twice <= 4 * RATE as usize, "{account}");
        // It goes on as before.
        scene.all_trunks().await
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_20_nothing_is_lost_outbound_but_what_was_not_read_when_the_sidecar_is_killed() {
    kept(Way::Outbound, Victim::Sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_20_nothing_is_lost_inbound_when_the_sidecar_freezes_and_is_killed() {
    kept(Way::Inbound, Victim::FrozenSidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_24_nothing_is_lost_outbound_when_the_only_edge_is_killed() {
    kept(Way::Outbound, Victim::Edge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_24_nothing_is_lost_inbound_when_the_only_edge_is_killed() {
    kept(Way::Inbound, Victim::Edge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_25_nothing_is_lost_inbound_when_the_server_is_killed() {
    kept(Way::Inbound, Victim::Inside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_outbound_when_the_partner_is_killed() {
    kept(Way::Outbound, Victim::Partner).await;
}
