//! The demonstration with a real Kamailio as the organisation's server: messages and presence between its users, who
//! speak SIP, and the partner's.

use std::{fs, net::SocketAddrV4, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    client::Client,
    edge::Edge,
    lab::Lab,
    sip::{EdgeRoute, Kamailio, SIPS_PORT, SipMessage, SipParty, request},
    wait,
};

use super::{INSIDE_HOST, OWN, title};

/// The pool of the demonstration with a SIP server in place of the XMPP one.
pub(super) fn lead_by_sip(directory: &Path) -> Result<()> {
    let path = directory.join("manifests/pool.yaml");
    let pool = fs::read_to_string(&path)?;
    let (direct, port) = ("      mode: Direct\n", ":5269   #");
    ensure!(
        pool.contains(direct) && pool.contains(port),
        "examples/demo/pool.yaml is another"
    );
    let by_sip = "      mode: Sip\n      sip: {edgeName: edge.default.xmpp-edge.internal}\n";
    let pool = pool.replace(direct, by_sip);
    fs::write(&path, pool.replace(port, &format!(":{SIPS_PORT}   #")))?;
    Ok(())
}

/// Starts it, and waits until the edge reaches it.
pub(super) async fn start(lab: &Lab, edge: &Edge) -> Result<Kamailio> {
    let kamailio = Kamailio::start(
        OWN,
        SocketAddrV4::new(lab.ip(INSIDE_HOST), SIPS_PORT),
        EdgeRoute::Static((edge.place().internal_bind, SIPS_PORT).into()),
        &edge.gateway_identity(OWN)?,
        &edge.internal_ca()?,
        lab.directory(),
    )
    .await?;
    let reached = wait::until("the edge reaches Kamailio", wait::GENEROUS, async || {
        let status = edge.status().await.ok()?;
        (status["gateways"][0]["reachable"] == json!(true)).then_some(())
    });
    reached.await.with_context(|| edge.log())?;
    Ok(kamailio)
}

/// Messages both ways, one that is refused, presence both ways. Gives back the users, who are told when the edge ends.
pub(super) async fn show(kamailio: &Kamailio, bob: &Client) -> Result<Vec<SipParty>> {
    let (alice, carol) = (
        kamailio.register("alice").await?,
        kamailio.register("carol").await?,
    );
    // Who did not ask for the roster hears nothing of subscriptions (RFC 6121 section 2.1.6).
    bob.request(None, "get", "<query xmlns='jabber:iq:roster'/>")
        .await?;
    bob.presence(None, None, "<show>dnd</show><status>writing</status>")
        .await?;
    title("Allowed: Alice has an access policy");
    writes(
        &alice,
        "alice",
        bob,
        "Good morning, Bob! Does this reach you?",
    )
    .await?;
    let body = "It does. Good morning, Alice!";
    println!("{} → alice@{OWN}: {body}", bob.bare());
    bob.message(&format!("alice@{OWN}"), &bob.fresh_id(), body)
        .await?;
    let arrived = alice.text(body).await?;
    println!("    arrived, {}", field(&arrived, "From"));

    title("Refused: Carol has none");
    let (answer, _) = says(&carol, "carol", bob, "And this?").await?;
    ensure!(answer.code() == Some(403), "{answer:?}");
    println!(
        "    {}, Warning: {}",
        answer.start,
        field(&answer, "Warning")
    );

    title("Presence: each is on the other's list");
    bob_sees_alice(&alice, bob).await?;
    alice_sees_bob(&alice, bob).await?;
    Ok(vec![alice, carol])
}

async fn says(
    from: &SipParty,
    user: &str,
    to: &Client,
    body: &str,
) -> Result<(SipMessage, String)> {
    println!("{user}@{OWN} → {}: {body}", to.bare());
    let (from_uri, to_uri) = (format!("sip:{user}@{OWN}"), format!("sip:{}", to.bare()));
    let unique = format!("demo-{}", to.fresh_id());
    let more = "Content-Type: text/plain;charset=UTF-8\r\n";
    let text = request("MESSAGE", &from_uri, &to_uri, &unique, more, body);
    Ok((from.ask(text).await?, from_uri))
}

async fn writes(from: &SipParty, user: &str, to: &Client, body: &str) -> Result<()> {
    let (answer, _) = says(from, user, to, body).await?;
    ensure!(answer.code() == Some(200), "{answer:?}");
    let arrived = to.expect("the message", |stanza| {
        stanza.name == "message" && stanza.child("body").is_some_and(|it| it.text == body)
    });
    let arrived = arrived.await?;
    let from = arrived.attribute("from").unwrap_or("nobody");
    println!("    arrived, from {from}; {} to Alice", answer.start);
    Ok(())
}

async fn bob_sees_alice(alice: &SipParty, bob: &Client) -> Result<()> {
    let (uri, jid) = (format!("sip:alice@{OWN}"), format!("alice@{OWN}"));
    bob.presence(Some(&jid), Some("subscribe"), "").await?;
    bob.expect_presence(&jid, Some("subscribed")).await?;
    let document = format!(
        "<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' \
         xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' \
         xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' entity='{uri}'>\
         <tuple id='phone'><status><basic>open</basic></status><note>at lunch</note></tuple>\
         <dm:person id='p'><rpid:activities><rpid:away/></rpid:activities></dm:person></presence>"
    );
    let more = "Event: presence\r\nExpires: 600\r\nContent-Type: application/pidf+xml\r\n";
    let text = request("PUBLISH", &uri, &uri, "demo-publish", more, &document);
    let answer = alice.ask(text).await?;
    ensure!(answer.code() == Some(200), "{answer:?}");
    let seen = bob.expect("alice's presence", |stanza| {
        stanza.name == "presence"
            && stanza
                .child("status")
                .is_some_and(|it| it.text == "at lunch")
    });
    let seen = seen.await?;
    let show = seen
        .child("show")
        .map(|it| it.text.clone())
        .unwrap_or_default();
    let from = seen.attribute("from").unwrap_or_default();
    println!("{} sees {from}: {show}, \"at lunch\"", bob.bare());
    Ok(())
}

async fn alice_sees_bob(alice: &SipParty, bob: &Client) -> Result<()> {
    let contact = alice.contact().context("it is registered")?;
    let more = format!("Event: presence\r\nExpires: 600\r\nContact: <{contact}>\r\n");
    let (alice_uri, bob_uri) = (format!("sip:alice@{OWN}"), format!("sip:{}", bob.bare()));
    let text = request(
        "SUBSCRIBE",
        &alice_uri,
        &bob_uri,
        "demo-subscribe",
        &more,
        "",
    );
    let answer = alice.ask(text).await?;
    ensure!(answer.code() == Some(200), "{answer:?}");
    let jid = format!("alice@{OWN}");
    bob.expect_presence(&jid, Some("subscribe")).await?;
    bob.presence(Some(&jid), Some("subscribed"), "").await?;
    let fits = |it: &SipMessage| it.method() == Some("NOTIFY") && it.body.contains("<rpid:busy/>");
    let told = alice.requested("bob's presence", fits).await?;
    ensure!(told.body.contains("writing"), "{told:?}");
    println!("alice@{OWN} sees {}: busy, \"writing\"", bob.bare());
    Ok(())
}

fn field<'a>(message: &'a SipMessage, name: &str) -> &'a str {
    message.header(name).unwrap_or_default()
}
