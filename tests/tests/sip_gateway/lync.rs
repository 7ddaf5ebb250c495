//! A server of dialect `Lync`, scripted from its clients' documents: messages in sessions, both ways.

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::Peer,
    rig::alone,
    sip::{Reply, SipMessage, SipParty, request},
    wait,
};

use super::stage::{OWN, PARTNER, Stage, StagePlan};

const ALICE: &str = "alice@org.example";
const ROB: &str = "sip:rob@partner.example";
const SDP: &str = "Content-Type: application/sdp\r\n";

pub async fn stage() -> Result<Stage> {
    Stage::start(StagePlan {
        sip: json!({ "dialect": "Lync" }),
        ..StagePlan::default()
    })
    .await
}

pub async fn writes(partner: &mut Peer, id: &str) -> Result<()> {
    let rob = format!("rob@{PARTNER}");
    partner.message(&rob, ALICE, id, id).await
}

pub async fn next(party: &SipParty, method: &str) -> Result<SipMessage> {
    let fits = |it: &SipMessage| it.method() == Some(method);
    party.requested(method, fits).await
}

/// What alice's client says of itself.
fn description(more: &str) -> String {
    format!(
        "v=0\r\no=- 0 0 IN IP4 a\r\ns=session\r\nc=IN IP4 a\r\nt=0 0\r\nm=message 5060 sip sip:{ALICE}\r\n{more}"
    )
}

pub fn accepts(invite: &SipMessage, more: &str) -> String {
    let fields =
        format!("Contact: <sip:{ALICE};gruu;opaque=a>\r\nRecord-Route: <sip:fe.{OWN};lr>\r\n{SDP}");
    invite.answer_with(200, &fields, &description(more))
}

/// Alice's client takes the session that it is invited to.
async fn joins(party: &SipParty, more: &str) -> Result<SipMessage> {
    let invite = next(party, "INVITE").await?;
    party.send(accepts(&invite, more));
    let ack = next(party, "ACK").await?;
    ensure!(ack.header("Call-ID") == invite.header("Call-ID"), "{ack:?}");
    ensure!(
        ack.start
            .starts_with(&format!("ACK sip:{ALICE};gruu;opaque=a ")),
        "{ack:?}"
    );
    ensure!(
        ack.header("Route") == Some(&format!("<sip:fe.{OWN};lr>")),
        "{ack:?}"
    );
    Ok(invite)
}

pub fn is_inside(message: &SipMessage, invite: &SipMessage) -> bool {
    let is_tagged = message.header("To").is_some_and(|to| to.contains(";tag="));
    is_tagged && message.header("Call-ID") == invite.header("Call-ID")
}

/// A request of alice's in the session that this INVITE of hers made.
fn inside(method: &str, unique: &str, tag: &str, cseq: u32, more: &str, body: &str) -> String {
    let text = request(method, &format!("sip:{ALICE}"), ROB, unique, more, body);
    text.replace(
        "To: <sip:rob@partner.example>",
        &format!("To: <{ROB}>;tag={tag}"),
    )
    .replace(
        &format!("CSeq: 1 {method}"),
        &format!("CSeq: {cseq} {method}"),
    )
    .replace(
        &format!("z9hG4bK{unique}"),
        &format!("z9hG4bK{unique}{cseq}"),
    )
}

fn invite(unique: &str, to: &str, body: &str) -> String {
    let more = format!(
        "Contact: <sip:{ALICE};gruu;opaque=a>\r\nRecord-Route: <sip:fe.{OWN};lr>\r\n\
         Ms-Conversation-ID: {unique}\r\n\
         ms-text-format: text/plain; charset=UTF-8;msgr=x;ms-body=aGk=\r\n{SDP}"
    );
    request("INVITE", &format!("sip:{ALICE}"), to, unique, &more, body)
}

/// Alice invites rob: the tag of his side.
async fn invites(alice: &SipParty, unique: &str) -> Result<String> {
    let answer = alice.ask(invite(unique, ROB, &description(""))).await?;
    ensure!(answer.code() == Some(200), "{answer:?}");
    let to = answer.header("To").and_then(|to| to.split_once(";tag="));
    let tag = to.map(|(_, tag)| tag.to_owned()).unwrap_or_default();
    ensure!(!tag.is_empty(), "{answer:?}");
    alice.send(inside("ACK", unique, &tag, 1, "", ""));
    Ok(tag)
}

