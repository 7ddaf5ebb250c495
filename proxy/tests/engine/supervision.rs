//! A task that the proxy cannot do without ends: so does the process, with its reason.

use crate::peers::{Lab, Plan, message};

#[tokio::test]
async fn a_proxy_that_nobody_tells_of_configurations_any_more_says_so_drains_and_ends_with_that_reason()
 {
    const REASON: &str = "the source of the configuration ended before its time";
    let plan = Plan {
        gateway_acks: true,
        admin: 9090,
        ..Plan::default()
    };
    let mut lab = Lab::start(51, plan).await;
    let mut partner = lab.partner_stream().await;
    partner.say(&message(0)).await;
    lab.gateway.heard_stanzas(1).await;
    let before = lab.get("/readyz").await;
    assert!(!before.contains(REASON), "{before}");
    lab.lose_the_configuration();
    lab.refuses_connections().await;
    // It drains still: the gateway has not confirmed what it was sent.
    let readiness = lab.get("/readyz").await;
    assert!(readiness.starts_with("HTTP/1.1 503"), "{readiness}");
    assert!(readiness.contains(REASON), "{readiness}");
    assert!(lab.get("/healthz").await.starts_with("HTTP/1.1 200"));
    lab.gateway.say(1, "<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    partner.hears("</stream:stream>").await;
    // What the program's exit code is made of.
    assert_eq!(lab.failure().await.to_string(), REASON);
}
