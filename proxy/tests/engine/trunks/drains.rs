//! What ends in order loses nothing and sends nothing twice: an edge pod, and a sidecar, that stop amid
//! stanzas (B-26, B-27, B-34).

use std::net::SocketAddr;

use xmpp_edge_crds::edge_config::SidecarServers;

use super::{
    engines::{BareSidecar, Engine, at, edge, ledger, sidecar},
    pki::Pki,
    scripted::{ENABLED, End, ScriptedEdge},
};
use crate::peers::{Confirms, message, outward, server_at, server_that};

const CLOSE: &str = "</stream:stream>";

fn ack(pair: u32, h: u64) -> String {
    format!("<a xmlns='urn:xmpp-edge:trunk:0'><p i='{pair}' h='{h}'/></a>")
}

/// B-26: a sidecar that takes its time is asked for signs of life before the stream is closed, not after.
#[tokio::test]
async fn an_edge_that_ends_closes_once_all_is_acknowledged_and_says_nothing_after_it() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let _partner = server_at(at(61, 2, 5269));
    let engine = Engine::start(at(61, 1, 0), edge(61, &pki, |_| ()));
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    let mut outside = engine
        .partner_stream("partner.example", "org.example")
        .await;
    outside.say(&message(7)).await;
    trunk.hears("id='7'").await;
    engine.shut_down();
    trunk.hears("<drain ").await;
    trunk
        .hears("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>")
        .await;
    assert_eq!(trunk.heard_times(CLOSE), 0, "{}", trunk.heard());
    let settled = ack(trunk.number("org.example"), 1);
    trunk
        .say(&format!(
            "<a xmlns='urn:xmpp-edge:trunk:0' n='1'/>{settled}"
        ))
        .await;
    trunk.hears(CLOSE).await;
    // As a version before this one did, which asked whoever had closed.
    trunk
        .say(&format!("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>{CLOSE}"))
        .await;
    trunk.ends().await;
    assert!(trunk.heard().ends_with(CLOSE), "{}", trunk.heard());
    engine.stop().await;
}