async fn sessions(stage: &Stage, expected: f64) -> Result<()> {
    wait::until("as many sessions", wait::GENEROUS, async || {
        let now = stage.edge.metric("sip_sessions", &[]).await.ok()?;
        let status = stage.edge.status().await.ok()?;
        let shown = &status["gateways"][0]["sip"];
        let is_shown = shown["dialect"] == "Lync" && shown["sessions"].as_f64() == Some(expected);
        (now == expected && is_shown).then_some(())
    })
    .await
}

const TEXT: &str = "Content-Type: text/plain; charset=UTF-8\r\n";

#[test]
fn sip_46_what_a_user_says_in_a_session_arrives_once_until_bye() {
    alone(async {
        let stage = stage().await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, alice) = (server.party().await?, stage.dial_edge().await?);
        let answer = alice.ask(invite("a", ROB, &description(""))).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        ensure!(
            answer.header("Supported").is_none(),
            "the text comes by itself: {answer:?}"
        );
        ensure!(
            answer.header("Record-Route") == Some(&format!("<sip:fe.{OWN};lr>")),
            "{answer:?}"
        );
        ensure!(
            answer
                .body
                .contains("m=message 5060 sip sip:rob@partner.example"),
            "{answer:?}"
        );
        let to = answer.header("To").and_then(|to| to.split_once(";tag="));
        let tag = to.map(|(_, tag)| tag.to_owned()).unwrap_or_default();
        let late = alice.ask(inside("CANCEL", "a", &tag, 1, "", "")).await?;
        ensure!(
            late.code() == Some(200),
            "it cancels nothing any more: {late:?}"
        );
        alice.send(inside("ACK", "a", &tag, 1, "", ""));
        sessions(&stage, 1.0).await?;
        let said = alice
            .ask(inside("MESSAGE", "a", &tag, 2, TEXT, "hi"))
            .await?;
        ensure!(said.code() == Some(200), "{said:?}");
        let activity = "<KeyboardActivity><status status=\"type\" /></KeyboardActivity>";
        let xml = "Content-Type: application/xml\r\n";
        let typing = alice
            .ask(inside("INFO", "a", &tag, 3, xml, activity))
            .await?;
        let other = alice
            .ask(inside("INFO", "a", &tag, 4, xml, "<action/>"))
            .await?;
        ensure!(
            (typing.code(), other.code()) == (Some(200), Some(200)),
            "{typing:?} {other:?}"
        );
        outside
            .stanza("somebody writes", |it| it.child("composing").is_some())
            .await?;
        // What rob writes goes in it.
        let mut partner = stage.partner().await?;
        writes(&mut partner, "back").await?;
        let back = party.text("back").await?;
        ensure!(
            back.header("Call-ID") == Some("a@sip.org.example"),
            "{back:?}"
        );
        let again = alice
            .ask(inside("INVITE", "a", &tag, 5, SDP, &description("")))
            .await?;
        ensure!(again.code() == Some(200), "{again:?}");
        alice.send(inside("ACK", "a", &tag, 5, "", ""));
        let call = "v=0\r\nm=audio 5 RTP/AVP 0\r\n";
        let call = alice.ask(inside("INVITE", "a", &tag, 6, SDP, call)).await?;
        ensure!(call.code() == Some(488), "{call:?}");
        let bye = alice.ask(inside("BYE", "a", &tag, 7, "", "")).await?;
        ensure!(bye.code() == Some(200), "{bye:?}");
        sessions(&stage, 0.0).await?;
        for method in ["MESSAGE", "INFO", "BYE", "CANCEL"] {
            let late = alice.ask(inside(method, "a", &tag, 8, "", "")).await?;
            ensure!(late.code() == Some(481), "{method}: {late:?}");
        }
        let texts = outside.stanzas();
        let texts = texts.iter().filter(|it| it.stanza.child("body").is_some());
        ensure!(texts.count() == 1, "once: {:?}", outside.stanzas());
        Ok(())
    });
}

