//! From users of SIP to a partner: what arrives, and which final code its sender gets.

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::{Command, PeerServer},
    rig::alone,
    sip::{SipMessage, SipParty, request},
    wait,
    xml::Element,
};

use super::stage::{PARTNER, Stage, StagePlan, message, typed_message};

const ROB: &str = "sip:rob@partner.example";
const ALICE: &str = "sip:alice@org.example";

async fn said(outside: &PeerServer, body: &str) -> Result<Element> {
    let fits = |it: &Element| it.child("body").is_some_and(|it| it.text == body);
    Ok(outside.stanza(body, fits).await?.stanza)
}

fn code(answer: &SipMessage, expected: u16) -> Result<()> {
    ensure!(
        answer.code() == Some(expected),
        "not {expected}: {answer:?}"
    );
    Ok(())
}

#[test]
fn sip_02_sip_50_a_message_is_answered_once_the_partner_has_it_and_not_before() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        code(&alice.ask(message(ROB, "first", "first")).await?, 200)?;
        let got = said(&outside, "first").await?;
        ensure!(
            got.attribute("from") == Some("alice@org.example")
                && got.attribute("to") == Some("rob@partner.example")
                && got.attribute("type") == Some("chat")
                && got.child("active").is_some(),
            "{got:?}"
        );
        // The partner reads nothing: who waits hears so after 3.5 s, and has the code when it reads again.
        let connection = outside.last_connection();
        outside.freeze(connection).await?;
        alice.send(message(ROB, "slow", "slow"));
        let is_trying = |it: &SipMessage| it.code() == Some(100);
        let trying = wait::until("100", wait::GENEROUS, async || {
            alice.answers().iter().any(is_trying).then_some(())
        });
        trying.await?;
        ensure!(
            alice.answers().iter().all(|it| it.code() == Some(100)),
            "{:?}",
            alice.answers()
        );
        outside.tell(connection, Command::Thaw);
        code(&alice.answered("slow@sip.org.example").await?, 200)
    });
}

#[test]
fn sip_05_an_address_is_a_jid_and_what_promises_tls_on_each_hop_is_refused() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        for (number, (to, expected)) in [
            ("im:rob@partner.example", "rob@partner.example"),
            (
                "sip:rob@PARTNER.example:5070;transport=tcp",
                "rob@partner.example",
            ),
            (
                "sip:rob@partner.example;gr=ph%20one",
                "rob@partner.example/ph one",
            ),
            (
                "sip:o'hara%26co@partner.example",
                "o\\27hara\\26co@partner.example",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let body = format!("to {number}");
            code(
                &alice
                    .ask(message(to, &format!("to-{number}"), &body))
                    .await?,
                200,
            )?;
            let got = said(&outside, &body).await?;
            ensure!(got.attribute("to") == Some(expected), "{to}: {got:?}");
        }
        for (unique, to, expected) in [
            ("sips", "sips:rob@partner.example", 416),
            ("tel", "tel:+123", 416),
            ("user", "sip:partner.example", 404),
            ("ip", "sip:rob@192.0.2.1", 404),
            ("password", "sip:rob:secret@partner.example", 404),
            ("percent", "sip:rob%ff@partner.example", 404),
        ] {
            code(&alice.ask(message(to, unique, unique)).await?, expected)?;
        }
        Ok(())
    });
}

#[test]
fn sip_04_sip_05_a_sender_is_a_bare_jid_by_whichever_scheme_and_no_address_is_cut() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        let text = "Content-Type: text/plain\r\n";
        for (unique, from) in [
            ("from-sips", "sips:alice@org.example"),
            ("from-im", "im:alice@ORG.example"),
            ("from-gruu", "sip:alice@org.example;gr=desk"),
        ] {
            let answer = alice.ask(request("MESSAGE", from, ROB, unique, text, unique));
            code(&answer.await?, 200)?;
            let got = said(&outside, unique).await?;
            ensure!(
                got.attribute("from") == Some("alice@org.example"),
                "{from}: {got:?}"
            );
        }
        let long = "a".repeat(1_100);
        for (number, (from, to, expected)) in [
            ("sip:al%00ice@org.example", ROB, 403),
            (format!("sip:{long}@org.example").as_str(), ROB, 403),
            ("tel:+123", ROB, 403),
            (ALICE, "sip:r%00ob@partner.example", 404),
            (ALICE, format!("sip:{long}@partner.example").as_str(), 404),
        ]
        .into_iter()
        .enumerate()
        {
            let unique = format!("cut-{number}");
            let answer = alice.ask(request("MESSAGE", from, to, &unique, text, "forbidden"));
            code(&answer.await?, expected)?;
        }
        ensure!(!outside.transcript().contains("forbidden"), "it went on");
        Ok(())
    });
}

