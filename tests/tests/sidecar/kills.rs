//! Kills in any order amid traffic both ways (B-46): afterwards each message has its fate, status and metrics are
//! what is so, and nothing is left over. Real Prosody on both sides, real processes.

use std::{env, ops::RangeInclusive, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{FutureExt, future::try_join_all};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use xmpp_edge_tests::{traffic::Account, wait};

use crate::{
    figures::sum,
    load::{AHEAD, BothAccounts, BothWays, MOST_TWICE, turn},
    scene::{SidecarScene, SidecarScenePlan},
};

/// How often somebody is killed, where the variable does not say more.
const ROUNDS: u32 = 4;
const ROUNDS_VARIABLE: &str = "SIDECAR_KILLS";
/// With the seed that a run printed, the same are killed in the same order.
const SEED_VARIABLE: &str = "SIDECAR_KILLS_SEED";
/// Whoever is away for less than this costs no error of ours: well below `queueTimeoutSeconds`, for what came
/// just before it went waits on.
const SHORT: Duration = Duration::from_secs(15);
/// What a server says of users whose clients it lost when it was killed.
const USER_AWAY: [&str; 2] = ["service-unavailable", "recipient-unavailable"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Edge(usize),
    Sidecar,
    Inside,
    Partner,
}

const ALL: [Party; 5] = [
    Party::Edge(0),
    Party::Edge(1),
    Party::Sidecar,
    Party::Inside,
    Party::Partner,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Outbound,
    Inbound,
}

/// One that was killed and came back.
#[derive(Debug)]
struct Kill {
    party: Party,
    /// Numbers that may have been on their way meanwhile.
    outbound: RangeInclusive<u32>,
    inbound: RangeInclusive<u32>,
    /// Until all stood again.
    away: Duration,
}

/// Numbers at random that come again with the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn new() -> Result<Self> {
        let seed = match env::var(SEED_VARIABLE) {
            Ok(seed) => seed.parse().context(SEED_VARIABLE)?,
            Err(_) => u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs()),
        };
        println!("{SEED_VARIABLE}={seed}");
        Ok(Self(seed))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound).expect("a few");
        usize::try_from((mixed ^ (mixed >> 31)) % bound).expect("below a few")
    }

    /// Up to so many milliseconds.
    async fn pause(&mut self, most: usize) {
        let pause = Duration::from_millis(self.below(most) as u64);
        // The scenario itself is a duration.
        sleep_until(Instant::now() + pause).await;
    }

    /// One of all or two, in any order.
    fn some(&mut self) -> Vec<Party> {
        let mut left = ALL.to_vec();
        let count = 1 + self.below(2);
        (0..count)
            .map(|_| left.swap_remove(self.below(left.len())))
            .collect()
    }
}

fn kill(scene: &mut SidecarScene, party: Party) {
    match party {
        Party::Edge(at) => scene.edges[at].kill(),
        Party::Sidecar => scene.sidecars[0].kill(),
        Party::Inside => scene.insides[0].kill(),
        Party::Partner => scene.partner.kill(),
    }
}

/// All of them at once: an edge is not ready before the sidecar is there.
async fn launch(scene: &mut SidecarScene, struck: &[Party]) -> Result<()> {
    let mut back = Vec::new();
    for (at, edge) in scene.edges.iter_mut().enumerate() {
        if struck.contains(&Party::Edge(at)) {
            back.push(edge.launch().boxed_local());
        }
    }
    if struck.contains(&Party::Sidecar) {
        back.push(scene.sidecars[0].start().boxed_local());
    }
    if struck.contains(&Party::Inside) {
        back.push(scene.insides[0].launch().boxed_local());
    }
    if struck.contains(&Party::Partner) {
        back.push(scene.partner.launch().boxed_local());
    }
    try_join_all(back).await?;
    scene.all_trunks().await
}

/// Some are killed, and come back after a while; returns once messages arrive each way as before.
async fn strike(
    scene: &mut SidecarScene,
    traffic: &BothWays,
    chance: &mut Chance,
) -> Result<Vec<Kill>> {
    let struck = chance.some();
    println!("killed: {struck:?}");
    let began = Instant::now();
    let before = traffic.sent();
    for party in &struck {
        kill(scene, *party);
        chance.pause(300).await;
    }
    chance.pause(1_000).await;
    launch(scene, &struck).await.context("they come back")?;
    let away = began.elapsed();
    traffic.flows(1).await?;
    let after = traffic.sent();
    let on_their_way = |before: usize, after: usize| {
        let number = |count: usize| u32::try_from(count).expect("a few thousand");
        number(before.saturating_sub(AHEAD))..=number(after)
    };
    let kills = struck.into_iter().map(|party| Kill {
        party,
        outbound: on_their_way(before.0, after.0),
        inbound: on_their_way(before.1, after.1),
        away,
    });
    Ok(kills.collect())
}

