//! The SIP server itself: who it is, when it is away, slow or hostile, and settings that change.

use anyhow::ensure;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use xmpp_edge_tests::{
    peer::Identity,
    pki::{Authority, Draft, Usage},
    rig::alone,
    sip::{Reply, SipParty, SipServer, request},
    wait,
};

use super::stage::{PARTNER, Stage, StagePlan, message};

const ALICE: &str = "alice@org.example";
const ROB: &str = "sip:rob@partner.example";

fn quick() -> StagePlan {
    StagePlan {
        settings: json!({ "queueTimeoutSeconds": 5 }),
        ..StagePlan::default()
    }
}

#[test]
fn sip_40_what_was_in_flight_goes_once_more_and_in_order() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
        let first = server.party().await?;
        server.reply(Reply::Silence);
        let mut stanzas = String::new();
        for number in 0..20 {
            let from = format!("u{number}@{PARTNER}");
            stanzas += &format!(
                "<message from='{from}' to='{ALICE}' type='chat'><body>{number} a</body></message>"
            );
            stanzas += &format!(
                "<message from='{from}' to='{ALICE}' type='chat'><body>{number} b</body></message>"
            );
        }
        partner.send(stanzas).await?;
        for number in 0..20 {
            first.text(&format!("{number} a")).await?;
        }
        drop(first);
        server.cut();
        server.reply(Reply::Code(200, String::new()));
        let second = server.party().await?;
        for number in 0..20 {
            second.text(&format!("{number} a")).await?;
            second.text(&format!("{number} b")).await?;
        }
        ensure!(
            second.requests().is_empty(),
            "once: {:?}",
            second.requests()
        );
        Ok(())
    });
}

#[test]
fn sip_40_what_two_connections_did_not_answer_is_answered_by_the_edge() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        server.reply(Reply::Silence);
        partner
            .message(&format!("rob@{PARTNER}"), ALICE, "lost", "lost")
            .await?;
        for _ in 0..2 {
            server.party().await?.text("lost").await?;
            server.cut();
        }
        let error = outside.stanza_id("lost").await?;
        ensure!(
            error.error_condition() == Some("remote-server-timeout"),
            "{error:?}"
        );
        Ok(())
    });
}

