//! Presence both ways, between partners' scripted servers and a scripted SIP server.

mod both_ways;
mod notifier;
mod watcher;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    peer::{Peer, PeerServer},
    rig::alone,
    sip::{Reply, SipMessage, SipParty, request},
    wait,
    xml::Element,
};

use super::stage::{OWN, PARTNER, Stage, StagePlan};

const ALICE: &str = "alice@org.example";
const ALICE_URI: &str = "sip:alice@org.example";
const ROB: &str = "rob@partner.example";
const ROB_URI: &str = "sip:rob@partner.example";
const SUBSCRIBE: &str = "Event: presence\r\nExpires: 600\r\nContact: <sip:alice@10.0.0.1>\r\n";

/// A SUBSCRIBE of alice's to rob, with one more header field.
fn subscribe(unique: &str, more: &str) -> String {
    let more = format!("{SUBSCRIBE}{more}");
    request("SUBSCRIBE", ALICE_URI, ROB_URI, unique, &more, "")
}

/// A SUBSCRIBE in the dialog that this answer made.
fn again(answer: &SipMessage, cseq: u32, expires: u32) -> String {
    let header = |name| answer.header(name).unwrap_or_default();
    let contact = header("Contact").trim_matches(['<', '>']).to_owned();
    format!(
        "SUBSCRIBE {contact} SIP/2.0\r\n\
         Via: SIP/2.0/TLS sip.org.example:5061;branch=z9hG4bKagain{cseq}\r\n\
         From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} SUBSCRIBE\r\n\
         Event: presence\r\nExpires: {expires}\r\nContact: <sip:alice@10.0.0.1>\r\n\
         Content-Length: 0\r\n\r\n",
        header("From"),
        header("To"),
        header("Call-ID")
    )
}

/// What a presence agent says to whom that SUBSCRIBE was of.
fn notify(subscribe: &SipMessage, cseq: u32, state: &str, document: &str) -> String {
    let header = |name| subscribe.header(name).unwrap_or_default();
    let contact = header("Contact").trim_matches(['<', '>']).to_owned();
    let media_type = if document.is_empty() {
        ""
    } else {
        "Content-Type: application/pidf+xml\r\n"
    };
    format!(
        "NOTIFY {contact} SIP/2.0\r\n\
         Via: SIP/2.0/TLS sip.org.example:5061;branch=z9hG4bKnotify{cseq}\r\n\
         From: {};tag=agent\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} NOTIFY\r\n\
         Contact: <sip:agent@sip.org.example>\r\nEvent: presence\r\n\
         Subscription-State: {state}\r\n{media_type}Content-Length: {}\r\n\r\n{document}",
        header("To"),
        header("From"),
        header("Call-ID"),
        document.len()
    )
}

/// alice's document: a tuple that is `open`, with a note.
fn open(id: &str, note: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='{ALICE_URI}'>\
         <tuple id='{id}'><status><basic>open</basic></status><note>{note}</note></tuple></presence>"
    )
}

async fn is_taken(agent: &SipParty, notify: String, expected: u16) -> Result<()> {
    let answer = agent.ask(notify).await?;
    ensure!(
        answer.code() == Some(expected),
        "not {expected}: {answer:?}"
    );
    Ok(())
}

async fn subscribes(partner: &mut Peer, kind: &str) -> Result<()> {
    let stanza = format!("<presence from='{ROB}' to='{ALICE}' type='{kind}' id='{kind}'/>");
    partner.send(stanza).await
}

/// Presence of this type from that address has come.
async fn told(outside: &PeerServer, from: &str, kind: Option<&str>) -> Result<Element> {
    let what = format!("presence {kind:?} from {from}");
    let fits = |it: &Element| {
        it.name == "presence" && it.attribute("from") == Some(from) && it.attribute("type") == kind
    };
    Ok(outside.stanza(&what, fits).await?.stanza)
}

fn count(outside: &PeerServer, kind: &str) -> usize {
    let all = outside.stanzas();
    let of = all
        .iter()
        .filter(|it| it.stanza.attribute("type") == Some(kind));
    of.count()
}

async fn next_subscribe(party: &SipParty) -> Result<SipMessage> {
    let fits = |it: &SipMessage| it.method() == Some("SUBSCRIBE");
    party.requested("SUBSCRIBE", fits).await
}

/// The NOTIFY whose state begins so.
async fn notified(party: &SipParty, state: &str) -> Result<SipMessage> {
    let fits = |it: &SipMessage| {
        let said = it.header("Subscription-State").unwrap_or_default();
        it.method() == Some("NOTIFY") && said.starts_with(state)
    };
    party.requested(&format!("NOTIFY {state}"), fits).await
}

/// Waits until there are so many subscriptions of this role and state.
async fn counted(stage: &Stage, role: &str, state: &str, expected: f64) -> Result<()> {
    let what = format!("{expected} subscriptions, {role} and {state}");
    let labels = [format!("role=\"{role}\""), format!("state=\"{state}\"")];
    let labels = [labels[0].as_str(), labels[1].as_str()];
    wait::until(&what, wait::GENEROUS, async || {
        let now = stage.edge.metric("sip_subscriptions", &labels).await.ok()?;
        (now.to_bits() == expected.to_bits()).then_some(())
    })
    .await
}

fn with_sip(sip: Value) -> StagePlan {
    StagePlan {
        sip,
        ..StagePlan::default()
    }
}
