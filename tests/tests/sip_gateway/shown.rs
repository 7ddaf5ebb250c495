//! What an administrator sees of a SIP server: `/status`, metrics, and `/explain` by its addresses.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    browser::Browser,
    peer::Identity,
    pki::{Authority, Usage},
    prometheus::{Prometheus, files, queries},
    rig::alone,
    sip::{Reply, SipParty},
    wait,
};

use super::stage::{OWN, PARTNER, Stage, StagePlan, message};

const ALICE: &str = "alice@org.example";
const ROB: &str = "rob@partner.example";

async fn gateway(stage: &Stage) -> Result<Value> {
    let mut status = stage.edge.status().await?;
    Ok(status["gateways"][0].take())
}

/// Waits until the gateway is as `holds` says.
async fn until(stage: &Stage, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = wait::until(what, wait::GENEROUS, async || {
        last = gateway(stage).await.ok()?;
        holds(&last).then(|| last.clone())
    });
    let found = found.await;
    found.with_context(|| last.to_string())
}

/// The newest step of the server in this direction.
fn newest<'a>(gateway: &'a Value, direction: &str) -> Option<&'a str> {
    let mut steps = gateway["lastAttempt"].as_array()?.iter();
    let is_own = |step: &&Value| step["step"] == "sip" && step["direction"] == direction;
    steps.rfind(is_own)?["outcome"].as_str()
}

#[test]
fn a_sip_server_is_shown_with_its_connections_subscriptions_and_last_answer() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let away = gateway(&stage).await?;
        ensure!(away["mode"] == "Sip", "{away}");
        ensure!(away["sip"]["connectionCount"] == 0, "{away}");
        ensure!(away["sip"]["dialect"] == "Simple", "{away}");
        ensure!(away["sip"]["sessions"] == 0, "{away}");
        ensure!(away["sip"]["lastAnswerTime"].is_null(), "{away}");
        let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
        server.party().await?;
        let mut own = Vec::new();
        for _ in 0..20 {
            own.push(stage.dial_edge().await?);
        }
        let all = until(&stage, "all connections are counted", |it| {
            it["sip"]["connectionCount"] == 21
        });
        let shown = all.await?;
        let connections = shown["sip"]["connections"].as_array().context("a list")?;
        ensure!(connections.len() == 16, "{shown}");
        let first = &connections[0];
        ensure!(first["direction"] == "Inbound", "{first}");
        ensure!(first["address"] == json!(stage.sip_address().to_string()));
        ensure!(connections[1]["direction"] == "Outbound", "{shown}");
        for connection in connections {
            ensure!(connection["tlsVersion"] == "TLSv1.3", "{connection}");
            for name in ["tlsCipher", "peerCertificateNotAfter", "establishedTime"] {
                ensure!(connection[name].is_string(), "{name}: {connection}");
            }
        }
        ensure!(shown["sip"]["lastAnswerTime"].is_string(), "{shown}");
        for (direction, count) in [("inbound", 1.0), ("outbound", 20.0)] {
            let labels = [
                "gateway=\"org.example\"",
                &format!("direction=\"{direction}\""),
            ];
            let found = stage.edge.metric("sip_connections", &labels).await?;
            ensure!((found - count).abs() < 0.5, "{direction}: {found}");
        }
        let stanza = format!("<presence from='{ROB}' to='{ALICE}' type='subscribe'/>");
        partner.send(stanza).await?;
        let asked = |it: &Value| it["sip"]["watching"] == 1 && it["sip"]["pending"] == 1;
        until(&stage, "a subscription is shown", asked).await?;
        ensure!(gateway(&stage).await?["sip"]["watched"] == 0);
        drop(own);
        server.cut();
        let alone = |it: &Value| it["sip"]["connectionCount"] == 1;
        until(&stage, "what ended is not shown", alone).await?;
        let labels = ["direction=\"inbound\"", "method=\"OPTIONS\""];
        let took = stage.edge.metric("sip_request_seconds_count", &labels);
        ensure!(took.await? >= 2.0, "each connection began with OPTIONS");
        Ok(())
    });
}

#[test]
fn what_a_reached_server_refuses_is_shown_until_it_takes_it() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, mut partner) = (server.party().await?, stage.partner().await?);
        party.reply(Reply::Code(407, String::new()));
        for id in ["login", "again"] {
            partner.message(ROB, ALICE, id, id).await?;
            outside.stanza_id(id).await?;
        }
        let shown = gateway(&stage).await?;
        let outcome = newest(&shown, "inbound");
        ensure!(outcome == Some("AuthenticationDemanded"), "{shown}");
        ensure!(shown["reachable"] == json!(true), "{shown}");
        let steps = shown["lastAttempt"].to_string();
        let count = steps.matches("\"AuthenticationDemanded\"").count();
        ensure!(count == 1, "once for as long as it holds: {steps}");
        ensure!(steps.contains("let it trust the edge"), "{steps}");
        party.reply(Reply::Code(200, String::new()));
        partner.message(ROB, ALICE, "taken", "taken").await?;
        until(&stage, "it holds no more", |it| {
            newest(it, "inbound") == Some("Ok")
        })
        .await?;
        Ok(())
    });
}

