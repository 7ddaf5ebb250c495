//! Peers that do things in ways of their own: answers on the wrong stream, limits that they do not announce,
//! more streams than they may have.

use crate::peers::{Confirms, Lab, Plan, Stream, outward, within};

/// A partner that can neither acknowledge nor verify.
fn plain() -> Plan {
    Plan {
        partner_confirms: Confirms::Nothing,
        ..Plan::default()
    }
}

async fn inside(lab: &Lab) -> Stream {
    lab.inside_stream("org.example", "partner.example").await
}

#[tokio::test]
async fn an_answer_to_a_ping_on_the_stream_that_asked_confirms_and_ends_nothing() {
    let lab = Lab::start(60, plain()).await;
    let mut inside = inside(&lab).await;
    let mut say = async |id: &str| {
        let message = outward("org.example", "partner.example", id);
        inside.say(&message).await;
    };
    say("0").await;
    lab.partner.hears("xmpp-edge-ack-").await;
    let id = lab.partner.newest_id("xmpp-edge-ack-");
    let answer = format!("<iq from='partner.example' to='org.example' type='result' id='{id}'/>");
    lab.partner.say(1, &answer).await;
    say("1").await;
    // The next question shows that the answer was read.
    lab.partner.hears_times("xmpp-edge-ack-", 2).await;
    lab.partner.hang_up(1).await;
    lab.partner.heard_stanzas(3).await;
    assert_eq!(lab.partner.ids(), ["0", "1", "1"]);
    assert_eq!(lab.gateway.heard_times("type='error'"), 0);
    lab.stop().await;
}

/// It counts something twice (XEP-0198 section 4): what it was sent has arrived.
#[tokio::test]
async fn s31_who_acknowledges_one_too_many_gets_each_stanza_once_and_acks_are_asked_for_no_more() {
    let plan = Plan {
        partner_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(58, plan).await;
    let mut inside = inside(&lab).await;
    let message = |id: &str| outward("org.example", "partner.example", id);
    inside.say(&(message("0") + &message("1"))).await;
    lab.partner.heard_stanzas(2).await;
    lab.partner.say(1, "<a xmlns='urn:xmpp:sm:3' h='3'/>").await;
    lab.partner.hears("handled-count-too-high").await;
    inside.say(&message("2")).await;
    lab.partner.heard_stanzas(3).await;
    assert_eq!(lab.partner.ids(), ["0", "1", "2"]);
    assert_eq!(lab.partner.streams(), 2);
    assert_eq!(lab.partner.heard_times("<enable"), 1);
    assert_eq!(lab.gateway.heard_times("type='error'"), 0);
    lab.stop().await;
}

#[tokio::test]
async fn s9_a_limit_of_a_partner_that_confirms_nothing_is_known_after_one_stanza() {
    for (number, bytes, condition) in [
        (61, 16_000, "policy-violation"),
        (62, 100_000, "not-well-formed"),
    ] {
        let plan = Plan {
            never_by_ping: true,
            ..plain()
        };
        let lab = Lab::start(number, plan).await;
        let mut inside = inside(&lab).await;
        let large = |id: &str| {
            let message = outward("org.example", "partner.example", id);
            message.replace("hello", &"x".repeat(bytes))
        };
        let small = |id: &str| outward("org.example", "partner.example", id);
        inside.say(&(small("0") + &large("1"))).await;
        lab.partner.heard_stanzas(2).await;
        let end = format!(
            "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             </stream:error></stream:stream>"
        );
        lab.partner.say(1, &end).await;
        // The next one is sure to find the stream gone.
        lab.partner.hears("</stream:stream>").await;
        inside.say(&(small("2") + &large("3") + &small("4"))).await;
        lab.gateway.hears("policy-violation").await;
        lab.partner.heard_stanzas(4).await;
        assert_eq!(lab.partner.ids(), ["0", "1", "2", "4"], "{condition}");
        assert_eq!(lab.gateway.came("3"), (0, 1), "{condition}");
        assert_eq!(lab.partner.streams(), 2, "{condition}");
        lab.stop().await;
    }
}

#[tokio::test]
async fn a_key_beyond_the_limit_is_never_called_valid_and_may_be_asked_for_again() {
    let plan = Plan {
        partner_connection_limit: 1,
        ..Plan::default()
    };
    let lab = Lab::start(63, plan).await;
    let first = lab.partner_stream().await;
    let mut second = lab.connect_partner().await;
    second.open("partner.example", "org.example").await;
    second.ask("partner.example", "org.example").await;
    second.hears("resource-constraint").await;
    let heard = second.heard().to_owned();
    assert!(
        !heard.contains("'valid'") && !heard.contains("stream:error"),
        "{heard}"
    );
    first.close().await;
    // With the first stream its place is free again.
    while !second.heard().contains("type='valid'") {
        second.ask("partner.example", "org.example").await;
        second.hears_another("<db:result").await;
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_partner_s_stream_says_nothing_proven_of_another_partner() {
    let plan = Plan {
        admin: 9090,
        ..Plan::default()
    };
    let lab = Lab::start(64, plan).await;
    lab.change(|config| {
        let mut other = config.partners[0].clone();
        other.name = "other".to_owned();
        other.domains.remove(0);
        other.suspended = true;
        config.partners[0].domains.truncate(1);
        config.partners.push(other);
    });
    // It is answered once it listens.
    drop(lab.connect_admin().await);
    within("it is in force", async {
        while !lab.get("/metrics").await.contains("config_generation 2") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut partner = lab.partner_stream().await;
    for _ in 0..3 {
        partner.ask("partner2.example", "org.example").await;
        partner.hears_another("type='error'").await;
    }
    let answer = lab.get("/status").await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let shown = status["partners"].as_array().expect("a list");
    let other = shown.iter().find(|own| own["name"] == "other");
    let other = other.expect("it is a partner");
    assert_eq!(other["lastAttempt"], serde_json::json!([]), "{other}");

    // Nor can it go on for ever.
    let key = "<db:result from='partner2.example' to='org.example'>k</db:result>";
    partner.say(&key.repeat(2_100)).await;
    partner.hears("too many dialback requests").await;
    lab.stop().await;
}