#[test]
fn sip_47_texts_go_in_one_session_in_order_and_what_it_lost_goes_once_more_outside() {
    alone(async {
        let stage = stage().await?;
        let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
        let (party, outside) = (server.party().await?, stage.outside().await?);
        party.reply(Reply::Silence);
        for id in ["one", "two", "three"] {
            writes(&mut partner, id).await?;
        }
        let invite = next(&party, "INVITE").await?;
        ensure!(
            invite.body.contains("m=message 5060 sip null\r\n"),
            "{invite:?}"
        );
        ensure!(
            invite.body.contains("a=accept-types:text/plain"),
            "{invite:?}"
        );
        ensure!(party.requests().is_empty(), "nothing before the answer");
        party.send(invite.answer(180, ""));
        party.send(accepts(&invite, ""));
        next(&party, "ACK").await?;
        for id in ["one", "two"] {
            let text = party.text(id).await?;
            ensure!(is_inside(&text, &invite), "{text:?}");
            ensure!(party.requests().is_empty(), "one at a time");
            party.send(text.answer(200, ""));
        }
        let third = party.text("three").await?;
        ensure!(is_inside(&third, &invite), "{third:?}");
        party.send(third.answer(481, ""));
        let outside_of_it = party.text("three").await?;
        ensure!(
            !outside_of_it
                .header("To")
                .is_some_and(|to| to.contains("tag=")),
            "{outside_of_it:?}"
        );
        party.send(outside_of_it.answer(200, ""));
        sessions(&stage, 0.0).await?;
        writes(&mut partner, "four").await?;
        let anew = joins(&party, "").await?;
        let conversation = |it: &SipMessage| it.header("Ms-Conversation-ID").map(str::to_owned);
        ensure!(conversation(&anew) != conversation(&invite), "{anew:?}");
        party.send(party.text("four").await?.answer(200, ""));
        // The 200 came once more: its ACK was lost.
        party.send(accepts(&anew, ""));
        next(&party, "ACK").await?;
        ensure!(outside.stanzas().is_empty(), "{:?}", outside.stanzas());
        Ok(())
    });
}

#[test]
fn who_takes_no_session_is_written_to_outside_of_one() {
    alone(async {
        for code in [405, 488] {
            let stage = stage().await?;
            let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
            let party = server.party().await?;
            party.reply(Reply::Silence);
            writes(&mut partner, "one").await?;
            let invite = next(&party, "INVITE").await?;
            party.send(invite.answer(code, ""));
            let ack = next(&party, "ACK").await?;
            ensure!(
                ack.header("Via") == invite.header("Via"),
                "of its hop: {ack:?}"
            );
            ensure!(
                ack.header("To")
                    .is_some_and(|to| to.ends_with(";tag=answered")),
                "{ack:?}"
            );
            party.reply(Reply::Code(200, String::new()));
            party.send(party.text("one").await?.answer(200, ""));
            writes(&mut partner, "two").await?;
            party.text("two").await?;
            ensure!(party.requests().is_empty(), "{:?}", party.requests());
        }
        Ok(())
    });
}

#[test]
fn a_session_without_messages_is_ended_and_a_refused_one_is_the_answer() {
    alone(async {
        let stage = stage().await?;
        let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
        let (party, outside) = (server.party().await?, stage.outside().await?);
        party.reply(Reply::Silence);
        writes(&mut partner, "busy").await?;
        let invite = next(&party, "INVITE").await?;
        party.send(invite.answer(486, ""));
        next(&party, "ACK").await?;
        let error = outside.stanza_id("busy").await?;
        ensure!(
            error.error_condition() == Some("recipient-unavailable"),
            "{error:?}"
        );
        writes(&mut partner, "one").await?;
        let invite = next(&party, "INVITE").await?;
        let fields = format!("Contact: <sip:{ALICE}>\r\n{SDP}");
        party.send(invite.answer_with(200, &fields, "v=0\r\nm=message 0 sip null\r\n"));
        next(&party, "ACK").await?;
        let bye = next(&party, "BYE").await?;
        ensure!(is_inside(&bye, &invite), "{bye:?}");
        let text = party.text("one").await?;
        ensure!(!is_inside(&text, &invite), "{text:?}");
        Ok(())
    });
}

