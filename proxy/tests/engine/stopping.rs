//! An edge that ends takes along what it was about to hear.

use crate::peers::{Confirms, HEADER, Lab, Plan, message, outward};

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

/// Of those who are only being let in, nothing can be lost.
#[tokio::test]
async fn callers_amid_a_handshake_are_let_go_while_others_finish() {
    let plan = Plan {
        gateway_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(52, plan).await;
    let mut partner = lab.partner_stream().await;
    partner.say(&message(0)).await;
    lab.gateway.heard_stanzas(1).await;
    let mut direct = lab.connect_partner().await;
    // The first byte of a ClientHello.
    direct.say("\u{16}").await;
    let mut start_tls = lab.connect_partner().await;
    start_tls.say(&format!("{HEADER} to='org.example'>")).await;
    start_tls.hears("</stream:features>").await;
    start_tls
        .say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        .await;
    start_tls.hears("<proceed").await;
    lab.shut_down();
    direct.ended().await;
    start_tls.ended().await;
    // The stanza is not confirmed yet, and waited for.
    lab.gateway.say(1, "<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    partner.hears("</stream:stream>").await;
    assert_eq!(lab.gateway.ids(), ["0"]);
    lab.stop().await;
}

#[tokio::test]
async fn a_request_that_is_never_sent_whole_keeps_the_process_from_nothing() {
    let plan = Plan {
        admin: 9153,
        ..Plan::default()
    };
    let lab = Lab::start(53, plan).await;
    let mut half = lab.connect_admin().await;
    half.say("GET /healthz HTTP/1.1\r\n").await;
    // What comes after it on the same thread is answered: the half has been read.
    lab.get("/healthz").await;
    lab.stop().await;
}
