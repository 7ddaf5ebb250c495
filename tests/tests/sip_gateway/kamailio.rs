//! With a real Kamailio and its users inside, and a real Prosody outside.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    client::Client,
    rig::alone,
    servers::{C2S_PORT, Kind, Security, Server},
    sip::{EdgeRoute, Kamailio, SIPS_PORT, SipMessage, request},
    wait,
};

use super::stage::{OWN, PARTNER, Stage, StagePlan};

const PARTNER_HOST: u8 = 50;
const WITH_EVERYTHING: &str = "1 < 2 & \"drei\" – für 東京 \u{1f600}\nzwei Zeilen";

pub struct Town {
    pub kamailio: Kamailio,
    _prosody: Server,
    pub rob: Client,
    pub stage: Stage,
}

impl Town {
    pub async fn start() -> Result<Self> {
        Self::start_as(StagePlan::default()).await
    }

    pub async fn start_as(plan: StagePlan) -> Result<Self> {
        let stage = Stage::start(plan).await?;
        let route = EdgeRoute::Static(stage.edge_sip());
        Self::start_on(stage, route).await
    }

    /// With Kamailio that finds the edge by this route.
    async fn start_on(stage: Stage, route: EdgeRoute) -> Result<Self> {
        let address = stage.sip_server_at(SIPS_PORT);
        Self::start_at(stage, address, route).await
    }

    /// With Kamailio at this address.
    pub async fn start_at(stage: Stage, address: SocketAddrV4, route: EdgeRoute) -> Result<Self> {
        let lab = &stage.lab;
        let kamailio = Kamailio::start(
            OWN,
            address,
            route,
            &stage.sip_identity()?,
            &stage.edge.internal_ca()?,
            lab.directory(),
        )
        .await?;
        let spec = lab.spec(PARTNER, PARTNER_HOST, "rob", Security::Certificates);
        let prosody = Server::start(Kind::Prosody, spec, lab.directory()).await?;
        let c2s = SocketAddr::from((lab.ip(PARTNER_HOST), C2S_PORT));
        let rob = Client::login(c2s, "rob@partner.example", "desk").await?;
        // Who did not ask for the roster hears nothing of subscriptions (RFC 6121 section 2.1.6).
        rob.request(None, "get", "<query xmlns='jabber:iq:roster'/>")
            .await?;
        rob.presence(None, None, "").await?;
        let reached = stage.reaches_server().await;
        reached.with_context(|| kamailio.log())?;
        Ok(Self {
            kamailio,
            _prosody: prosody,
            rob,
            stage,
        })
    }

    pub fn said(&self) -> String {
        format!("{}\n{}", self.stage.edge.log(), self.kamailio.log())
    }

    pub async fn works_both_ways(
        &self,
        alice: &xmpp_edge_tests::sip::SipParty,
        id: &str,
    ) -> Result<()> {
        let body = format!("{id} {WITH_EVERYTHING}");
        self.rob.message("alice@org.example", id, &body).await?;
        let sip_body = body.clone();
        let got = alice.text(&sip_body).await.with_context(|| self.said())?;
        let from = got.header("From").unwrap_or_default();
        ensure!(from.contains("sip:rob@partner.example"), "{got:?}");
        let back = format!("{id}-back");
        let more = "Content-Type: text/plain;charset=UTF-8\r\n";
        let (alice_uri, rob_uri) = ("sip:alice@org.example", "sip:rob@partner.example");
        let answer = alice.ask(request("MESSAGE", alice_uri, rob_uri, &back, more, &body));
        let answer = answer.await.with_context(|| self.said())?;
        ensure!(answer.code() == Some(200), "{answer:?}\n{}", self.said());
        let got = self.rob.expect("alice's text", |stanza| {
            stanza.name == "message" && stanza.child("body").is_some_and(|it| it.text == body)
        });
        let got = got.await?;
        ensure!(
            got.attribute("from") == Some("alice@org.example")
                && got.attribute("type") == Some("chat")
                && got.child("active").is_some(),
            "{got:?}"
        );
        Ok(())
    }
}