#[test]
fn sip_09_a_message_of_a_user_is_whole_or_refused() {
    alone(async {
        let stage = Stage::start(StagePlan {
            sip: json!({ "maxMessageBytes": 2000 }),
            ..StagePlan::default()
        })
        .await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        let (fits, long) = ("x".repeat(2000), "y".repeat(2001));
        code(&alice.ask(message(ROB, "fits", &fits)).await?, 200)?;
        said(&outside, &fits).await?;
        code(&alice.ask(message(ROB, "long", &long)).await?, 413)?;
        code(&alice.ask(message(ROB, "then", "then")).await?, 200)?;
        ensure!(!outside.transcript().contains("yyy"), "it went on");
        Ok(())
    });
}

#[test]
fn sip_41_a_partner_whose_queue_is_full_costs_a_message_its_code_and_nobody_else() {
    alone(async {
        let stage = Stage::start(StagePlan {
            settings: json!({ "maxStanzaBytes": 20_000, "queueBytes": 65_536 }),
            ..StagePlan::default()
        })
        .await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        code(&alice.ask(message(ROB, "first", "first")).await?, 200)?;
        // What it does not acknowledge is held.
        let connection = outside.last_connection();
        outside.freeze(connection).await?;
        let body = "x".repeat(8_000);
        for number in 0..20 {
            alice.send(message(ROB, &format!("fills-{number}"), &body));
        }
        let full = wait::until("the queue is full", wait::GENEROUS, async || {
            let answers = alice.answers();
            answers.into_iter().find(|it| it.code() == Some(500))
        });
        let full = full.await?;
        ensure!(full.header("Retry-After") == Some("5"), "{full:?}");
        // Others of the same server's are answered meanwhile.
        let stranger = message("sip:x@stranger.example", "stranger", "x");
        code(&alice.ask(stranger).await?, 404)?;
        outside.tell(connection, Command::Thaw);
        let all = wait::until("each is answered", wait::GENEROUS, async || {
            let answers = alice.answers();
            let last = answers.iter().filter(|it| it.code() >= Some(200)).count();
            (last == 20).then_some(())
        });
        all.await?;
        code(&alice.ask(message(ROB, "then", "then")).await?, 200)
    });
}

#[test]
fn sip_15_what_is_not_text_is_refused_and_what_wraps_text_is_read() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        let answer = alice
            .ask(typed_message(ROB, "html", "text/html", "<b>x</b>"))
            .await?;
        code(&answer, 415)?;
        ensure!(
            answer
                .header("Accept")
                .is_some_and(|it| it.contains("text/plain")),
            "{answer:?}"
        );
        let koi8 = "text/plain;charset=koi8-r";
        code(
            &alice.ask(typed_message(ROB, "koi8", koi8, "x")).await?,
            415,
        )?;
        let cpim = |from: &str, text: &str| {
            format!("From: <{from}>\r\nTo: <{ROB}>\r\n\r\nContent-Type: text/plain\r\n\r\n{text}")
        };
        let own = cpim(ALICE, "in a wrapper");
        code(
            &alice
                .ask(typed_message(ROB, "cpim", "message/cpim", &own))
                .await?,
            200,
        )?;
        said(&outside, "in a wrapper").await?;
        let other = cpim("sip:other@org.example", "forged");
        code(
            &alice
                .ask(typed_message(ROB, "forged", "message/cpim", &other))
                .await?,
            403,
        )?;
        ensure!(!outside.transcript().contains("forged"), "it went on");
        Ok(())
    });
}

#[test]
fn sip_18_what_xml_forbids_ends_no_stream() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        let odd = "a\u{8}b\u{fffe}c<&>";
        code(&alice.ask(message(ROB, "odd", odd)).await?, 200)?;
        said(&outside, "a\u{fffd}b\u{fffd}c<&>").await?;
        let more = "Subject: a\u{8}b\r\nContent-Type: text/plain\r\n";
        let answer = alice
            .ask(request(
                "MESSAGE",
                ALICE,
                ROB,
                "subject",
                more,
                "with a subject",
            ))
            .await?;
        code(&answer, 200)?;
        let got = said(&outside, "with a subject").await?;
        ensure!(
            got.child("subject")
                .is_some_and(|it| it.text == "a\u{fffd}b"),
            "{got:?}"
        );
        code(&alice.ask(message(ROB, "then", "then")).await?, 200)?;
        ensure!(outside.connections() == 1, "the stream lives");
        Ok(())
    });
}

