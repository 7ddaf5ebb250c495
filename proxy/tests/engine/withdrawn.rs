//! What is withdrawn: a pool's records (`drainAfterSeconds`), a partner's right to be here.

use crate::peers::{Lab, Plan, message, outward, within};

#[tokio::test]
async fn a_withdrawn_pool_gives_up_its_streams_in_order_and_serves_who_comes_all_the_same() {
    let lab = Lab::start(15, Plan::default()).await;
    let mut partner = lab.partner_stream().await;
    let mut inside = lab.inside_stream("org.example", "partner.example").await;
    partner.say(&message(0)).await;
    let out = outward("org.example", "partner.example", "out");
    inside.say(&out).await;
    lab.gateway.heard_stanzas(1).await;
    lab.partner.heard_stanzas(1).await;

    lab.change(|config| config.drain_after_seconds = Some(1));
    partner.hears("</stream:stream>").await;
    inside.hears("</stream:stream>").await;
    lab.partner.hears("</stream:stream>").await;
    lab.gateway.hears("</stream:stream>").await;

    // Who was told of the pool before it was withdrawn.
    let mut late = lab.partner_stream().await;
    late.say(&message(1)).await;
    lab.gateway.heard_stanzas(2).await;
    late.hears("</stream:stream>").await;
    assert_eq!(lab.gateway.ids(), ["0", "1"]);
    assert!(!late.heard().contains("stream:error"), "{}", late.heard());
    lab.stop().await;
}

#[tokio::test]
async fn what_waits_for_the_inside_from_a_partner_that_is_suspended_is_not_delivered() {
    let plan = Plan {
        admin: 9090,
        ..Plan::default()
    };
    let lab = Lab::start(56, plan).await;
    lab.gateway.turn_away(1_000);
    let mut partner = lab.partner_stream().await;
    partner.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    partner.hears("<enabled").await;
    partner
        .say(&format!("{}<r xmlns='urn:xmpp:sm:3'/>", message(0)))
        .await;
    partner.hears("<a ").await;
    lab.change(|config| config.partners[0].suspended = true);
    partner.hears("</stream:stream>").await;
    lab.change(|config| config.partners[0].suspended = false);
    within("it is in force", async {
        while !lab.get("/metrics").await.contains("config_generation 3") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    lab.gateway.turn_away(0);
    let mut again = lab.partner_stream().await;
    again.say(&message(1)).await;
    lab.gateway.heard_stanzas(1).await;
    assert_eq!(lab.gateway.ids(), ["1"]);
    lab.stop().await;
}