#[test]
fn sip_01_sip_02_kamailio_and_prosody_carry_messages_both_ways() {
    alone(async {
        let town = Town::start().await?;
        let alice = town.kamailio.register("alice").await?;
        town.works_both_ways(&alice, "first").await
    });
}

/// RFC 3263, and what of RFC 5922 section 7.3 Kamailio can ask for: decision 41.
async fn finds_edge_by_dns(asks: bool, shown: &str) -> Result<()> {
    let stage = Stage::start(StagePlan {
        listeners: serde_json::json!({ "dns": 53 }),
        settings: serde_json::json!({ "queueTimeoutSeconds": 5 }),
        partner: serde_json::json!({ "domain": PARTNER, "partnerType": "Federated",
            "additionalDomains": ["second.example"] }),
        ..StagePlan::default()
    })
    .await?;
    let SocketAddr::V4(edge) = stage.edge_sip() else {
        unreachable!("a lab is IPv4");
    };
    let resolver = *edge.ip();
    let town = Town::start_on(stage, EdgeRoute::ByDns { resolver, asks }).await?;
    let alice = town.kamailio.register("alice").await?;
    town.works_both_ways(&alice, "found").await?;
    let words = format!("the edge shows {shown}");
    let said = town.kamailio.log();
    ensure!(said.contains(&words), "{words}: {said}");
    // One connection is for all domains of an edge: the next one's name is never shown.
    let (from, to) = ("sip:alice@org.example", "sip:x@second.example");
    let more = "Content-Type: text/plain\r\n";
    let answer = alice.ask(request("MESSAGE", from, to, "second", more, "x"));
    answer.await.with_context(|| town.said())?;
    wait::until("the answer of the edge", wait::GENEROUS, async || {
        (town.kamailio.log().matches(&words).count() >= 2).then_some(())
    })
    .await
    .with_context(|| town.said())?;
    // The Contact of the edge's SUBSCRIBE is a name that the view answers too: NOTIFYs arrive.
    let to = "alice@org.example";
    town.rob.presence(Some(to), Some("subscribe"), "").await?;
    let subscribed = town.rob.expect("the agent's yes", |stanza| {
        stanza.name == "presence" && stanza.attribute("type") == Some("subscribed")
    });
    subscribed.await.with_context(|| town.said())?;
    Ok(())
}

#[test]
fn kamailio_finds_the_edge_by_naptr_and_srv_of_its_dns_view() {
    alone(finds_edge_by_dns(false, "edge.default.xmpp-edge.internal"));
}

#[test]
fn kamailio_that_asks_for_the_partner_s_domain_is_shown_it() {
    alone(finds_edge_by_dns(true, "partner.example"));
}

#[test]
fn sip_12_sip_13_each_side_sees_the_other_writing() {
    alone(async {
        let town = Town::start().await?;
        let alice = town.kamailio.register("alice").await?;
        let states = "http://jabber.org/protocol/chatstates";
        let says = async |state: &str| {
            let to = "alice@org.example";
            let xml =
                format!("<message to='{to}' type='chat'><{state} xmlns='{states}'/></message>");
            town.rob.send(&xml).await
        };
        let sees = async |state: &'static str| {
            let what = format!("{state} in SIP");
            let fits = |it: &SipMessage| it.body.contains(&format!("<state>{state}</state>"));
            alice.requested(&what, fits).await
        };
        says("composing").await?;
        let got = sees("active").await.with_context(|| town.said())?;
        ensure!(
            got.header("Content-Type") == Some("application/im-iscomposing+xml"),
            "{got:?}"
        );
        says("paused").await?;
        sees("idle").await?;
        for (number, (state, seen)) in [("active", "composing"), ("idle", "paused")]
            .into_iter()
            .enumerate()
        {
            let body = format!(
                "<?xml version='1.0'?><isComposing xmlns='urn:ietf:params:xml:ns:im-iscomposing'><state>{state}</state></isComposing>"
            );
            let more = "Content-Type: application/im-iscomposing+xml\r\n";
            let (from, to) = ("sip:alice@org.example", "sip:rob@partner.example");
            let text = request(
                "MESSAGE",
                from,
                to,
                &format!("writing-{number}"),
                more,
                &body,
            );
            let answer = alice.ask(text).await?;
            ensure!(answer.code() == Some(200), "{answer:?}");
            let what = format!("{seen} in XMPP");
            let fits = |stanza: &xmpp_edge_tests::xml::Element| stanza.child(seen).is_some();
            town.rob
                .expect(&what, fits)
                .await
                .with_context(|| town.said())?;
        }
        Ok(())
    });
}