#[test]
fn sip_40_a_server_that_does_not_answer_is_dead_in_time_and_answered_for() {
    alone(async {
        let stage = Stage::start(quick()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        server.reply(Reply::Nothing);
        partner
            .message(&format!("rob@{PARTNER}"), ALICE, "mute", "mute")
            .await?;
        let error = outside.stanza_id("mute").await?;
        ensure!(
            error.error_condition() == Some("remote-server-timeout"),
            "{error:?}"
        );
        wait::until("the edge dials again", wait::GENEROUS, async || {
            (server.connections() > 1).then_some(())
        })
        .await
    });
}

#[test]
fn sip_40_a_user_agent_that_does_not_answer_costs_its_server_nothing() {
    alone(async {
        let stage = Stage::start(quick()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, mut partner) = (server.party().await?, stage.partner().await?);
        let rob = format!("rob@{PARTNER}");
        // As of a device that is off, behind a server that is there and says so where it is asked.
        party.reply(Reply::Silence);
        partner.message(&rob, ALICE, "off", "off").await?;
        let sent = party.text("off").await?;
        let error = outside.stanza_id("off").await?;
        ensure!(
            error.error_condition() == Some("remote-server-timeout"),
            "{error:?}"
        );
        wait::until("the server is asked", wait::GENEROUS, async || {
            (party.options() > 1).then_some(())
        })
        .await?;
        party.reply(Reply::Code(200, String::new()));
        partner.message(&rob, ALICE, "then", "then").await?;
        party.text("then").await?;
        ensure!(server.connections() == 1, "the connection stands");
        ensure!(party.requests().is_empty(), "once: {sent:?}");
        Ok(())
    });
}

#[test]
fn sip_41_what_the_edge_answers_does_not_wait_for_a_server_that_it_cannot_dial() {
    alone(async {
        let stage = Stage::start(quick()).await?;
        // The server reaches the edge; nothing listens where the edge dials.
        let (alice, mut partner) = (stage.dial_edge().await?, stage.partner().await?);
        let codes = async |unique: &str, from: &str, to: &str| {
            let text = "Content-Type: text/plain\r\n";
            let more = "Event: presence\r\nExpires: 600\r\nContact: <sip:alice@10.0.0.1>\r\n";
            let mut codes = Vec::new();
            for (method, more, body) in [("MESSAGE", text, "x"), ("SUBSCRIBE", more, "")] {
                let unique = format!("{unique}-{method}");
                let answer = alice
                    .ask(request(method, from, to, &unique, more, body))
                    .await?;
                ensure!(
                    answer.code() == Some(200) || answer.header("Warning").is_some(),
                    "{answer:?}"
                );
                codes.push(answer.code().unwrap_or_default());
            }
            anyhow::Ok(codes)
        };
        let alice_uri = "sip:alice@org.example";
        let stranger = codes("stranger", alice_uri, "sip:x@stranger.example").await?;
        ensure!(stranger == [404, 404], "{stranger:?}");
        let bob = codes("bob", "sip:bob@org.example", ROB).await?;
        ensure!(bob == [403, 403], "{bob:?}");
        // Nobody is there at the partner's either.
        let dead = alice.ask(message(ROB, "dead", "dead")).await?;
        ensure!(dead.code() == Some(504), "{dead:?}");
        let outside = stage.outside().await?;
        // Until the next try what comes is answered as before.
        let mut tries = 0;
        wait::until("the partner takes it", wait::GENEROUS, async || {
            tries += 1;
            let unique = format!("taken{tries}");
            let answer = alice.ask(message(ROB, &unique, "taken")).await;
            (answer.ok()?.code() == Some(200)).then_some(())
        })
        .await?;
        // What is for the server waits for it.
        let rob = format!("rob@{PARTNER}");
        partner.message(&rob, ALICE, "late", "late").await?;
        let error = outside.stanza_id("late").await?;
        ensure!(
            error.error_condition() == Some("remote-server-timeout")
                && error.error_text().starts_with("waited 5 s for "),
            "{error:?}"
        );
        drop((alice, partner, outside, stage));
        // One that comes in time gets all that waited.
        let stage = Stage::start(StagePlan::default()).await?;
        let mut partner = stage.partner().await?;
        let many: String = (0..20)
            .map(|number| {
                format!(
                    "<message from='{rob}' to='{ALICE}' type='chat'><body>{number}</body></message>"
                )
            })
            .collect();
        partner.send(many).await?;
        let server = stage.sip_server().await?;
        let party = server.party().await?;
        let all = async || (party.request_count() == 20).then_some(());
        wait::until("all that waited arrives", wait::GENEROUS, all).await?;
        let bodies: Vec<_> = party.requests().into_iter().map(|it| it.body).collect();
        let expected: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        ensure!(bodies == expected, "{bodies:?}");
        Ok(())
    });
}

#[test]
fn sip_41_what_waits_for_the_server_from_a_partner_that_is_suspended_is_not_delivered() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (_outside, mut partner) = (stage.outside().await?, stage.partner().await?);
        let rob = format!("rob@{PARTNER}");
        partner.message(&rob, ALICE, "waits", "waits").await?;
        wait::until("the edge has it", wait::GENEROUS, async || {
            let inbound = ["direction=\"inbound\""];
            let held = stage.edge.metric("queue_bytes", &inbound).await.ok()?;
            (held > 0.0).then_some(())
        })
        .await?;
        let suspended = async |yes: bool| {
            stage
                .edge
                .edit("XmppFederatedPartner", "partner", |partner| {
                    partner["spec"]["suspended"] = json!(yes);
                })
        };
        suspended(true).await?;
        partner.expect_stream_error("policy-violation").await?;
        suspended(false).await?;
        let mut partner = wait::until("it may talk again", wait::GENEROUS, async || {
            stage.partner().await.ok()
        })
        .await?;
        partner.message(&rob, ALICE, "after", "after").await?;
        let server = stage.sip_server().await?;
        let party = server.party().await?;
        party.text("after").await?;
        let others = party.requests();
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    });
}

#[test]
fn sip_41_a_server_that_is_away_is_waited_for_and_then_answered_for() {
    alone(async {
        let stage = Stage::start(quick()).await?;
        let (outside, mut partner) = (stage.outside().await?, stage.partner().await?);
        let rob = format!("rob@{PARTNER}");
        partner.message(&rob, ALICE, "late", "late").await?;
        let error = outside.stanza_id("late").await?;
        ensure!(
            error.error_condition() == Some("remote-server-timeout"),
            "{error:?}"
        );
        partner.message(&rob, ALICE, "waits", "waits").await?;
        let server = stage.sip_server().await?;
        server.party().await?.text("waits").await?;
        Ok(())
    });
}

