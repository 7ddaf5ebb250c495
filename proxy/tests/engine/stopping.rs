//! An edge that ends takes along what it was about to hear.

use crate::peers::{Confirms, Lab, Plan, outward};

const PING: &str = "xmpp-edge-ack-";

fn answer(id: &str) -> String {
    format!("<iq from='partner.example' to='org.example' type='result' id='{id}'/>")
}

#[tokio::test]
async fn what_a_partner_confirms_on_a_stream_of_its_own_is_confirmed_although_the_edge_ends() {
    let plan = Plan {
        partner_confirms: Confirms::Nothing,
        ..Plan::default()
    };
    let lab = Lab::start(50, plan).await;
    let mut theirs = lab.partner_stream().await;
    theirs.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    theirs.hears("<enabled").await;
    let mut inside = lab.inside_stream("org.example", "partner.example").await;
    inside.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    inside.hears("<enabled").await;
    // Who has answered once is waited for.
    inside
        .say(&outward("org.example", "partner.example", "first"))
        .await;
    lab.partner.hears_times(PING, 1).await;
    theirs.say(&answer(&lab.partner.newest_id(PING))).await;
    inside.acknowledged(1).await;
    inside
        .say(&outward("org.example", "partner.example", "last"))
        .await;
    lab.partner.hears_times(PING, 2).await;
    lab.shut_down();
    lab.refuses_connections().await;
    // A server that is told of the end of its stream says nothing more there.
    theirs.say("<r xmlns='urn:xmpp:sm:3'/>").await;
    theirs.hears(" h='1'/>").await;
    assert!(
        !theirs.heard().contains("</stream:stream>"),
        "{}",
        theirs.heard()
    );
    theirs.say(&answer(&lab.partner.newest_id(PING))).await;
    inside.hears("</stream:stream>").await;
    assert!(inside.heard().contains(" h='2'"), "{}", inside.heard());
    assert!(!inside.heard().contains("<message"), "{}", inside.heard());
    theirs.hears("</stream:stream>").await;
    assert_eq!(lab.partner.ids(), ["first", "last"]);
    lab.stop().await;
}
