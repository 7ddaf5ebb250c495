//! The whole engine in process, between scripted servers over plain TCP with dialback: what only
//! shows where sessions, queues and sockets meet. Each test has loopback addresses of its own.

mod faults;
mod gateway_watch;
mod outage;
mod peculiar;
mod peers;
mod sharing;
mod stopping;
mod supervision;
mod trunks;
mod turns;
mod unread;
mod withdrawn;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use peers::{Lab, Plan, inputs, message};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use xmpp_edge_proxy::{
    config::ActiveConfig,
    contacts::ContactStore,
    dns::{Dialer, Resolver},
    negotiation::{Inbound, Link, PeerRole, Side},
    stream::{Machine, Stream, StreamStart, context::StreamContext, proofs::Proofs},
    telemetry::config_status::Telemetry,
    tls::Transport,
};

#[tokio::test]
async fn what_came_before_acks_were_agreed_on_is_not_acknowledged_by_them() {
    let lab = Lab::start(1, Plan::default()).await;
    let mut partner = lab.partner_stream().await;
    let before: String = (0..3).map(message).collect();
    let after = message(3);
    partner
        .say(&format!(
            "{before}<enable xmlns='urn:xmpp:sm:3'/>{after}<r xmlns='urn:xmpp:sm:3'/>"
        ))
        .await;
    lab.gateway.heard_stanzas(4).await;
    partner.hears("h='1'").await;
    assert!(!partner.heard().contains("h='2'"), "{}", partner.heard());
    assert!(!partner.heard().contains("h='3'"), "{}", partner.heard());
    assert_eq!(lab.gateway.ids(), ["0", "1", "2", "3"]);
    lab.stop().await;
}

// Two threads: a session that spins must not keep the test from noticing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_takes_nothing_is_given_up_and_what_it_held_goes_to_the_next_in_order() {
    let plan = Plan {
        queue_timeout_seconds: 2,
        deaf_connections: 1,
        ..Plan::default()
    };
    let lab = Lab::start(2, plan).await;
    let mut partner = lab.partner_stream().await;
    // More than a socket's buffers take.
    let body = "x".repeat(200_000);
    let stanzas: String = (0..200)
        .map(|id| message(id).replace("hello", &body))
        .collect();
    let (mut reader, mut writer) = partner.split();
    let say = tokio::spawn(async move { writer.say(&stanzas).await });
    // The first connection never reads; that it is ended shows in the second.
    lab.gateway.connected(2).await;
    lab.gateway.heard_stanzas(1).await;
    let ids = lab.gateway.ids();
    let numbers: Vec<u32> = ids.iter().map(|id| id.parse().expect("ours")).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    say.abort();
    reader.close().await;
    lab.stop().await;
}

