//! Which of several sidecars of one gateway gets what comes in.

use super::{
    engines::{Engine, at, edge, until},
    pki::Pki,
    scripted::{ENABLE, End},
};
use crate::peers::{message, server_at};

/// A sidecar of this name that claims since then.
async fn sidecar(engine: &Engine, pki: &Pki, instance: &str, since: &str) -> End {
    let shown = pki.sidecar(&["org.example"]);
    let mut end = End::sidecar(engine.address, pki, &shown, "org.example").await;
    end.say(
        &ENABLE
            .replace("prosody-0", instance)
            .replace("2026-11-28T10:00:00Z", since),
    )
    .await;
    end.hears("<enabled ").await;
    end
}

#[tokio::test]
async fn b34_of_two_single_servers_the_oldest_claim_gets_what_comes_in_and_the_next_after_a_drain()
{
    let pki = Pki::new();
    let _partner = server_at(at(41, 2, 5269));
    let engine = Engine::start(at(41, 1, 0), edge(41, &pki, |_| ()));
    let mut younger = sidecar(&engine, &pki, "b", "2026-11-28T10:00:02Z").await;
    younger.hears("active='true'").await;
    let mut older = sidecar(&engine, &pki, "a", "2026-11-28T10:00:01Z").await;
    older.hears("active='true'").await;
    younger
        .hears("<edge xmlns='urn:xmpp-edge:trunk:0' active='false' claim='2026-11-28T10:00:02Z'/>")
        .await;
    // It stands by from here on.
    younger.say("<claim xmlns='urn:xmpp-edge:trunk:0'/>").await;
    younger
        .hears("<edge xmlns='urn:xmpp-edge:trunk:0' active='false'/>")
        .await;
    let mut outside = engine
        .partner_stream("partner.example", "org.example")
        .await;
    outside.say(&message(1)).await;
    older.hears("id='1'").await;
    let number = older.number("org.example");
    older
        .say(&format!(
            "<a xmlns='urn:xmpp-edge:trunk:0'><p i='{number}' h='1'/></a>\
             <drain xmlns='urn:xmpp-edge:trunk:0'/></stream:stream>"
        ))
        .await;
    older.hears("</stream:stream>").await;
    younger
        .hears("<edge xmlns='urn:xmpp-edge:trunk:0' active='true'/>")
        .await;
    outside.say(&message(2)).await;
    younger
        .say("<claim xmlns='urn:xmpp-edge:trunk:0' since='2026-11-28T10:00:09Z'/>")
        .await;
    younger.hears("id='2'").await;
    assert_eq!(younger.ids(), ["2"]);
    assert_eq!(older.ids(), ["1"]);
}

#[tokio::test]
async fn b33_of_clustered_servers_one_takes_over_when_the_other_s_server_is_down() {
    let pki = Pki::new();
    let _partner = server_at(at(42, 2, 5269));
    let document = edge(42, &pki, |document| {
        document["gateways"][0]["sidecar"]["server"] = "Clustered".into();
    });
    let engine = Engine::start(at(42, 1, 0), document);
    let mut ends = [
        sidecar(&engine, &pki, "a", "2026-11-28T10:00:01Z").await,
        sidecar(&engine, &pki, "b", "2026-11-28T10:00:02Z").await,
    ];
    for end in &ends {
        end.hears("active='true'").await;
    }
    let mut outside = engine
        .partner_stream("partner.example", "org.example")
        .await;
    outside.say(&message(1)).await;
    until("it comes somewhere", || {
        ends.iter().any(|end| end.ids() == ["1"])
    })
    .await;
    if ends[1].ids() == ["1"] {
        ends.swap(0, 1);
    }
    let [first, other] = &mut ends;
    let number = first.number("org.example");
    first
        .say(&format!(
            "<a xmlns='urn:xmpp-edge:trunk:0'><p i='{number}' h='1'/></a>\
             <server xmlns='urn:xmpp-edge:trunk:0' up='false' text='it hangs'/>"
        ))
        .await;
    let end = format!("<end xmlns='urn:xmpp-edge:trunk:0' i='{number}'/>");
    first.hears(&end).await;
    outside.say(&message(2)).await;
    other.hears("id='2'").await;
}
