//! s1, s8, s23: a stanza that is at fault costs itself alone, in both directions.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::{Peer, PeerServer, ns},
    rig::{ALICE, Moved, Plan, Scene, Shared},
    wait,
};

/// The default of `maxStanzaBytes`.
const LIMIT: usize = 262_144;

static RIG: Shared = Shared::new(Plan::standard("fs", 4));
static CALLS: Shared = Shared::new(Plan {
    pool: || json!({ "content": { "iqNamespaces": ["urn:xmpp:jingle:1"] } }),
    ..Plan::standard("fc", 1)
});

/// The offer of a browser: each feedback line has a namespace of its own.
fn offer(from: &str, to: &str, id: &str, feedback: usize) -> String {
    let lines =
        "<rtcp-fb xmlns='urn:xmpp:jingle:apps:rtp:rtcp-fb:0' type='nack'/>".repeat(feedback);
    format!(
        "<iq type='set' id='{id}' from='{from}' to='{to}'>\
         <jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'>\
         <content creator='initiator' name='v'>\
         <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='video'>\
         <payload-type id='96' name='VP8'>{lines}</payload-type></description></content></jingle></iq>"
    )
}

#[test]
fn s1_a_video_call_s_offer_is_answered_and_the_next_message_arrives() {
    RIG.test(1, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        for feedback in [63, 200] {
            let id = s.fresh();
            let to = format!("{ALICE}/d");
            peer.send(offer(&format!("{}/p", s.user("rob")), &to, &id, feedback))
                .await?;
            let error = outside.stanza_id(&id).await?;
            ensure!(
                error.error_condition() == Some("service-unavailable"),
                "{error:?}"
            );
            s.delivers_inwards(&mut peer).await?;
        }
        s.unharmed(Moved::Refused("Content")).await
    });
}

#[test]
fn s1_where_calls_are_open_the_offer_arrives_both_ways() {
    CALLS.test(1, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        let (rob, alice) = (format!("{}/p", s.user("rob")), format!("{ALICE}/d"));
        let id = s.fresh();
        peer.send(offer(&rob, &alice, &id, 200)).await?;
        let got = s.inside_gets(&id).await?;
        ensure!(got.child("jingle").is_some(), "{got:?}");
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.send(offer(&alice, &rob, &id, 200)).await?;
        outside.stanza_id(&id).await?;
        s.delivers_inwards(&mut peer).await?;
        s.delivers_outwards(&mut inside, &outside).await
    });
}

/// A message of exactly so many bytes.
fn sized(from: &str, to: &str, id: &str, bytes: usize) -> String {
    let head = format!("<message from='{from}' to='{to}' type='chat' id='{id}'><body>");
    let tail = "</body></message>";
    let body = "x".repeat(bytes - head.len() - tail.len());
    head + &body + tail
}

#[test]
fn s8_from_inside_one_stanza_over_the_limit_comes_back_and_its_neighbours_arrive() {
    RIG.test(2, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        inside.enable_acks().await?;
        let large = s.fresh();
        let rob = s.user("rob");
        inside.send(sized(ALICE, &rob, &large, LIMIT + 1)).await?;
        ten_arrive(s, &mut inside, &outside).await?;
        let error = s.inside_gets(&large).await?;
        ensure!(
            error.error_condition() == Some("policy-violation"),
            "{error:?}"
        );
        // Acknowledged like the others, so that no sender gives it again.
        let deadline = Instant::now() + wait::GENEROUS;
        loop {
            inside.send(format!("<r xmlns='{}'/>", ns::ACKS)).await?;
            let ack = inside.expect("<a/>", |e| e.is("a", ns::ACKS)).await?;
            if ack.attribute("h") == Some("11") {
                break;
            }
            ensure!(Instant::now() < deadline, "not acknowledged: {ack:?}");
        }
        ensure!(outside.connections() == 1, "one stream");
        s.unharmed(Moved::Refused("TooLarge")).await
    });
}

async fn ten_arrive(s: &Scene, inside: &mut Peer, outside: &PeerServer) -> Result<()> {
    let mut ids = Vec::new();
    for _ in 0..10 {
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "small").await?;
        ids.push(id);
    }
    for id in ids {
        let got = outside.stanza_id(&id).await?;
        ensure!(got.attribute("type") != Some("error"), "{got:?}");
    }
    Ok(())
}

#[test]
fn s23_a_resource_of_any_script_passes_and_one_that_is_no_text_costs_itself() {
    RIG.test(3, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        for resource in ["🐎", "ა", "\u{1c90}", "Büro 2", "\u{1fae0}"] {
            let id = s.fresh();
            let from = format!("{}/{resource}", s.user("rob"));
            peer.message(&from, ALICE, &id, "x").await?;
            let got = s.inside_gets(&id).await?;
            ensure!(got.attribute("from") == Some(&from), "{got:?}");
        }
        for resource in ["a&#xA;b", "\u{e000}", "\u{2069}"] {
            let id = s.fresh();
            let from = format!("{}/{resource}", s.user("rob"));
            peer.send(format!(
                "<message from='{from}' to='{ALICE}' id='{id}'><body>{}</body></message>",
                s.forbidden()
            ))
            .await?;
            let error = outside.stanza_id(&id).await?;
            ensure!(
                error.error_condition() == Some("jid-malformed"),
                "{error:?}"
            );
            s.delivers_inwards(&mut peer).await?;
        }
        s.unharmed(Moved::Refused("JidMalformed")).await
    });
}

/// Every fault that can be told apart, from a partner and from inside, on one stream each.
#[test]
fn s1_whatever_is_wrong_with_a_stanza_its_stream_goes_on() {
    RIG.test(4, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        let mut inside = s.inside().await?;
        let many = |n: usize, f: fn(usize) -> String| (0..n).map(f).collect::<String>();
        let faults = [
            (
                format!(
                    "<x xmlns='urn:x'>{}</x>",
                    "<a>".repeat(80) + &"</a>".repeat(80)
                ),
                "policy-violation",
            ),
            (
                format!("<x {}/>", many(70, |n| format!(" a{n}=''"))),
                "policy-violation",
            ),
            (
                many(1_100, |n| format!("<x xmlns='urn:x:{n}'/>")),
                "policy-violation",
            ),
            (format!("<{}/>", "n".repeat(300)), "policy-violation"),
            ("<x xmlns='urn:x y'/>".to_owned(), "bad-request"),
            ("<größe xmlns='urn:x'/>".to_owned(), "bad-request"),
        ];
        let rob = s.user("rob");
        for (content, condition) in faults {
            let (from_partner, from_inside) = (s.fresh(), s.fresh());
            let message = |from: &str, to: &str, id: &str| {
                format!(
                    "<message from='{from}' to='{to}' id='{id}'><body>x</body>{content}</message>"
                )
            };
            peer.send(message(&rob, ALICE, &from_partner)).await?;
            inside.send(message(ALICE, &rob, &from_inside)).await?;
            s.delivers_inwards(&mut peer).await?;
            s.delivers_outwards(&mut inside, &outside).await?;
            let error = outside.stanza_id(&from_partner).await?;
            ensure!(error.error_condition() == Some(condition), "{error:?}");
            let error = s.inside_gets(&from_inside).await?;
            ensure!(error.error_condition() == Some(condition), "{error:?}");
        }
        ensure!(outside.connections() == 1, "one stream outwards");
        Ok(())
    });
}