#[test]
fn sip_42_a_server_without_the_right_certificate_is_neither_served_nor_used() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let other = Authority::new("Nobody's Root");
        let forged = Identity::of(&other.issue(&["org.example"], Usage::ServerAndClientAuth))?;
        let server = SipServer::listen(stage.sip_address(), forged.clone()).await?;
        stage.misses_server("certificate").await?;
        ensure!(server.connections() > 0, "it was dialled");
        for identity in [Some(forged), None] {
            let party = SipParty::dial(stage.edge_sip(), identity).await?;
            party.send(message(ROB, "forged", "forged"));
            party.ended().await?;
            ensure!(party.answers().is_empty(), "{:?}", party.answers());
        }
        let refused = stage
            .edge
            .metric("connections_refused_total", &["reason=\"UnknownServer\""])
            .await?;
        ensure!(refused >= 2.0, "{refused}");
        Ok(())
    });
}

#[test]
fn sip_42_a_server_of_another_pki_is_who_its_uri_says_and_no_wildcard_is_anybody() {
    alone(async {
        let stage = Stage::start(StagePlan {
            trust: json!({ "caConfigMapRef": { "name": "roots", "key": "ca.crt" } }),
            ..StagePlan::default()
        })
        .await?;
        let issued = |names: &[&str], uri: &str| {
            let mut draft = Draft::of(names);
            draft.uris = vec![uri.to_owned()];
            Identity::of(&stage.lab.authority().issue_as(&draft))
        };
        for refused in [
            issued(&["org.example"], "sip:other.example")?,
            issued(&["*.example"], "https://org.example/")?,
        ] {
            let server = SipServer::listen(stage.sip_address(), refused.clone()).await?;
            stage.misses_server("certificate").await?;
            let party = SipParty::dial(stage.edge_sip(), Some(refused)).await?;
            party.send(message(ROB, "forged", "forged"));
            party.ended().await?;
            ensure!(party.answers().is_empty(), "{:?}", party.answers());
            drop(server);
            stage.misses_server("tcp").await?;
        }
        let right = issued(&["fe-1.other.example"], "sip:org.example")?;
        let _server = SipServer::listen(stage.sip_address(), right.clone()).await?;
        stage.reaches_server().await?;
        let party = SipParty::dial(stage.edge_sip(), Some(right)).await?;
        let _outside = stage.outside().await?;
        let answer = party.ask(message(ROB, "known", "known")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        Ok(())
    });
}

#[test]
fn sip_43_hostile_bytes_end_their_connection_alone() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let (alice, outside) = (stage.dial_edge().await?, stage.outside().await?);
        let whole = message(ROB, "hostile", "hostile");
        let long = format!("X: {}\r\n", "x".repeat(5_000));
        let many = "X: y\r\n".repeat(129);
        for bytes in [
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            whole.replace(
                "Content-Length: 7",
                "Content-Length: 7\r\nContent-Length: 0",
            ),
            whole.replace("Content-Length: 7", "Content-Length: 18446744073709551615"),
            whole.replace("Content-Length: 7\r\n", ""),
            whole.replace("Content-Type", &format!("{long}Content-Type")),
            whole.replace("Content-Type", &format!("{many}Content-Type")),
            "\u{0}".repeat(20_000),
        ] {
            let party = stage.dial_edge().await?;
            party.send(bytes);
            party.ended().await?;
        }
        // One that says nothing, and half a message: they hold nobody up.
        let silent = stage.dial_edge().await?;
        let half = stage.dial_edge().await?;
        half.send(whole.split_at(60).0.to_owned());
        let answer = alice.ask(message(ROB, "then", "then")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        ensure!(!silent.is_ended() && !half.is_ended(), "they may stay");
        ensure!(!outside.transcript().contains("hostile"), "it went on");
        Ok(())
    });
}