#[test]
fn sip_20_each_method_has_its_answer() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let alice = stage.dial_edge().await?;
        for (method, expected) in [
            ("OPTIONS", 200),
            ("REGISTER", 405),
            ("SUBSCRIBE", 489),
            ("PUBLISH", 405),
            ("INVITE", 488),
            ("NOTIFY", 481),
            ("FROB", 501),
        ] {
            let answer = alice
                .ask(request(method, ALICE, ROB, method, "", ""))
                .await?;
            code(&answer, expected)?;
            if method == "OPTIONS" {
                let accepted = answer.header("Accept").unwrap_or_default();
                ensure!(
                    answer.header("Allow") == Some("MESSAGE, NOTIFY, OPTIONS, SUBSCRIBE")
                        && answer.header("Allow-Events") == Some("presence")
                        && accepted.starts_with("text/plain, ")
                        && accepted.ends_with("application/pidf+xml"),
                    "{answer:?}"
                );
            }
            if expected == 405 {
                ensure!(
                    answer.header("Allow") == Some("MESSAGE, NOTIFY, OPTIONS, SUBSCRIBE"),
                    "{answer:?}"
                );
            }
        }
        let more = "Require: foo\r\nContent-Type: text/plain\r\n";
        let answer = alice
            .ask(request("MESSAGE", ALICE, ROB, "require", more, "x"))
            .await?;
        code(&answer, 420)?;
        ensure!(answer.header("Unsupported") == Some("foo"), "{answer:?}");
        Ok(())
    });
}

#[test]
fn sip_22_sip_24_an_error_is_the_code_with_its_words_and_a_late_one_is_counted() {
    alone(async {
        let stage = Stage::start(StagePlan {
            settings: json!({ "queueTimeoutSeconds": 5 }),
            ..StagePlan::default()
        })
        .await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        // It is answered while the partner acknowledges nothing.
        code(&alice.ask(message(ROB, "first", "first")).await?, 200)?;
        let stanza = said(&outside, "first").await?;
        let id = stanza.attribute("id").unwrap_or_default().to_owned();
        let error = |id: &str| {
            format!(
                "<message from='rob@{PARTNER}' to='alice@org.example' type='error' id='{id}'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>no \"rob\"</text></error></message>"
            )
        };
        partner.send(error(&id)).await?;
        wait::until("a late error", wait::GENEROUS, async || {
            let late = stage.edge.metric("sip_late_errors_total", &[]).await.ok()?;
            (late > 0.0).then_some(())
        })
        .await?;
        ensure!(alice.answers().is_empty(), "{:?}", alice.answers());
        outside.kill().await;
        let answer = alice.ask(message(ROB, "second", "second")).await?;
        code(&answer, 504)?;
        let warning = answer.header("Warning").unwrap_or_default();
        ensure!(
            warning.starts_with("399 edge.default.xmpp-edge.internal \""),
            "{answer:?}"
        );
        Ok(())
    });
}

#[test]
fn sip_23_policy_says_no_with_its_own_words() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        let more = "Content-Type: text/plain\r\n";
        let bob = "sip:bob@org.example";
        let answer = alice
            .ask(request("MESSAGE", bob, ROB, "bob", more, "forbidden"))
            .await?;
        code(&answer, 403)?;
        ensure!(answer.header("Warning").is_some(), "{answer:?}");
        let stranger = message("sip:x@stranger.example", "stranger", "forbidden");
        code(&alice.ask(stranger).await?, 404)?;
        ensure!(!outside.transcript().contains("forbidden"), "it went on");
        let refused = stage
            .edge
            .metric("stanzas_refused_total", &["direction=\"outbound\""])
            .await?;
        ensure!(refused >= 2.0, "{refused}");
        Ok(())
    });
}

#[test]
fn sip_44_nobody_speaks_for_others_and_nothing_goes_round() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        let text = "Content-Type: text/plain\r\n";
        let from = async |alice: &SipParty, from: &str, to: &str, unique: &str, more: &str| {
            let more = format!("{text}{more}");
            alice
                .ask(request("MESSAGE", from, to, unique, &more, "forbidden"))
                .await
        };
        code(
            &from(&alice, "sip:rob@partner.example", ROB, "partner", "").await?,
            403,
        )?;
        let asserted = "P-Asserted-Identity: <sip:alice@org.example>\r\n";
        code(
            &from(&alice, "sip:x@other.example", ROB, "asserted", asserted).await?,
            403,
        )?;
        code(
            &from(&alice, ALICE, "sip:bob@org.example", "inside", "").await?,
            404,
        )?;
        // What the edge sent comes back to it.
        let mut partner = stage.partner().await?;
        let rob = format!("rob@{PARTNER}");
        partner
            .message(&rob, "alice@org.example", "out", "out")
            .await?;
        let sent = server.party().await?.text("out").await?;
        let via = sent.header("Via").unwrap_or_default();
        let round = format!("Via: {via}\r\n");
        code(&from(&alice, ALICE, ROB, "round", &round).await?, 482)?;
        let hops = request("MESSAGE", ALICE, ROB, "hops", text, "forbidden")
            .replace("Max-Forwards: 70", "Max-Forwards: 0");
        code(&alice.ask(hops).await?, 483)?;
        ensure!(!outside.transcript().contains("forbidden"), "it went on");
        Ok(())
    });
}
