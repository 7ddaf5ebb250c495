//! Servers inside that could not be reached, and what is told of them while nothing is on its way.

use std::net::SocketAddr;

use xmpp_edge_crds::domain::DomainName;
use xmpp_edge_proxy::{stream::gateway_watch, telemetry::attempts::AttemptPeer};

use crate::{
    context,
    peers::{Lab, Plan, server_at, within},
};

fn own() -> DomainName {
    DomainName::parse("org.example").expect("valid")
}

#[tokio::test]
async fn a_server_that_is_back_is_found_although_nothing_is_to_be_carried() {
    const NUMBER: u8 = 54;
    let context = context(NUMBER);
    context.attempts.failed(AttemptPeer::Gateway, &own());
    gateway_watch::try_unreachable(&context).await;
    assert_eq!(context.attempts.gateway_reachable(&own()), Some(false));
    let gateway = server_at(SocketAddr::from(([127, 90, NUMBER, 3], 5269)));
    within("it is tried", gateway_watch::try_unreachable(&context)).await;
    assert_eq!(context.attempts.gateway_reachable(&own()), Some(true));
    assert_eq!(gateway.streams(), 1);
    // What can be reached is left alone.
    gateway_watch::try_unreachable(&context).await;
    assert_eq!(gateway.streams(), 1);
}

#[tokio::test]
async fn a_server_that_comes_by_itself_is_not_reachable_for_that() {
    let plan = Plan {
        admin: 9090,
        ..Plan::default()
    };
    let lab = Lab::start(55, plan).await;
    let _inside = lab.inside_stream("org.example", "partner.example").await;
    let shown = lab.get("/metrics").await;
    assert!(
        shown.contains("xmpp_edge_streams{side=\"gateway\""),
        "{shown}"
    );
    assert!(!shown.contains("xmpp_edge_gateway_reachable{"), "{shown}");
    lab.stop().await;
}