#[test]
fn who_is_not_the_server_is_shown_until_the_server_comes() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let other = Authority::new("Nobody's Root");
        let forged = Identity::of(&other.issue(&["other.example"], Usage::ServerAndClientAuth))?;
        for _ in 0..3 {
            let party = SipParty::dial(stage.edge_sip(), Some(forged.clone())).await?;
            party.ended().await?;
        }
        // Who has no certificate is anybody.
        let nobody = SipParty::dial(stage.edge_sip(), None).await?;
        nobody.ended().await?;
        let shown = gateway(&stage).await?;
        ensure!(
            newest(&shown, "outbound") == Some("UnknownServer"),
            "{shown}"
        );
        let steps = shown["lastAttempt"].to_string();
        ensure!(steps.matches("\"UnknownServer\"").count() == 1, "{steps}");
        ensure!(
            steps.contains("other.example"),
            "it names who came: {steps}"
        );
        ensure!(shown["reachable"] == json!(true), "{shown}");
        let _own = stage.dial_edge().await?;
        until(&stage, "the server itself came", |it| {
            newest(it, "outbound") == Some("Ok")
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_server_that_gives_no_answer_is_shown_as_such() {
    alone(async {
        let stage = Stage::start(StagePlan {
            settings: json!({ "queueTimeoutSeconds": 5 }),
            ..StagePlan::default()
        })
        .await?;
        let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
        server.party().await?;
        server.reply(Reply::Nothing);
        partner.message(ROB, ALICE, "mute", "mute").await?;
        let shown = until(&stage, "its silence is noted", |it| {
            newest(it, "inbound") == Some("OptionsTimeout")
        });
        ensure!(shown.await?["reachable"] == json!(false));
        Ok(())
    });
}

#[test]
fn explain_takes_addresses_of_sip_and_names_the_jid() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let path = format!("/explain?from=sip:o%27malley@{OWN};transport=tls&to=im:rob@{PARTNER}");
        let (code, text) = stage.edge.get(&path).await?;
        let found: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(code == 200 && found["reason"].is_null(), "{found}");
        ensure!(found["from"] == r"o\27malley@org.example", "{found}");
        ensure!(found["to"] == ROB, "{found}");
        let path = format!("/explain?from=sips:alice@{OWN}&to={ROB}");
        let (code, text) = stage.edge.get(&path).await?;
        ensure!(code == 400 && text.contains("416"), "{code} {text}");
        Ok(())
    });
}

#[test]
fn every_panel_of_sip_has_data_and_no_alert_fires_while_all_is_well() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (alice, mut partner) = (stage.dial_edge().await?, stage.partner().await?);
        server.party().await?;
        let stanza = format!("<presence from='{ROB}' to='{ALICE}' type='subscribe'/>");
        partner.send(stanza).await?;
        let edge = SocketAddr::from((stage.edge.place().internal_bind, 9090));
        let labels = json!({ "namespace": "chat", "pool": "edge", "pod": "edge-0" });
        let job = json!({ "job_name": "proxy", "static_configs":
            [{ "targets": [edge.to_string()], "labels": labels }] });
        let at = SocketAddr::from((stage.lab.ip(90), 9090));
        let rules = files().join("rules/alerts.yaml");
        let prometheus = Prometheus::start(stage.lab.directory(), at, &rules, &[job]).await?;
        let panels = queries().into_iter();
        let panels: Vec<_> = panels
            .filter(|(_, query)| query.contains("xmpp_edge_sip_"))
            .collect();
        ensure!(panels.len() >= 5, "{panels:?}");
        let mut number = 0;
        let mut without = Vec::new();
        let seen = wait::until("every panel has data", wait::GENEROUS, async || {
            number += 1;
            let id = format!("id-{number}");
            partner.message(ROB, ALICE, &id, "hi").await.ok()?;
            // Presence that nobody watches means nothing there.
            let nobody = format!("<presence from='{ROB}' to='{ALICE}'/>");
            partner.send(nobody).await.ok()?;
            let answer = alice.ask(message(&format!("sip:{ROB}"), &id, "hi")).await;
            (answer.ok()?.code() == Some(200)).then_some(())?;
            without.clear();
            for (panel, query) in &panels {
                if prometheus.query(query).await.ok()?.is_empty() {
                    without.push(panel.clone());
                }
            }
            without.is_empty().then_some(())
        });
        seen.await
            .with_context(|| format!("no data for {without:#?}\n{}", prometheus.tail()))?;
        drop(outside);
        prometheus.rules_are_evaluated().await
    });
}

#[test]
fn the_page_shows_a_sip_server_and_what_it_is_connected_by() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let _server = stage.sip_server().await?;
        let _own = stage.dial_edge().await?;
        let mut browser = Browser::start().await?;
        let address = stage.edge.place().internal_bind;
        browser.open(&format!("http://{address}:9090/")).await?;
        let told = "document.getElementById('gateways').textContent";
        let shown = browser
            .until(&format!("{told}.includes('outbound') && {told}"))
            .await?;
        let shown = shown.as_str().context("a text")?;
        for words in [
            "org.example",
            "reachable",
            "DialectSimple",
            "Last answer",
            "0 watched here for partners",
            "SIP connections",
            "TLSv1.3",
            &stage.sip_address().to_string(),
        ] {
            ensure!(shown.contains(words), "{words} is missing: {shown}");
        }
        let complaints = browser.complaints();
        ensure!(complaints.is_empty(), "{complaints:?}");
        Ok(())
    });
}