#[test]
fn sip_21_sip_23_a_refusal_says_why_on_both_sides() {
    alone(async {
        let town = Town::start().await?;
        let alice = town.kamailio.register("alice").await?;
        town.rob
            .message("nobody@org.example", "to-nobody", "x")
            .await?;
        let error = town.rob.expect_message("to-nobody").await?;
        ensure!(
            error.attribute("type") == Some("error")
                && error.error_condition() == Some("item-not-found"),
            "{error:?}"
        );
        // To a domain of no partner.
        let more = "Content-Type: text/plain\r\n";
        let to_stranger = request(
            "MESSAGE",
            "sip:alice@org.example",
            "sip:x@stranger.example",
            "stranger",
            more,
            "x",
        );
        let answer = alice.ask(to_stranger).await.with_context(|| town.said())?;
        ensure!(answer.code() == Some(404), "{answer:?}");
        // A user whom a policy allows nothing.
        let bob = town.kamailio.register("bob").await?;
        let from_bob = request(
            "MESSAGE",
            "sip:bob@org.example",
            "sip:rob@partner.example",
            "not-granted",
            more,
            "x",
        );
        let answer = bob.ask(from_bob).await?;
        let warning = answer.header("Warning").unwrap_or_default();
        ensure!(
            answer.code() == Some(403) && warning.starts_with("399 "),
            "{answer:?}"
        );
        Ok(())
    });
}

#[test]
fn sip_16_what_the_server_kept_arrives_late_and_says_when_it_was_written() {
    alone(async {
        let town = Town::start().await?;
        // Nobody is logged in: Kamailio keeps it (202).
        town.rob
            .message("alice@org.example", "kept", "for later")
            .await?;
        wait::until("Kamailio has it", wait::GENEROUS, async || {
            let labels = ["method=\"MESSAGE\"", "code=\"202\""];
            let edge = &town.stage.edge;
            let accepted = edge.metric("sip_requests_total", &labels).await.ok()?;
            (accepted > 0.0).then_some(())
        })
        .await
        .with_context(|| town.said())?;
        let alice = town.kamailio.register("alice").await?;
        let kept = |it: &SipMessage| it.body.ends_with("for later");
        alice
            .requested("what was kept", kept)
            .await
            .with_context(|| town.said())?;
        Ok(())
    });
}

#[test]
fn sip_40_kamailio_and_the_edge_restarted_serve_again_and_lose_nothing() {
    alone(async {
        let mut town = Town::start().await?;
        let alice = town.kamailio.register("alice").await?;
        town.works_both_ways(&alice, "before").await?;
        town.kamailio.kill();
        town.rob
            .message("alice@org.example", "waits", "while it is down")
            .await?;
        town.stage.misses_server("tcp").await?;
        town.kamailio.launch().await?;
        let alice = town.kamailio.register("alice").await?;
        let waited = |it: &SipMessage| it.body.ends_with("while it is down");
        let got = alice.requested("what waited", waited).await;
        got.with_context(|| town.said())?;
        town.works_both_ways(&alice, "after-kamailio").await?;
        town.stage.edge.stop().await?;
        town.stage.edge.launch().await?;
        town.stage.reaches_server().await?;
        town.works_both_ways(&alice, "after-edge").await?;
        Ok(())
    });
}