#[test]
fn typing_is_told_in_sessions_alone_and_in_the_form_that_is_read_there() {
    alone(async {
        let composing = "a=accept-types:text/plain application/im-iscomposing+xml\r\n";
        for (more, method) in [("", "INFO"), (composing, "MESSAGE")] {
            let stage = stage().await?;
            let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
            let party = server.party().await?;
            party.reply(Reply::Silence);
            let writing = format!(
                "<message from='rob@{PARTNER}' to='{ALICE}' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
            );
            partner.send(writing.clone()).await?;
            writes(&mut partner, "one").await?;
            let invite = joins(&party, more).await?;
            party.send(party.text("one").await?.answer(200, ""));
            ensure!(
                party.requests().is_empty(),
                "none before: {:?}",
                party.requests()
            );
            partner.send(writing).await?;
            let told = next(&party, method).await?;
            ensure!(is_inside(&told, &invite), "{told:?}");
            let says = ["<status status=\"type\" />", "<state>active</state>"];
            ensure!(says.iter().any(|it| told.body.contains(it)), "{told:?}");
            // Whose session is dead hears the next in another one.
            party.send(told.answer(481, ""));
            writes(&mut partner, "two").await?;
            let anew = next(&party, "INVITE").await?;
            ensure!(
                anew.header("Call-ID") != invite.header("Call-ID"),
                "{anew:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn sessions_are_for_messages_between_those_whom_policy_lets_write() {
    alone(async {
        let stage = stage().await?;
        let (_server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let alice = stage.dial_edge().await?;
        let messages = description("");
        let call = "v=0\r\nm=audio 49170 RTP/AVP 0\r\n";
        let of_bob = invite("bob", ROB, &messages)
            .replace("sip:alice@org.example>;tag", "sip:bob@org.example>;tag");
        let strange = invite("type", ROB, &messages).replace("application/sdp", "text/plain");
        let parts = invite("parts", ROB, call)
            .replace("application/sdp", "multipart/alternative;boundary=x");
        for (text, code) in [
            (of_bob, 403),
            (invite("nobody", "sip:rob@stranger.example", &messages), 404),
            (invite("inside", "sip:bob@org.example", &messages), 404),
            (invite("call", ROB, call), 488),
            (parts, 488),
            (invite("odd", ROB, "nothing"), 400),
            (strange, 415),
        ] {
            let answer = alice.ask(text.clone()).await?;
            ensure!(answer.code() == Some(code), "{code}: {text} {answer:?}");
        }
        sessions(&stage, 0.0).await?;
        let answer = alice.ask(invite("none", ROB, "")).await?;
        ensure!(
            answer.body.contains("m=message"),
            "who offers nothing gets an offer: {answer:?}"
        );
        ensure!(outside.stanzas().is_empty(), "{:?}", outside.stanzas());
        Ok(())
    });
}

#[test]
fn sip_45_policy_that_is_withdrawn_ends_sessions() {
    alone(async {
        let stage = stage().await?;
        let (server, alice) = (stage.sip_server().await?, stage.dial_edge().await?);
        let (party, _outside) = (server.party().await?, stage.outside().await?);
        let tag = invites(&alice, "a").await?;
        sessions(&stage, 1.0).await?;
        stage
            .edge
            .edit("XmppFederatedPartner", "partner", |partner| {
                partner["spec"]["suspended"] = json!(true);
            })?;
        let bye = next(&party, "BYE").await?;
        ensure!(
            bye.header("Call-ID") == Some("a@sip.org.example"),
            "{bye:?}"
        );
        let late = alice
            .ask(inside("MESSAGE", "a", &tag, 2, TEXT, "hi"))
            .await?;
        ensure!(late.code() == Some(481), "{late:?}");
        Ok(())
    });
}

#[test]
fn sip_40_what_an_invite_was_for_goes_on_the_next_connection_and_sessions_stand() {
    alone(async {
        let stage = stage().await?;
        let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
        let first = server.party().await?;
        server.reply(Reply::Silence);
        for id in ["one", "two"] {
            writes(&mut partner, id).await?;
        }
        let lost = next(&first, "INVITE").await?;
        drop(first);
        server.cut();
        let second = server.party().await?;
        let invite = joins(&second, "").await?;
        ensure!(
            invite.header("Call-ID") != lost.header("Call-ID"),
            "{invite:?}"
        );
        for id in ["one", "two"] {
            let text = second.text(id).await?;
            ensure!(is_inside(&text, &invite), "{text:?}");
            second.send(text.answer(200, ""));
        }
        // Somebody accepted the first one after all: nobody waits for it.
        second.send(accepts(&lost, ""));
        let ack = next(&second, "ACK").await?;
        let bye = next(&second, "BYE").await?;
        ensure!(
            is_inside(&ack, &lost) && is_inside(&bye, &lost),
            "{ack:?} {bye:?}"
        );
        drop(second);
        server.cut();
        let third = server.party().await?;
        writes(&mut partner, "three").await?;
        let text = third.text("three").await?;
        ensure!(is_inside(&text, &invite), "it stands: {text:?}");
        Ok(())
    });
}
