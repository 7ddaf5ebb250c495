//! Settings of a gateway that are edited while much is under way.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::{Command, Peer, PeerServer},
    rig::alone,
    sip::{Reply, SipMessage, request},
    wait,
    xml::Element,
};

use super::stage::{PARTNER, Stage, StagePlan, message};

const ALICE: &str = "alice@org.example";
const ROB: &str = "sip:rob@partner.example";

/// Another link has the gateway from here on.
fn edit(stage: &Stage) -> Result<()> {
    stage.edge.edit("EdgePool", "edge", |pool| {
        pool["spec"]["gateways"][0]["sip"] = json!({ "maxMessageBytes": 1300 });
    })
}

/// The partner refuses the message with this body, once it is there.
async fn refuses(outside: &PeerServer, partner: &mut Peer, body: &str) -> Result<()> {
    let fits = |it: &Element| it.child("body").is_some_and(|it| it.text == body);
    let got = outside.stanza(body, fits).await?.stanza;
    let id = got.attribute("id").context("an id")?;
    let error = format!(
        "<message from='rob@{PARTNER}' to='{ALICE}' type='error' id='{id}'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    );
    partner.send(error).await
}

#[test]
fn sip_48_an_edit_refuses_nothing_and_what_waits_has_its_code_on_the_connection_that_it_came_on() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (first, alice) = (server.party().await?, stage.dial_edge().await?);
        let answer = alice.ask(message(ROB, "before", "before")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        // The partner takes nothing: the edge has it and cannot say yet that it arrived.
        let connection = outside.last_connection();
        outside.freeze(connection).await?;
        alice.send(message(ROB, "held", "held"));
        edit(&stage)?;
        wait::until("the edge dials anew", wait::GENEROUS, async || {
            (server.connections() > 1).then_some(())
        })
        .await?;
        alice.send(message(ROB, "during", "during"));
        let long = "x".repeat(1301);
        let answer = alice.ask(message(ROB, "long", &long)).await?;
        ensure!(answer.code() == Some(413), "it is in force: {answer:?}");
        // What the link before asks of the server has its time.
        first.ended().await?;
        outside.tell(connection, Command::Thaw);
        for unique in ["held", "during"] {
            let answer = alice.answered(&format!("{unique}@sip.org.example")).await?;
            ensure!(answer.code() == Some(200), "{unique}: {answer:?}");
        }
        let answer = alice.ask(message(ROB, "after", "after")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        ensure!(!alice.is_ended(), "the connection stands");
        Ok(())
    });
}

#[test]
fn sip_48_an_error_finds_the_request_that_it_answers_over_an_edit() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (first, alice) = (server.party().await?, stage.dial_edge().await?);
        let answer = alice.ask(message(ROB, "before", "before")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        let connection = outside.last_connection();
        outside.freeze(connection).await?;
        alice.send(message(ROB, "refused", "refused"));
        edit(&stage)?;
        first.ended().await?;
        // The route of what comes back is the new link's.
        let mut partner = stage.partner().await?;
        outside.tell(connection, Command::Thaw);
        refuses(&outside, &mut partner, "refused").await?;
        let answer = alice.answered("refused@sip.org.example").await?;
        ensure!(answer.code() == Some(480), "{answer:?}");
        Ok(())
    });
}

#[test]
fn sip_48_what_comes_for_the_new_link_finds_it_while_the_one_before_has_a_message_in_work() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (first, alice) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        // A phone that is off: the route of all that the partner says is the first link's meanwhile.
        first.reply(Reply::Silence);
        let rob = format!("rob@{PARTNER}");
        partner.message(&rob, ALICE, "busy", "busy").await?;
        first.text("busy").await?;
        edit(&stage)?;
        wait::until("the edge dials anew", wait::GENEROUS, async || {
            (server.connections() > 1).then_some(())
        })
        .await?;
        let second = server.party().await?;
        alice.send(message(ROB, "new", "new"));
        refuses(&outside, &mut partner, "new").await?;
        let answer = alice.answered("new@sip.org.example").await?;
        ensure!(answer.code() == Some(480), "{answer:?}");
        let more = "Event: presence\r\nExpires: 600\r\nContact: <sip:alice@10.0.0.1>\r\n";
        let from = format!("sip:{ALICE}");
        let watches = request("SUBSCRIBE", &from, ROB, "watches", more, "");
        let answer = alice.ask(watches).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        let is_asked = |it: &Element| it.attribute("type") == Some("subscribe");
        outside.stanza("subscribe", is_asked).await?;
        let yes = format!("<presence from='{rob}' to='{ALICE}' type='subscribed'/>");
        partner.send(yes).await?;
        let is_active = |it: &SipMessage| {
            let state = it.header("Subscription-State").unwrap_or_default();
            state.starts_with("active")
        };
        let notified = second.requested("NOTIFY active", is_active).await;
        notified.map(drop).with_context(|| stage.edge.log())
    });
}
