//! Presence both ways with a real Kamailio as presence agent and a real Prosody outside.

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    rig::alone,
    sip::{SipMessage, SipParty, request},
    wait,
    xml::Element,
};

use super::kamailio::Town;

const ALICE: &str = "alice@org.example";
const ALICE_URI: &str = "sip:alice@org.example";
const ROB_URI: &str = "sip:rob@partner.example";

/// alice's publication, of which each has another `etag`.
struct Publication<'a> {
    alice: &'a SipParty,
    etag: Option<String>,
    count: u32,
}

impl<'a> Publication<'a> {
    fn new(alice: &'a SipParty) -> Self {
        Self {
            alice,
            etag: None,
            count: 0,
        }
    }

    async fn says(&mut self, note: &str) -> Result<()> {
        let document = format!(
            "<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' \
             xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' \
             xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' entity='{ALICE_URI}'>\
             <tuple id='phone'><status><basic>open</basic></status><note>{note}</note></tuple>\
             <dm:person id='p'><rpid:activities><rpid:away/></rpid:activities></dm:person>\
             </presence>"
        );
        let more = "Content-Type: application/pidf+xml\r\n";
        self.publish(600, more, &document).await
    }

    async fn ends(&mut self) -> Result<()> {
        self.publish(0, "", "").await
    }

    async fn publish(&mut self, expires: u32, more: &str, document: &str) -> Result<()> {
        self.count += 1;
        let unique = format!("publish-{}-{expires}", self.count);
        let etag = self.etag.take();
        let etag = etag.map_or_else(String::new, |it| format!("SIP-If-Match: {it}\r\n"));
        let more = format!("Event: presence\r\nExpires: {expires}\r\n{etag}{more}");
        let text = request("PUBLISH", ALICE_URI, ALICE_URI, &unique, &more, document);
        let answer = self.alice.ask(text).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        self.etag = answer.header("SIP-ETag").map(str::to_owned);
        Ok(())
    }
}

/// A SUBSCRIBE of alice's device to rob.
async fn subscribes(town: &Town, alice: &SipParty, unique: &str) -> Result<SipMessage> {
    let contact = alice.contact().context("it is registered")?;
    let more = format!("Event: presence\r\nExpires: 600\r\nContact: <{contact}>\r\n");
    let text = request("SUBSCRIBE", ALICE_URI, ROB_URI, unique, &more, "");
    let answer = alice.ask(text).await.with_context(|| town.said())?;
    ensure!(answer.code() == Some(200), "{answer:?}\n{}", town.said());
    Ok(answer)
}

/// The NOTIFY whose state begins so, and whose body has this text.
async fn notified(town: &Town, alice: &SipParty, state: &str, text: &str) -> Result<SipMessage> {
    let fits = |it: &SipMessage| {
        let said = it.header("Subscription-State").unwrap_or_default();
        it.method() == Some("NOTIFY") && said.starts_with(state) && it.body.contains(text)
    };
    let what = format!("NOTIFY {state} with {text:?}");
    let got = alice.requested(&what, fits).await;
    got.with_context(|| town.said())
}

async fn sees(town: &Town, status: &str) -> Result<Element> {
    let fits = |it: &Element| {
        let said = it.child("status");
        it.name == "presence" && said.is_some_and(|it| it.text == status)
    };
    let what = format!("presence with {status:?}");
    let got = town.rob.expect(&what, fits).await;
    got.with_context(|| town.said())
}

