//! Sessions of dialect `Lync` through a real Kamailio, which stays on their way by Record-Route: its users are scripted.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    rig::alone,
    sip::{Reply, SipMessage, SipParty, request},
};

use super::{kamailio::Town, stage::StagePlan};

const ALICE_URI: &str = "sip:alice@org.example";
const ROB_URI: &str = "sip:rob@partner.example";
const DESCRIPTION: &str = "v=0\r\no=- 0 0 IN IP4 a\r\ns=session\r\nc=IN IP4 a\r\nt=0 0\r\n\
    m=message 5060 sip null\r\n";
const SDP: &str = "Content-Type: application/sdp\r\n";
const TEXT: &str = "Content-Type: text/plain;charset=UTF-8\r\n";

async fn town() -> Result<Town> {
    Town::start_as(StagePlan {
        sip: json!({ "dialect": "Lync" }),
        ..StagePlan::default()
    })
    .await
}

async fn next(town: &Town, alice: &SipParty, method: &str) -> Result<SipMessage> {
    let fits = |it: &SipMessage| it.method() == Some(method);
    let found = alice.requested(method, fits).await;
    found.with_context(|| town.said())
}

/// All fields of that name, as another field has them.
fn fields(of: &SipMessage, name: &str, written: &str) -> String {
    let all = of
        .headers
        .iter()
        .filter(|(own, _)| own.eq_ignore_ascii_case(name));
    all.map(|(_, value)| format!("{written}: {value}\r\n"))
        .collect()
}

/// A request of alice's in a dialog: its target, its hops, its two sides and its Call-ID.
struct Inside {
    target: String,
    routes: String,
    from: String,
    to: String,
    call: String,
}

impl Inside {
    fn request(&self, method: &str, cseq: u32, more: &str, body: &str) -> String {
        let Self {
            target,
            routes,
            from,
            to,
            call,
        } = self;
        format!(
            "{method} {target} SIP/2.0\r\n\
             Via: SIP/2.0/TCP sip.org.example:5061;branch=z9hG4bKinside{method}{cseq}\r\nMax-Forwards: 70\r\n\
             {routes}From: {from}\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n\
             {more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

fn uri(contact: &SipMessage) -> Result<String> {
    let contact = contact.header("Contact").context("a Contact")?;
    Ok(contact.trim_matches(['<', '>']).to_owned())
}

async fn is_taken(town: &Town, alice: &SipParty, text: String) -> Result<()> {
    let answer = alice.ask(text).await.with_context(|| town.said())?;
    ensure!(answer.code() == Some(200), "{answer:?}\n{}", town.said());
    Ok(())
}

async fn rob_reads(town: &Town, body: &str) -> Result<()> {
    let read = town.rob.expect(body, |it| {
        it.child("body").is_some_and(|own| own.text == body)
    });
    read.await.map(drop).with_context(|| town.said())
}

#[test]
fn sip_47_rob_writes_in_a_session_through_kamailio_and_alice_in_the_same() {
    alone(async {
        let town = town().await?;
        let alice = town.kamailio.register("alice").await?;
        alice.reply(Reply::Silence);
        town.rob.message("alice@org.example", "one", "one").await?;
        let invite = next(&town, &alice, "INVITE").await?;
        let hops = fields(&invite, "Record-Route", "Record-Route");
        ensure!(!hops.is_empty(), "{invite:?}");
        let contact = alice.contact().context("it is registered")?;
        let more = format!("{hops}Contact: <{contact}>\r\n{SDP}");
        alice.send(invite.answer_with(200, &more, DESCRIPTION));
        next(&town, &alice, "ACK").await?;
        let one = next(&town, &alice, "MESSAGE").await?;
        ensure!(
            one.body == "one" && one.header("Call-ID") == invite.header("Call-ID"),
            "{one:?}"
        );
        alice.send(one.answer(200, ""));
        let header = |name: &str| invite.header(name).unwrap_or_default().to_owned();
        let inside = Inside {
            target: uri(&invite)?,
            routes: fields(&invite, "Record-Route", "Route"),
            from: format!("{};tag=answered", header("To")),
            to: header("From"),
            call: header("Call-ID"),
        };
        is_taken(&town, &alice, inside.request("MESSAGE", 1, TEXT, "two")).await?;
        rob_reads(&town, "two").await?;
        is_taken(&town, &alice, inside.request("BYE", 2, "", "")).await?;
        town.rob
            .message("alice@org.example", "three", "three")
            .await?;
        let anew = next(&town, &alice, "INVITE").await?;
        ensure!(
            anew.header("Call-ID") != invite.header("Call-ID"),
            "{anew:?}"
        );
        Ok(())
    });
}

#[test]
fn sip_46_alice_begins_a_session_through_kamailio_and_rob_writes_in_it() {
    alone(async {
        let town = town().await?;
        let alice = town.kamailio.register("alice").await?;
        let contact = alice.contact().context("it is registered")?.to_owned();
        let more = format!("Contact: <{contact}>\r\n{SDP}");
        let asked = request("INVITE", ALICE_URI, ROB_URI, "session", &more, DESCRIPTION);
        let accepted = alice.ask(asked).await.with_context(|| town.said())?;
        ensure!(
            accepted.code() == Some(200),
            "{accepted:?}\n{}",
            town.said()
        );
        let mut hops: Vec<&str> = accepted
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("Record-Route"))
            .flat_map(|(_, value)| value.split(','))
            .collect();
        hops.reverse();
        ensure!(!hops.is_empty(), "it gives them back: {accepted:?}");
        let header = |name: &str| accepted.header(name).unwrap_or_default().to_owned();
        let inside = Inside {
            target: uri(&accepted)?,
            routes: hops
                .iter()
                .map(|hop| format!("Route: {}\r\n", hop.trim()))
                .collect(),
            from: header("From"),
            to: header("To"),
            call: header("Call-ID"),
        };
        alice.send(inside.request("ACK", 1, "", ""));
        is_taken(&town, &alice, inside.request("MESSAGE", 2, TEXT, "hello")).await?;
        rob_reads(&town, "hello").await?;
        town.rob
            .message("alice@org.example", "back", "back")
            .await?;
        let back = alice.text("back").await.with_context(|| town.said())?;
        ensure!(
            back.header("Call-ID") == accepted.header("Call-ID"),
            "{back:?}"
        );
        // The edge ends it where policy does not let them write any more.
        town.stage
            .edge
            .edit("XmppFederatedPartner", "partner", |partner| {
                partner["spec"]["suspended"] = json!(true);
            })?;
        next(&town, &alice, "BYE").await?;
        Ok(())
    });
}
