//! A pool whose records are withdrawn: `drainAfterSeconds`.

use crate::peers::{Lab, Plan, message, outward};

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
