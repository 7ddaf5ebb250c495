//! A next hop that is away for less than a stanza may wait, or slow, costs nobody an error.

use std::time::Duration;

use crate::peers::{Lab, Plan, message, outward};

/// So many tries in vain are about three seconds.
const TRIES: usize = 5;

#[tokio::test]
async fn a_partner_that_is_away_for_seconds_costs_nobody_an_error_and_order_is_kept() {
    let plan = Plan {
        partner_turns_away: TRIES,
        ..Plan::default()
    };
    let lab = Lab::start(20, plan).await;
    let mut inside = lab.inside_stream("org.example", "partner.example").await;
    for id in 0..10 {
        let message = outward("org.example", "partner.example", &id.to_string());
        inside.say(&message).await;
    }
    lab.partner.heard_stanzas(10).await;
    let numbers: Vec<_> = (0..10).map(|id| id.to_string()).collect();
    assert_eq!(lab.partner.ids(), numbers);
    assert!(lab.gateway.ids().is_empty(), "no error came back");
    lab.stop().await;
}

#[tokio::test]
async fn a_gateway_that_is_away_for_seconds_costs_nobody_an_error_and_order_is_kept() {
    let lab = Lab::start(21, Plan::default()).await;
    let mut partner = lab.partner_stream().await;
    lab.gateway.turn_away(TRIES);
    for id in 0..10 {
        partner.say(&message(id)).await;
    }
    lab.gateway.heard_stanzas(10).await;
    let numbers: Vec<_> = (0..10).map(|id| id.to_string()).collect();
    assert_eq!(lab.gateway.ids(), numbers);
    assert!(lab.partner.ids().is_empty(), "no error came back");
    lab.stop().await;
}

#[tokio::test]
async fn a_partner_that_negotiates_longer_than_a_stanza_may_wait_costs_nobody_an_error() {
    let plan = Plan {
        queue_timeout_seconds: 2,
        partner_is_slow: Duration::from_millis(2_600),
        ..Plan::default()
    };
    let lab = Lab::start(22, plan).await;
    let mut inside = lab.inside_stream("org.example", "partner.example").await;
    inside
        .say(&outward("org.example", "partner.example", "0"))
        .await;
    lab.partner.heard_stanzas(1).await;
    assert!(lab.gateway.ids().is_empty(), "no error came back");
    lab.stop().await;
}

#[tokio::test]
async fn a_partner_that_stays_away_is_answered_for_and_is_used_at_once_when_it_shows_itself() {
    let plan = Plan {
        queue_timeout_seconds: 2,
        partner_turns_away: usize::MAX,
        ..Plan::default()
    };
    let lab = Lab::start(23, plan).await;
    let mut inside = lab.inside_stream("org.example", "partner.example").await;
    let mut say = async |id: &str| {
        let message = outward("org.example", "partner.example", id);
        inside.say(&message).await;
    };
    say("0").await;
    lab.gateway.hears("remote-server-timeout").await;
    // Until one is answered at once: every try has failed for longer than a stanza waits.
    let mut asked = 0;
    while lab.gateway.heard_times("next try in") == 0 {
        asked += 1;
        say(&asked.to_string()).await;
        lab.gateway
            .hears_times("remote-server-timeout", asked + 1)
            .await;
    }
    lab.partner.turn_away(0);
    // The partner's own stream is the sign: its server is asked about the key, and is there.
    let _sign = lab.partner_stream().await;
    say("back").await;
    lab.partner.hears("id='back'").await;
    lab.stop().await;
}

#[tokio::test]
async fn what_a_partner_without_acks_had_on_its_way_at_shutdown_is_delivered() {
    let lab = Lab::start(24, Plan::default()).await;
    let mut partner = lab.partner_stream().await;
    partner.say(&message(0)).await;
    lab.gateway.heard_stanzas(1).await;
    lab.shut_down();
    partner.hears("</stream:stream>").await;
    // It had not heard of the end when it sent these.
    for id in 1..4 {
        partner.say(&message(id)).await;
    }
    partner.say("</stream:stream>").await;
    lab.gateway.heard_stanzas(4).await;
    assert_eq!(lab.gateway.ids(), ["0", "1", "2", "3"]);
    lab.stop().await;
}

#[tokio::test]
async fn a_partner_that_goes_on_sending_reads_the_error_that_ended_its_stream() {
    let lab = Lab::start(25, Plan::default()).await;
    let mut partner = lab.partner_stream().await;
    let rest = "x".repeat(2_000_000);
    let (mut reader, mut writer) = partner.split();
    let say = tokio::spawn(async move {
        writer.say("<message></iq>").await;
        writer.say(&rest).await;
        writer
    });
    reader.hears("not-well-formed").await;
    reader.hears("</stream:stream>").await;
    let _writer = say.await.expect("no panic");
    lab.stop().await;
}

#[tokio::test]
async fn a_partner_without_acks_that_answers_pings_loses_nothing_when_it_dies() {
    let plan = Plan {
        queue_timeout_seconds: 4,
        ..Plan::default()
    };
    let lab = Lab::start(26, plan).await;
    let mut partner = lab.partner_stream().await;
    let mut inside = lab.inside_stream("org.example", "partner.example").await;
    let mut say = async |id: &str| {
        let message = outward("org.example", "partner.example", id);
        inside.say(&message).await;
    };
    say("0").await;
    lab.partner.hears("xmpp-edge-ack-").await;
    let id = lab.partner.newest_id("xmpp-edge-ack-");
    // The answer comes on the partner's own stream.
    partner
        .say(&format!(
            "<iq from='partner.example' to='org.example' type='result' id='{id}'/>"
        ))
        .await;
    say("1").await;
    // The next question shows that the answer was read.
    lab.partner.hears_times("xmpp-edge-ack-", 2).await;
    lab.partner.hang_up(1).await;
    lab.partner.heard_stanzas(3).await;
    assert_eq!(lab.partner.ids(), ["0", "1", "1"]);
    assert_eq!(
        lab.gateway.heard_times("xmpp-edge-ack-"),
        0,
        "the answer is the edge's"
    );
    lab.stop().await;
}

#[tokio::test]
async fn what_ends_the_partners_stream_is_answered_and_its_neighbours_are_delivered() {
    let plan = Plan {
        partner_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(27, plan).await;
    let mut inside = lab.inside_stream("org.example", "partner.example").await;
    let stanzas: String = ["good0", "bad", "good1"]
        .into_iter()
        .map(|id| outward("org.example", "partner.example", id))
        .collect();
    inside.say(&stanzas).await;
    lab.partner.heard_stanzas(3).await;
    let end = "<stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
        </stream:error></stream:stream>";
    let ack = "<a xmlns='urn:xmpp:sm:3' h='1'/>";
    // It has handled the first, and ends over the second.
    lab.partner.say(1, &format!("{ack}{end}")).await;
    // That comes alone, and ends a stream again.
    lab.partner.connected(2).await;
    lab.partner.heard_stanzas(4).await;
    lab.partner.say(2, end).await;
    lab.gateway.hears("policy-violation").await;
    lab.partner.heard_stanzas(5).await;
    assert_eq!(lab.partner.ids(), ["good0", "bad", "good1", "bad", "good1"]);
    assert_eq!(lab.gateway.heard_times("type='error'"), 1);
    lab.partner.say(3, ack).await;
    lab.stop().await;
}