#[test]
fn sip_43_many_connections_and_slow_bytes_hold_nobody_up_and_no_memory() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let (alice, _outside) = (stage.dial_edge().await?, stage.outside().await?);
        let answer = alice.ask(message(ROB, "first", "first")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        let before = stage.edge.resident_kib()?;
        // Of nobody, before TLS: each says a byte now and then.
        let mut slow = Vec::new();
        for _ in 0..500 {
            slow.push(TcpStream::connect(stage.edge_sip()).await?);
        }
        for byte in [0x16, 3, 1] {
            for stream in &mut slow {
                // Those that gave way to others are closed.
                let _ = stream.write_all(&[byte]).await;
            }
        }
        // Of the server's own, more than it may have; each has begun to say something.
        let half = message(ROB, "half", "half");
        let mut own = Vec::new();
        for _ in 0..70 {
            let party = stage.dial_edge().await?;
            party.send(half.split_at(60).0.to_owned());
            own.push(party);
        }
        let closed = async || {
            let ended = own.iter().filter(|it| it.is_ended()).count();
            (ended == 7).then_some(())
        };
        wait::until("64 stay, with the first", wait::GENEROUS, closed).await?;
        let answer = alice.ask(message(ROB, "then", "then")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        let held = stage.edge.resident_kib()?.saturating_sub(before);
        ensure!(held < 100 * 1_024, "{held} KiB");
        Ok(())
    });
}

#[test]
fn sip_44_sip_among_xmpp_is_no_xml_and_ends_its_connection_alone() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let server = stage.sip_server().await?;
        let mut partner = stage.partner().await?;
        let mut stray = TcpStream::connect(stage.edge_xmpp()).await?;
        let request = message(ROB, "stray", "stray");
        stray.write_all(request.as_bytes()).await?;
        let mut said = String::new();
        let end = async { Ok(stray.read_to_string(&mut said).await?) };
        wait::within("its end", wait::GENEROUS, end).await?;
        ensure!(
            said.contains("stream:error") && !said.contains("SIP/2.0"),
            "{said}"
        );
        partner
            .message(&format!("rob@{PARTNER}"), ALICE, "then", "then")
            .await?;
        server.party().await?.text("then").await?;
        Ok(())
    });
}

#[test]
fn sip_48_settings_that_change_are_in_force_and_tcp_knows_its_server_by_address() {
    alone(async {
        let stage = Stage::start(quick()).await?;
        let server = stage.sip_server().await?;
        let (outside, mut partner) = (stage.outside().await?, stage.partner().await?);
        let rob = format!("rob@{PARTNER}");
        stage.edge.edit("EdgePool", "edge", |pool| {
            pool["spec"]["gateways"][0]["sip"] = json!({ "maxMessageBytes": 1300 });
        })?;
        wait::until("the edge dials anew", wait::GENEROUS, async || {
            (server.connections() > 1).then_some(())
        })
        .await?;
        stage.reaches_server().await?;
        let long = "x".repeat(1301);
        partner.message(&rob, ALICE, "long", &long).await?;
        let error = outside.stanza_id("long").await?;
        ensure!(
            error.error_condition() == Some("policy-violation"),
            "{error:?}"
        );
        partner.message(&rob, ALICE, "short", "short").await?;
        server.party().await?.text("short").await?;
        stage.edge.edit("EdgePool", "edge", |pool| {
            pool["spec"]["suspended"] = json!(true);
        })?;
        let party = server.party().await?;
        party.ended().await
    });
}

#[test]
fn sip_48_tcp_carries_messages_for_the_server_at_its_address_alone() {
    alone(async {
        let stage = Stage::start_by_tcp().await?;
        let server = SipServer::listen_plain(stage.sip_address()).await?;
        stage.reaches_server().await?;
        let (outside, mut partner) = (stage.outside().await?, stage.partner().await?);
        partner
            .message(&format!("rob@{PARTNER}"), ALICE, "in", "in")
            .await?;
        server.party().await?.text("in").await?;
        let alice = SipParty::dial_plain(stage.edge_sip_tcp(), stage.sip_address().ip()).await?;
        let answer = alice.ask(message(ROB, "out", "out")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        let has = |it: &xmpp_edge_tests::xml::Element| {
            it.child("body").is_some_and(|it| it.text == "out")
        };
        outside.stanza("out", has).await?;
        let other = SipParty::dial_plain(stage.edge_sip_tcp(), stage.lab.ip(31).into()).await?;
        other.send(message(ROB, "other", "other"));
        other.ended().await
    });
}