/// A version before this one asks for a sign of life after its end of the stream: that breaks nothing.
#[tokio::test]
async fn what_an_older_edge_says_after_its_end_costs_nothing_a_second_sending() {
    let pki = Pki::new();
    let scripted = ScriptedEdge::open(at(62, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let own = BareSidecar::start(sidecar(62, &pki, &shown, &[scripted.address]));
    let mut trunk = scripted.next().await;
    let ledger = ledger();
    own.send("x.many.example", 0, 2, &ledger);
    trunk.hears_times("</message>", 2).await;
    let number = trunk.number("x.many.example");
    trunk
        .say(&format!(
            "<drain xmlns='urn:xmpp-edge:trunk:0'/>{}{CLOSE}<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>",
            ack(number, 2)
        ))
        .await;
    trunk.hears(CLOSE).await;
    trunk.ends().await;
    let next = scripted.next().await;
    own.send("x.many.example", 2, 1, &ledger);
    next.hears("id='x.many.example:2'").await;
    assert_eq!(next.ids(), ["x.many.example:2"]);
    assert!(
        !trunk.heard().contains("<stream:error"),
        "{}",
        trunk.heard()
    );
}

/// B-26: however busy a pair is, it moves: what comes meanwhile waits until all before it is acknowledged.
#[tokio::test]
async fn a_pair_that_is_to_move_sends_no_more_until_it_has() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let edges = [
        ScriptedEdge::open(at(63, 1, 23456), &pki).await,
        ScriptedEdge::open(at(63, 5, 23456), &pki).await,
    ];
    let addresses = [edges[0].address, edges[1].address];
    let own = BareSidecar::start(sidecar(63, &pki, &shown, &addresses));
    let mut first = edges[0].next().await;
    let mut second = edges[1]
        .next_with("<trunk xmlns='urn:xmpp-edge:trunk:0'/>")
        .await;
    let enabled = ENABLED.replace("hq", "dr");
    second
        .say(&enabled.replace("priority='10'", "priority='20'"))
        .await;
    second.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
    second.hears(" n='1'/>").await;
    let ledger = ledger();
    own.send("x.many.example", 0, 1, &ledger);
    first.hears("</message>").await;
    let number = first.number("x.many.example");
    first
        .say(
            "<edge xmlns='urn:xmpp-edge:trunk:0' withdrawn='true'/>\
             <r xmlns='urn:xmpp-edge:trunk:0' n='1'/>",
        )
        .await;
    first.hears(" n='1'/>").await;
    own.send("x.many.example", 1, 1, &ledger);
    own.send("y.many.example", 2, 1, &ledger);
    second.hears("id='y.many.example:2'").await;
    first.say(&ack(number, 1)).await;
    second.hears("id='x.many.example:1'").await;
    assert_eq!(first.ids(), ["x.many.example:0"]);
}

/// An edge in a pool of its own, to which a sidecar's pairs go first, second, and so on.
fn edge_at(number: u8, last: u8, pki: &Pki, priority: u16) -> Engine {
    let pool = format!("p{priority}");
    let document = edge(number, pki, |document| {
        document["pool"] = pool.as_str().into();
        document["edges"][0]["pool"] = pool.as_str().into();
        document["edges"][0]["priority"] = priority.into();
    });
    Engine::start(at(number, last, 0), document)
}

/// B-26, in process: edges end in order one after the other amid a pair that never pauses.
#[tokio::test]
async fn amid_stanzas_edges_that_end_in_order_neither_lose_one_nor_send_it_twice() {
    let number = 64;
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let partner = server_that(at(number, 2, 5269), Confirms::Acks);
    let _server = server_at(at(number, 3, 5269));
    let mut edges: Vec<Engine> = [(1, 10), (5, 20), (6, 30)]
        .into_iter()
        .map(|(last, priority)| edge_at(number, last, &pki, priority))
        .collect();
    let addresses: Vec<SocketAddr> = edges.iter().map(|edge| edge.address).collect();
    let settings = sidecar(number, &pki, &shown, &addresses);
    let sidecar = Engine::start(at(number, 4, 0), settings.into_inputs());
    let mut inside = sidecar
        .inside_stream("org.example", "partner.example")
        .await;
    let ids: Vec<String> = (0..900).map(|id| id.to_string()).collect();
    let mut stopping = Vec::new();
    for (position, id) in ids.iter().enumerate() {
        inside
            .say(&outward("org.example", "partner.example", id))
            .await;
        if position % 300 == 299 && edges.len() > 1 {
            partner.comes(ids[..position - 100].iter()).await;
            stopping.push(tokio::spawn(edges.remove(0).stop()));
        }
        tokio::task::yield_now().await;
    }
    partner.comes(ids.iter()).await;
    assert_eq!(partner.ids(), ids, "each once, in order");
    for edge in stopping {
        edge.await.expect("an orderly end");
    }
    sidecar.stop().await;
}

/// B-27: what a sidecar took and can neither deliver nor answer goes back to the edge, which has it still.
#[tokio::test]
async fn a_sidecar_that_ends_without_its_server_acknowledges_nothing_that_it_cannot_deliver() {
    let pki = Pki::new();
    let scripted = ScriptedEdge::open(at(65, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let settings = sidecar(65, &pki, &shown, &[scripted.address]);
    let engine = Engine::start(at(65, 4, 0), settings.into_inputs());
    let mut trunk = scripted.next().await;
    let pair =
        "<pair xmlns='urn:xmpp-edge:trunk:0' i='1' from='partner.example' to='org.example'/>";
    trunk
        .say(&format!("{pair}{}{}", message(1), message(2)))
        .await;
    trunk.hears("up='false'").await;
    trunk.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
    trunk.hears(" n='1'/>").await;
    engine.shut_down();
    trunk.hears("<drain ").await;
    trunk.hears(CLOSE).await;
    trunk.say(CLOSE).await;
    trunk.ends().await;
    assert!(!trunk.heard().contains("<p i='1' "), "{}", trunk.heard());
    assert!(!trunk.heard().contains("<message "), "{}", trunk.heard());
    engine.stop().await;
}

/// B-27, B-34: of two servers that are worlds of their own, one ends in order with its sidecar.
#[tokio::test]
async fn amid_stanzas_a_sidecar_that_ends_in_order_neither_loses_one_nor_takes_it_twice() {
    let number = 66;
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let _partner = server_at(at(number, 2, 5269));
    let servers = [3, 7].map(|last| server_that(at(number, last, 5269), Confirms::Acks));
    let edge = Engine::start(at(number, 1, 0), edge(number, &pki, |_| ()));
    let mut sidecars = Vec::new();
    for (instance, last, beside) in [("prosody-0", 4, 3), ("prosody-1", 8, 7)] {
        let mut settings = sidecar(number, &pki, &shown, &[edge.address]);
        settings.instance = instance.parse().expect("a name");
        let server = at(number, beside, 5269).to_string();
        settings.server.address = Some(server.try_into().expect("an address"));
        sidecars.push(Engine::start(at(number, last, 0), settings.into_inputs()));
        // The first one claims first.
        let mut outside = edge.partner_stream("partner.example", "org.example").await;
        if sidecars.len() == 1 {
            outside.say(&message(0)).await;
            servers[0].hears("id='0'").await;
        }
    }
    let mut outside = edge.partner_stream("partner.example", "org.example").await;
    outside.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    outside.hears("<enabled").await;
    let ids: Vec<String> = (0..600).map(|id| id.to_string()).collect();
    let mut stopping = None;
    for id in 1..600_u32 {
        outside.say(&message(id)).await;
        if id == 300 {
            servers[0].comes(ids[..200].iter()).await;
            stopping = Some(tokio::spawn(sidecars.remove(0).stop()));
        }
        tokio::task::yield_now().await;
    }
    outside.acknowledged(599).await;
    let came: Vec<String> = servers.iter().flat_map(|own| own.ids()).collect();
    assert_eq!(came, ids, "each once, in order");
    let stopping = stopping.expect("it was told to");
    stopping.await.expect("an orderly end");
    edge.stop().await;
}

/// B-33: of several servers that are one, another gets what the sidecar of one that is away had taken.
#[tokio::test]
async fn a_clustered_sidecar_whose_server_is_away_gives_back_what_it_took() {
    let pki = Pki::new();
    let scripted = ScriptedEdge::open(at(67, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let mut settings = sidecar(67, &pki, &shown, &[scripted.address]);
    settings.servers = SidecarServers::Clustered;
    let _engine = Engine::start(at(67, 4, 0), settings.into_inputs());
    let mut old = scripted.next().await;
    let pair =
        "<pair xmlns='urn:xmpp-edge:trunk:0' i='1' from='partner.example' to='org.example'/>";
    old.say(&format!("{pair}{}{}", message(1), message(2)))
        .await;
    old.hears("<drain ").await;
    old.hears(CLOSE).await;
    old.say(CLOSE).await;
    old.ends().await;
    assert!(!old.heard().contains("<p i='1' "), "{}", old.heard());
    let new = scripted.next().await;
    assert!(new.heard().contains("server='down'"), "{}", new.heard());
}