#[test]
fn sip_27_sip_33_rob_sees_alice_come_and_go() {
    alone(async {
        let town = Town::start().await?;
        let alice = town.kamailio.register("alice").await?;
        let mut publication = Publication::new(&alice);
        town.rob
            .presence(Some(ALICE), Some("subscribe"), "")
            .await?;
        let approved = town.rob.expect_presence(ALICE, Some("subscribed")).await;
        approved.with_context(|| town.said())?;
        publication
            .says("at <lunch>".replace('<', "&lt;").as_str())
            .await?;
        let seen = sees(&town, "at <lunch>").await?;
        ensure!(
            seen.attribute("from") == Some("alice@org.example/phone")
                && seen.child("show").is_some_and(|it| it.text == "away"),
            "{seen:?}"
        );
        publication.ends().await?;
        let gone = town
            .rob
            .expect_presence(ALICE, Some("unavailable"))
            .await
            .with_context(|| town.said())?;
        ensure!(
            gone.attribute("from") == Some("alice@org.example/phone"),
            "{gone:?}"
        );
        // Nobody watches any more, and Kamailio tells nothing more.
        town.rob
            .presence(Some(ALICE), Some("unsubscribe"), "")
            .await?;
        wait::until("no subscription is left", wait::GENEROUS, async || {
            let labels = ["role=\"watcher\"", "state=\"active\""];
            let edge = &town.stage.edge;
            let left = edge.metric("sip_subscriptions", &labels).await.ok()?;
            (left < 0.5).then_some(())
        })
        .await
        .with_context(|| town.said())
    });
}

#[test]
fn sip_49_sip_33_alice_sees_rob_come_and_go_once_he_approves() {
    alone(async {
        let town = Town::start().await?;
        let alice = town.kamailio.register("alice").await?;
        subscribes(&town, &alice, "watches").await?;
        notified(&town, &alice, "pending", "").await?;
        let asked = town.rob.expect_presence(ALICE, Some("subscribe")).await;
        asked.with_context(|| town.said())?;
        town.rob
            .presence(Some(ALICE), Some("subscribed"), "")
            .await?;
        notified(&town, &alice, "active", "").await?;
        notified(&town, &alice, "active", "<tuple id='ID-desk'>").await?;
        let away = "<show>dnd</show><status>in a meeting</status>";
        town.rob.presence(None, None, away).await?;
        let seen = notified(&town, &alice, "active", ">in a meeting</note>").await?;
        ensure!(
            seen.body.contains("<rpid:busy/>") && seen.body.contains(">dnd</show>"),
            "{seen:?}"
        );
        town.rob.presence(None, Some("unavailable"), "").await?;
        notified(&town, &alice, "active", "<basic>closed</basic>").await?;
        Ok(())
    });
}

#[test]
fn sip_36_rob_says_no() {
    alone(async {
        let town = Town::start().await?;
        let alice = town.kamailio.register("alice").await?;
        subscribes(&town, &alice, "watches").await?;
        notified(&town, &alice, "pending", "").await?;
        let asked = town.rob.expect_presence(ALICE, Some("subscribe")).await;
        asked.with_context(|| town.said())?;
        town.rob
            .presence(Some(ALICE), Some("unsubscribed"), "")
            .await?;
        notified(&town, &alice, "terminated;reason=rejected", "").await?;
        Ok(())
    });
}

#[test]
fn sip_39_sip_40_presence_goes_on_after_the_edge_and_after_kamailio_was_killed() {
    alone(async {
        let mut town = Town::start().await?;
        let alice = town.kamailio.register("alice").await?;
        town.rob
            .presence(Some(ALICE), Some("subscribe"), "")
            .await?;
        let approved = town.rob.expect_presence(ALICE, Some("subscribed")).await;
        approved.with_context(|| town.said())?;
        let mut publication = Publication::new(&alice);
        publication.says("before").await?;
        sees(&town, "before").await?;
        // The edge dies, and knows again whom rob watches without his doing.
        town.stage.edge.kill();
        town.stage.edge.launch().await?;
        town.stage.reaches_server().await?;
        publication.says("after the edge").await?;
        sees(&town, "after the edge").await?;
        town.kamailio.kill();
        town.stage.misses_server("tcp").await?;
        town.kamailio.launch().await?;
        let alice = town.kamailio.register("alice").await?;
        let mut publication = Publication::new(&alice);
        publication.says("after Kamailio").await?;
        sees(&town, "after Kamailio").await?;
        Ok(())
    });
}