impl Kill {
    fn numbers(&self, way: Way) -> &RangeInclusive<u32> {
        match way {
            Way::Outbound => &self.outbound,
            Way::Inbound => &self.inbound,
        }
    }

    /// Whether what its victim had taken and nobody had acknowledged is gone with it. Prosody 0.12 has no
    /// acknowledgements on streams by dialback, which its own to the sidecar is.
    fn loses(&self, way: Way) -> bool {
        match way {
            Way::Outbound => matches!(self.party, Party::Inside | Party::Sidecar),
            Way::Inbound => self.party == Party::Partner,
        }
    }
}

/// Each message that was taken over is delivered or answered, and no error is ours.
fn ensure_kept(
    way: Way,
    account: &Account,
    (sender, receiver): (&str, &str),
    kills: &[Kill],
) -> Result<()> {
    let unexplained = account.lost_beside(receiver);
    let broken = account.lost_though_acknowledged(sender);
    let broken: Vec<_> = broken
        .iter()
        .filter(|number| unexplained.contains(number))
        .collect();
    ensure!(
        broken.is_empty(),
        "{way:?}: acknowledged and lost {broken:?}: {account}"
    );
    // What Prosody had queued when it dialled is written before it counts: an edge that dies then takes it away.
    let uncounted = account.lost_unwritten(sender);
    let lost = unexplained.iter().filter(|number| {
        let mut own = kills
            .iter()
            .filter(|kill| kill.numbers(way).contains(*number));
        !own.any(|kill| {
            kill.loses(way) || matches!(kill.party, Party::Edge(_)) && uncounted.contains(*number)
        })
    });
    let lost: Vec<_> = lost.collect();
    ensure!(lost.is_empty(), "{way:?}: lost {lost:?}: {account}");
    let ours = account.refusals.iter().filter(|(number, condition, _)| {
        let is_long = |kill: &Kill| kill.away > SHORT && kill.numbers(way).contains(number);
        // Of what two ends of a trunk left unacknowledged nobody knows more: two sendings at most.
        let ends_trunks = |kill: &&Kill| {
            matches!(kill.party, Party::Sidecar | Party::Edge(_))
                && kill.numbers(way).contains(number)
        };
        let was_sent_twice =
            condition == "remote-server-timeout" && kills.iter().filter(ends_trunks).count() > 1;
        !USER_AWAY.contains(&condition.as_str()) && !kills.iter().any(is_long) && !was_sent_twice
    });
    let ours: Vec<_> = ours.collect();
    ensure!(ours.is_empty(), "{way:?}: answered {ours:?}: {account}");
    ensure!(
        account.duplicates <= MOST_TWICE * kills.len(),
        "{way:?}: {account}"
    );
    Ok(())
}

/// Nothing waits, nothing is unacknowledged, and each trunk is shown once.
async fn comes_to_rest(scene: &SidecarScene) -> Result<()> {
    wait::until("nothing is left over", wait::GENEROUS, async || {
        for edge in 0..scene.edges.len() {
            let shown = scene.shown_sidecars(edge).await.ok()?;
            let is_settled = |it: &Value| it["unacknowledgedStanzas"] == 0 && it["active"] == true;
            let status = scene.edges[edge].status().await.ok()?;
            let mut streams = status["streams"].as_array()?.iter();
            let waits = streams.any(|it| it["queuedStanzas"] != 0);
            if waits || shown.len() != scene.sidecars.len() || !shown.iter().all(is_settled) {
                return None;
            }
        }
        let (_, metrics) = scene.sidecars[0].get("/metrics").await.ok()?;
        let left = sum(&metrics, "queue_stanzas") + sum(&metrics, "queue_bytes");
        let trunks = sum(&metrics, "trunks{");
        (left == 0.0 && trunks == scene.edges.len() as f64).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_46_after_kills_in_any_order_each_message_has_its_fate_and_nothing_is_left_over() {
    let _turn = turn().await;
    let plan = SidecarScenePlan {
        edges: vec![("hq", 10), ("dr", 20)],
        ..SidecarScenePlan::default()
    };
    let mut scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let rounds = match env::var(ROUNDS_VARIABLE) {
            Ok(rounds) => rounds.parse().context(ROUNDS_VARIABLE)?,
            Err(_) => ROUNDS,
        };
        let mut chance = Chance::new()?;
        let traffic = BothWays::start(&scene).await?;
        let mut kills = Vec::new();
        for _ in 0..rounds {
            kills.append(&mut strike(&mut scene, &traffic, &mut chance).await?);
        }
        let BothAccounts { outbound, inbound } = traffic.finish().await?;
        println!("{kills:?}");
        let (inside, partner) = (scene.insides[0].log(), scene.partner.log());
        ensure_kept(Way::Outbound, &outbound, (&inside, &partner), &kills)?;
        ensure_kept(Way::Inbound, &inbound, (&partner, &inside), &kills)?;
        scene.all_trunks().await?;
        comes_to_rest(&scene).await.context("at the end")
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
