//! Several edges under 500 messages a second each way: one dies, freezes, or all are replaced one after the other
//! (B-21, B-22, B-26, B-28).

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};
use xmpp_edge_tests::{
    traffic::{Account, RATE, Traffic},
    wait,
};

use crate::scene::{PARTNER, SidecarScene, SidecarScenePlan};

/// How many have arrived when it strikes.
const BEFORE: usize = 800;

/// Traffic each way takes a whole processor: one such scene at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Traffic each way.
struct BothWays {
    outbound: Traffic,
    inbound: Traffic,
}

impl BothWays {
    async fn start(scene: &SidecarScene, seconds: u32) -> Result<Self> {
        let (alice, bob) = (scene.alice(0), scene.bob());
        let count = seconds * RATE;
        Ok(Self {
            outbound: Traffic::start(alice.clone(), bob.clone(), count, RATE).await?,
            inbound: Traffic::start(bob, alice, count, RATE).await?,
        })
    }

    async fn arrived(&self, count: usize) -> Result<()> {
        self.outbound.arrived(count).await?;
        self.inbound.arrived(count).await
    }

    /// As it is now, and then so many more each way.
    async fn go_on(&self, count: usize) -> Result<()> {
        self.outbound
            .arrived(self.outbound.so_far() + count)
            .await?;
        self.inbound.arrived(self.inbound.so_far() + count).await
    }

    /// No more is sent; nothing was lost either way. Answers what became of what went out.
    async fn finish(self, scene: &SidecarScene, what: &str) -> Result<Account> {
        self.outbound.stop();
        self.inbound.stop();
        let (outbound, inbound) = (self.outbound.finish().await?, self.inbound.finish().await?);
        println!("{what}, outbound: {outbound}\n{what}, inbound: {inbound}");
        let (inside, partner) = (&scene.insides[0], &scene.partner);
        let lost = outbound.lost_beside(&partner.log());
        ensure!(lost.is_empty(), "outbound {lost:?}: {outbound}");
        let lost = inbound.lost_beside(&inside.log());
        ensure!(lost.is_empty(), "inbound {lost:?}: {inbound}");
        let late = outbound.late_beside(&inside.log());
        ensure!(late.is_empty(), "{late:?}: {outbound}");
        Ok(outbound)
    }
}

fn two() -> SidecarScenePlan {
    SidecarScenePlan {
        edges: vec![("hq", 10), ("dr", 20)],
        ..SidecarScenePlan::default()
    }
}

/// How often the server inside set up a stream to the partner, which the sidecar takes for it.
fn streams_of_the_server(scene: &SidecarScene) -> usize {
    let done = format!("->{PARTNER} complete");
    scene.insides[0].log().matches(&done).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_21_b_28_where_one_pool_dies_the_other_takes_over_and_pairs_return_in_order() {
    let _alone = ALONE.lock().await;
    let mut scene = SidecarScene::connected(&two()).await.unwrap();
    let run = async {
        let traffic = BothWays::start(&scene, 60).await?;
        traffic.arrived(BEFORE).await?;
        let before = streams_of_the_server(&scene);
        scene.edges[0].kill();
        traffic.go_on(2 * RATE as usize).await?;
        scene.edges[0].launch().await?;
        scene.all_trunks().await?;
        traffic.go_on(2 * RATE as usize).await?;
        let status = scene.edges[0].status().await?;
        let pairs = &status["gateways"][0]["sidecars"][0]["pairs"];
        ensure!(pairs.as_u64() > Some(0), "nothing returned: {status:#}");
        let outbound = traffic.finish(&scene, "one of two killed").await?;
        ensure!(outbound.bounced == 0, "{outbound}");
        ensure!(outbound.duplicates <= RATE as usize, "{outbound}");
        let after = streams_of_the_server(&scene);
        ensure!(
            before == after,
            "the server dialled again: {before}, {after}"
        );
        Ok(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_22_what_goes_by_an_edge_that_freezes_moves_to_the_other() {
    let _alone = ALONE.lock().await;
    let scene = SidecarScene::connected(&two()).await.unwrap();
    let run = async {
        let traffic = BothWays::start(&scene, 90).await?;
        traffic.arrived(BEFORE).await?;
        scene.edges[0].freeze();
        let frozen = Instant::now();
        // Outbound goes on by the other one, without its being thawed.
        let more = traffic.outbound.so_far() + 4 * RATE as usize;
        traffic.outbound.arrived(more).await?;
        // The scenario itself is a duration.
        sleep_until(frozen + Duration::from_secs(15)).await;
        scene.edges[0].thaw();
        scene.all_trunks().await?;
        traffic.go_on(RATE as usize).await?;
        let outbound = traffic.finish(&scene, "frozen").await?;
        ensure!(outbound.bounced == 0, "{outbound}");
        Ok(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_26_of_three_edges_that_are_replaced_in_turn_nobody_notices_anything_outbound() {
    let plan = SidecarScenePlan {
        edges: vec![("a", 10), ("b", 10), ("c", 10)],
        ..SidecarScenePlan::default()
    };
    let _alone = ALONE.lock().await;
    let mut scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let traffic = BothWays::start(&scene, 120).await?;
        traffic.arrived(BEFORE).await?;
        for edge in 0..3 {
            // Ready once the trunk stands again.
            scene.edges[edge].restart().await?;
            scene.all_trunks().await?;
            traffic.go_on(RATE as usize).await?;
        }
        let outbound = traffic.finish(&scene, "replaced in turn").await?;
        ensure!(outbound.bounced == 0 && outbound.lost == 0, "{outbound}");
        ensure!(outbound.duplicates == 0, "{outbound}");
        wait::until("all is settled", wait::GENEROUS, async || {
            let shown = scene.shown_sidecars(0).await.ok()?;
            (shown[0]["unacknowledgedStanzas"] == 0).then_some(())
        })
        .await
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
