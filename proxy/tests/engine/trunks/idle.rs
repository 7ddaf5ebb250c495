//! Pairs that are idle: what is said of them on the wire, and what of them is left (B-18).

use std::time::Duration;

use xmpp_edge_proxy::trunk::PairIdle;

use super::{
    engines::{BareSidecar, Engine, at, edge, ledger, sidecar, until},
    pki::Pki,
    scripted::ScriptedEdge,
};
use crate::peers::{get, server_at, within};

/// As in production, in less time.
const SOON: PairIdle = PairIdle {
    after: Duration::from_millis(200),
    look: Duration::from_millis(20),
};

#[tokio::test]
async fn b_18_a_pair_that_is_idle_is_ended_on_the_wire_and_opened_anew_by_its_next_stanza() {
    let number = 70;
    let pki = Pki::new();
    let edge = ScriptedEdge::open(at(number, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let settings = sidecar(number, &pki, &shown, &[edge.address]);
    let sidecar = BareSidecar::start_with(settings, |context| context.pair_idle = SOON);
    let mut trunk = edge.next().await;
    let (waits, idles) = ("x0.many.example", "x1.many.example");
    let ledgers = [ledger(), ledger()];
    sidecar.send(waits, 0, 1, &ledgers[0]);
    sidecar.send(idles, 0, 1, &ledgers[1]);
    trunk.hears_times("</message>", 2).await;
    let end = |pair: u32| format!("<end xmlns='urn:xmpp-edge:trunk:0' i='{pair}'/>");
    let ack = |pair: u32| format!("<a xmlns='urn:xmpp-edge:trunk:0'><p i='{pair}' h='1'/></a>");
    let (waiting, idle) = (trunk.number(waits), trunk.number(idles));
    trunk.say(&ack(idle)).await;
    trunk.hears(&end(idle)).await;
    // As long without a stanza as the other one, it has one that is unacknowledged.
    assert_eq!(trunk.heard_times(&end(waiting)), 0, "{}", trunk.heard());
    trunk.say(&ack(waiting)).await;
    trunk.hears(&end(waiting)).await;
    sidecar.send(idles, 1, 1, &ledgers[1]);
    trunk.hears_times("</message>", 3).await;
    assert_ne!(trunk.number(idles), idle);
}

#[tokio::test]
async fn b_18_of_pairs_that_are_idle_nothing_is_left_at_either_end() {
    const PAIRS: usize = 20;
    let number = 71;
    let pki = Pki::new();
    let partner = server_at(at(number, 2, 5269));
    let document = edge(number, &pki, |document| {
        document["listeners"]["admin"] = 9090.into();
    });
    let edge = Engine::start(at(number, 1, 0), document);
    let shown = pki.sidecar(&["org.example"]);
    let settings = sidecar(number, &pki, &shown, &[edge.address]);
    let sidecar = BareSidecar::start_with(settings, |context| context.pair_idle = SOON);
    let ledger = ledger();
    for pair in 0..PAIRS {
        sidecar.send(&format!("x{pair}.many.example"), pair as u64, 1, &ledger);
    }
    partner.heard_stanzas(PAIRS).await;
    until("all are settled", || ledger.settled() == PAIRS as u64).await;
    let pairs = async || {
        let metrics = get(at(number, 1, 9090), "/metrics").await;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("xmpp_edge_trunk_pairs{gateway=\"org\"} "));
        line.map(str::to_owned)
    };
    within("no pair is left", async {
        while pairs().await.as_deref() != Some("0") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let edges = sidecar.context.trunks.edges();
    let (_, facts, _) = edges[0].trunk.as_ref().expect("it stands");
    until("the sidecar has none either", || facts.figures.pairs() == 0).await;
    assert_eq!(sidecar.context.router.held(), 0);
    edge.stop().await;
}