#[tokio::test]
async fn a_stanza_that_three_streams_lost_is_answered_and_not_sent_again() {
    let plan = Plan {
        gateway_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(3, plan).await;
    let mut partner = lab.partner_stream().await;
    partner.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    partner.hears("<enabled").await;
    partner
        .say(&format!(
            "{}{}<r xmlns='urn:xmpp:sm:3'/>",
            message(0),
            message(1)
        ))
        .await;
    partner.hears("h='0'").await;
    lab.gateway.heard_stanzas(2).await;
    // It has handled the first only.
    lab.gateway.say(1, "<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    partner.hears("h='1'").await;
    lab.gateway.hang_up(1).await;
    lab.gateway.heard_stanzas(3).await;
    assert_eq!(lab.gateway.ids(), ["0", "1", "1"]);
    lab.gateway.hang_up(2).await;
    // It may be what both ended over: once more, by itself.
    lab.gateway.heard_stanzas(4).await;
    lab.gateway.hang_up(3).await;
    lab.partner.hears("remote-server-timeout").await;
    partner.hears("h='2'").await;
    partner.say(&message(2)).await;
    lab.gateway.heard_stanzas(5).await;
    assert_eq!(lab.gateway.ids(), ["0", "1", "1", "1", "2"]);
    lab.stop().await;
}

#[tokio::test]
async fn an_ack_of_more_than_was_sent_ends_the_stream_and_sends_nothing_twice() {
    let plan = Plan {
        gateway_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(4, plan).await;
    let mut partner = lab.partner_stream().await;
    partner.say(&message(0)).await;
    lab.gateway.heard_stanzas(1).await;
    lab.gateway.say(1, "<a xmlns='urn:xmpp:sm:3' h='7'/>").await;
    lab.gateway.hears("undefined-condition").await;
    partner.say(&message(1)).await;
    lab.gateway.heard_stanzas(2).await;
    assert_eq!(lab.gateway.ids(), ["0", "1"]);
    lab.stop().await;
}

#[tokio::test]
async fn at_shutdown_what_is_confirmed_is_acknowledged_unasked_and_no_more_is_taken_in() {
    let plan = Plan {
        gateway_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(5, plan).await;
    let mut partner = lab.partner_stream().await;
    partner.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    partner.hears("<enabled").await;
    partner.say(&format!("{}{}", message(0), message(1))).await;
    lab.gateway.heard_stanzas(2).await;
    lab.shut_down();
    lab.refuses_connections().await;
    partner.say(&message(2)).await;
    lab.gateway.say(1, "<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    partner.hears("system-shutdown").await;
    assert!(partner.heard().contains("h='2'"), "{}", partner.heard());
    assert_eq!(lab.gateway.ids(), ["0", "1"]);
    lab.stop().await;
}

#[tokio::test]
async fn at_shutdown_a_caller_who_never_spoke_delays_nothing() {
    let lab = Lab::start(6, Plan::default()).await;
    let mut silent = lab.connect_partner().await;
    silent.say("<?xml version='1.0'?>").await;
    lab.partner_stream().await.close().await;
    let began = Instant::now();
    lab.stop().await;
    // The bound is the drain's own: queueTimeoutSeconds (20) and five more.
    assert!(began.elapsed() < Duration::from_secs(15));
}

/// What streams share, of an edge that sets none up itself: those of the test are the only ones.
fn context(number: u8) -> Arc<StreamContext> {
    let config = ActiveConfig::build(&inputs(number, &Plan::default())).expect("a configuration");
    let resolver = Resolver::at(([127, 90, number, 1], 53).into()).expect("an address");
    let dialer = Dialer::new(resolver.clone(), Arc::new(|_, _| false));
    let state = tempfile::tempdir().expect("a directory");
    let contacts = ContactStore::embedded(state.path());
    let (context, _dials) = StreamContext::new(
        config,
        resolver,
        dialer,
        Arc::clone(contacts.contacts()),
        None,
        CancellationToken::new(),
        &Telemetry::default(),
    );
    context
}

#[tokio::test]
async fn a_session_that_is_dropped_on_its_way_leaves_no_stream_behind() {
    let context = context(7);
    let listener = TcpListener::bind("127.90.7.1:0").await.expect("an address");
    let address = listener.local_addr().expect("it has one");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let start = StreamStart {
        side: Side::Partner,
        peer: PeerRole::Client,
        transport: Transport::Plain(stream),
        address: Some(address),
        machine: Machine::Inbound(Box::new(Inbound::new(Side::Partner, Link::Plain))),
        outputs: Vec::new(),
        place: None,
        already: Vec::new(),
        tlsa: Vec::new(),
        proofs: Proofs::default(),
        local: None,
        deadline: None,
    };
    let mut stream = Stream::new(&context, start);
    assert!(!context.streams.is_empty());
    // As a question to an authoritative server ends that takes too long.
    let cut = tokio::time::timeout(Duration::from_millis(1), stream.establish()).await;
    assert!(cut.is_err(), "nobody speaks to it");
    drop(stream);
    assert!(context.streams.is_empty());
}
