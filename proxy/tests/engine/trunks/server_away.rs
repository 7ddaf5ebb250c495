//! What an edge makes of a sidecar that does not reach its server, and when a sidecar says so.

use super::{
    engines::{Engine, at, edge, sidecar},
    pki::Pki,
    scripted::{End, ScriptedEdge},
};
use crate::peers::{Unproved, message, server_at, server_without};

const AWAY: &str = "<server xmlns='urn:xmpp-edge:trunk:0' up='false' text='it hangs'/>";

#[tokio::test]
async fn b25_what_comes_for_a_server_that_is_away_stays_at_the_edge_and_has_its_time_there() {
    let pki = Pki::new();
    let partner = server_at(at(43, 2, 5269));
    let document = edge(43, &pki, |document| {
        document["settings"]["queueTimeoutSeconds"] = 2.into();
    });
    let engine = Engine::start(at(43, 1, 0), document);
    let shown = pki.sidecar(&["org.example"]);
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    let mut outside = engine
        .partner_stream("partner.example", "org.example")
        .await;
    outside.say(&message(1)).await;
    trunk.hears("id='1'").await;
    let number = trunk.number("org.example");
    trunk
        .say(&format!(
            "<a xmlns='urn:xmpp-edge:trunk:0'><p i='{number}' h='1'/></a>{AWAY}\
             <r xmlns='urn:xmpp-edge:trunk:0' n='7'/>"
        ))
        .await;
    trunk.hears(" n='7'").await;
    outside.say(&message(2)).await;
    partner.hears("<remote-server-timeout").await;
    partner
        .hears("the server beside prosody-0, sidecar of org.example, is away since")
        .await;
    partner.hears("it hangs").await;
    trunk
        .say("<server xmlns='urn:xmpp-edge:trunk:0' up='true'/>")
        .await;
    outside.say(&message(3)).await;
    trunk.hears("id='3'").await;
    assert_eq!(trunk.ids(), ["1", "3"]);
}

#[tokio::test]
async fn b25_a_sidecar_that_comes_without_its_server_gets_what_waits_once_it_is_there() {
    let pki = Pki::new();
    let _partner = server_at(at(44, 2, 5269));
    let engine = Engine::start(at(44, 1, 0), edge(44, &pki, |_| ()));
    let shown = pki.sidecar(&["org.example"]);
    let mut trunk = End::sidecar(engine.address, &pki, &shown, "org.example").await;
    trunk
        .say(&super::scripted::ENABLE.replace("server='up'", "server='down'"))
        .await;
    trunk.hears("<enabled ").await;
    trunk.say(AWAY).await;
    let mut outside = engine
        .partner_stream("partner.example", "org.example")
        .await;
    for id in 1..=3 {
        outside.say(&message(id)).await;
    }
    trunk.say("<r xmlns='urn:xmpp-edge:trunk:0' n='7'/>").await;
    trunk.hears(" n='7'").await;
    trunk
        .say("<server xmlns='urn:xmpp-edge:trunk:0' up='true'/>")
        .await;
    trunk.hears("id='3'").await;
    assert_eq!(trunk.ids(), ["1", "2", "3"]);
}

/// The edge has it from the greeting that the server is away, and would wait for ever.
#[tokio::test]
async fn b25_a_server_that_comes_up_amid_the_greeting_is_told_of() {
    let pki = Pki::new();
    let scripted = ScriptedEdge::open(at(85, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let settings = sidecar(85, &pki, &shown, &[scripted.address]);
    let _engine = Engine::start(at(85, 4, 0), settings.into_inputs());
    let mut trunk = loop {
        let trunk = scripted
            .next_with("<trunk xmlns='urn:xmpp-edge:trunk:0'/>")
            .await;
        trunk.hears("<enable ").await;
        if trunk.heard().contains("server='down'") {
            break trunk;
        }
        // It was dialled before the server was tried.
        trunk.cut();
    };
    let server = server_at(at(85, 3, 5269));
    server
        .hears("<db:result from='probe.xmpp-edge.internal'")
        .await;
    trunk.say(super::scripted::ENABLED).await;
    trunk.hears("up='true'").await;
}

/// What the server says of one pair is no word on the others; nor on those of the probe by which it is tried: with
/// routes of its own it may have none to a name that is nobody's.
#[tokio::test]
async fn b25_a_server_that_cannot_have_one_pair_proved_is_not_away() {
    const PROBE: &str = "probe.xmpp-edge.internal";
    let table = [
        (73, Unproved::Error("remote-server-not-found")),
        (74, Unproved::Error("remote-connection-failed")),
        (75, Unproved::Error("resource-constraint")),
        (76, Unproved::Silence),
    ];
    for (number, unproved) in table {
        let pki = Pki::new();
        let scripted = ScriptedEdge::open(at(number, 1, 23456), &pki).await;
        let server = server_without(
            at(number, 3, 5269),
            [(PROBE, unproved), ("bad.example", unproved)],
        );
        let shown = pki.sidecar(&["org.example"]);
        let settings = sidecar(number, &pki, &shown, &[scripted.address]);
        let _engine = Engine::start(at(number, 4, 0), settings.into_inputs());
        let mut trunk = scripted.next().await;
        // How the probe went.
        trunk
            .hears("<server xmlns='urn:xmpp-edge:trunk:0' up='true' text='")
            .await;
        let pair = |number, from: &str| {
            format!(
                "<pair xmlns='urn:xmpp-edge:trunk:0' i='{number}' from='{from}' to='org.example'/>{}",
                message(number).replace("partner.example", from)
            )
        };
        trunk.say(&pair(1, "partner.example")).await;
        server.hears("id='1'").await;
        trunk.say(&pair(2, "bad.example")).await;
        // Header and key, each time that it is tried.
        let tries = if matches!(unproved, Unproved::Silence) {
            1
        } else {
            2
        };
        server.hears_times("from='bad.example'", 2 * tries).await;
        trunk.say(&pair(3, "partner2.example")).await;
        server.hears("id='3'").await;
        trunk.say("<r xmlns='urn:xmpp-edge:trunk:0' n='7'/>").await;
        trunk.hears(" n='7'").await;
        assert_eq!(trunk.heard_times("up='false'"), 0, "{}", trunk.heard());
    }
}
