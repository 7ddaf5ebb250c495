//! What an edge makes of a sidecar that does not reach its server.

use super::{
    engines::{Engine, at, edge},
    pki::Pki,
    scripted::End,
};
use crate::peers::{message, server_at};

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
