//! An edge that ends takes along what it was about to hear.

use crate::peers::{Confirms, Lab, Plan, outward};

const PING: &str = "xmpp-edge-ack-";

#[tokio::test]
async fn what_a_partner_confirms_on_a_stream_of_its_own_is_confirmed_although_the_edge_ends() {
    let plan = Plan {
        partner_confirms: Confirms::Nothing,
        ..Plan::default()
    };
    let lab = Lab::start(50, plan).await;
    let mut theirs = lab.partner_stream().await;
    let mut inside = lab.inside_stream("org.example", "partner.example").await;
    inside.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    inside.hears("<enabled").await;
    let message = outward("org.example", "partner.example", "last");
    inside.say(&message).await;
    lab.partner.hears_times(PING, 1).await;
    lab.shut_down();
    lab.refuses_connections().await;
    let id = lab.partner.newest_id(PING);
    theirs
        .say(&format!(
            "<iq from='partner.example' to='org.example' type='result' id='{id}'/>"
        ))
        .await;
    inside.hears("</stream:stream>").await;
    assert!(inside.heard().contains(" h='1'"), "{}", inside.heard());
    assert!(!inside.heard().contains("<message"), "{}", inside.heard());
    theirs.hears("</stream:stream>").await;
    assert_eq!(lab.partner.ids(), ["last"]);
    lab.stop().await;
}
