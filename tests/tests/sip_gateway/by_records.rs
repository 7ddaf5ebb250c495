//! An `address` without a port: where the SIP servers are, DNS says (RFC 3263).

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    peer::Identity,
    pki::Usage,
    rig::alone,
    sip::{EdgeRoute, Reply, SIP_PORT, SIPS_PORT, SipParty, SipServer},
    wait,
};

use super::{
    kamailio::Town,
    stage::{PARTNER, Stage, StagePlan, message},
};

const HOST: &str = "sip.org.example";
const BY_TLS: &str = "_sips._tcp.sip.org.example";
const BY_TCP: &str = "_sip._tcp.sip.org.example";
const ALICE: &str = "alice@org.example";
const ROB: &str = "sip:rob@partner.example";

fn named() -> StagePlan {
    StagePlan {
        address: Some(HOST),
        ..StagePlan::default()
    }
}

/// The steps of the last attempt at the server, once `holds`.
async fn steps(stage: &Stage, what: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
    let mut last = String::new();
    let found = wait::until(what, wait::GENEROUS, async || {
        let status: Value = stage.edge.status().await.ok()?;
        last = status["gateways"][0]["lastAttempt"].to_string();
        holds(&last).then(|| last.clone())
    });
    let found = found.await;
    found.with_context(|| last)
}

async fn listen(stage: &Stage, at: SocketAddrV4) -> Result<SipServer> {
    SipServer::listen(at.into(), Identity::of(&stage.sip_identity()?)?).await
}

/// A message of the partner's comes to this server, and to no other.
async fn arrives(stage: &Stage, server: &SipServer, id: &str) -> Result<()> {
    let what = format!("{id} has a server");
    let dialled = async || (!server.parties().is_empty()).then_some(());
    let found = wait::until(&what, wait::GENEROUS, dialled).await;
    found.with_context(|| stage.edge.log())?;
    let mut partner = stage.partner().await?;
    let rob = format!("rob@{PARTNER}");
    partner.message(&rob, ALICE, id, id).await?;
    let got = server.party().await?.text(id).await;
    got.map(drop).with_context(|| stage.edge.log())
}

#[test]
fn kamailio_is_found_by_its_srv_record_at_another_port_behind_one_that_refuses() {
    alone(async {
        let stage = Stage::start(named()).await?;
        let kamailio = stage.sip_server_at(15_061);
        let dns = stage.lab.dns();
        dns.host("old.org.example", stage.lab.ip(31));
        dns.host("new.org.example", *kamailio.ip());
        dns.srv(BY_TLS, 1, 0, SIPS_PORT, "old.org.example");
        dns.srv(BY_TLS, 2, 0, kamailio.port(), "new.org.example");
        let route = EdgeRoute::Static(stage.edge_sip());
        let town = Town::start_at(stage, kamailio, route).await?;
        let alice = town.kamailio.register("alice").await?;
        town.works_both_ways(&alice, "found").await?;
        let status = town.stage.edge.status().await?;
        let gateway = &status["gateways"][0];
        ensure!(gateway["address"] == HOST, "{gateway}");
        let mut all = gateway["sip"]["connections"]
            .as_array()
            .into_iter()
            .flatten();
        let at = json!(kamailio.to_string());
        ensure!(all.any(|it| it["address"] == at), "{gateway}");
        let asked = town.stage.lab.dns().asked();
        ensure!(
            asked.iter().all(|(_, kind)| kind.to_string() != "NAPTR"),
            "{asked:?}"
        );
        Ok(())
    });
}

#[test]
fn the_next_target_serves_when_the_first_ends_and_dns_that_changes_is_followed() {
    alone(async {
        let stage = Stage::start(named()).await?;
        let at = |host: u8, port| SocketAddrV4::new(stage.lab.ip(host), port);
        let (one, two, three) = (at(31, 7_001), at(32, 7_002), at(33, SIPS_PORT));
        let dns = stage.lab.dns();
        for (name, server) in [("one", one), ("two", two), (HOST, three)] {
            dns.host(name, *server.ip());
        }
        dns.srv(BY_TLS, 10, 5, one.port(), "one");
        dns.srv(BY_TLS, 20, 5, two.port(), "two");
        let (first, second) = (listen(&stage, one).await?, listen(&stage, two).await?);
        arrives(&stage, &first, "first").await?;
        ensure!(second.connections() == 0, "its turn has not come");
        drop(first);
        arrives(&stage, &second, "second").await?;
        // No records any more: the host itself, at the port that SIP has.
        let third = listen(&stage, three).await?;
        dns.remove(BY_TLS);
        drop(second);
        arrives(&stage, &third, "third").await?;
        let said = steps(&stage, "why it is dialled there", |it| {
            it.contains("no SRV record _sips._tcp.sip.org.example: the host itself on port 5061")
        });
        said.await?;
        Ok(())
    });
}

#[test]
fn a_target_that_takes_the_connection_and_says_nothing_in_tls_leaves_the_turn_to_the_next() {
    alone(async {
        let stage = Stage::start(named()).await?;
        let at = |host: u8, port| SocketAddrV4::new(stage.lab.ip(host), port);
        let (one, two) = (at(31, 7_001), at(32, 7_002));
        // The kernel accepts for it, as for a process that hangs.
        let frozen = TcpListener::bind(one).await?;
        let dns = stage.lab.dns();
        dns.host("one", *one.ip());
        dns.host("two", *two.ip());
        dns.srv(BY_TLS, 10, 5, one.port(), "one");
        dns.srv(BY_TLS, 20, 5, two.port(), "two");
        let healthy = listen(&stage, two).await?;
        arrives(&stage, &healthy, "beside").await?;
        drop(frozen);
        Ok(())
    });
}

#[test]
fn a_target_that_answers_no_options_leaves_the_turn_to_the_next_and_keeps_it_when_that_is_cut() {
    alone(async {
        let stage = Stage::start(StagePlan {
            address: Some(HOST),
            sip: json!({ "transport": "Tcp", "allowPlaintext": true }),
            listeners: json!({ "sipTcp": SIP_PORT }),
            ..StagePlan::default()
        })
        .await?;
        let (one, two) = (stage.lab.ip(31), stage.lab.ip(32));
        let dns = stage.lab.dns();
        dns.host("one.org.example", one);
        dns.host("two.org.example", two);
        dns.srv(BY_TCP, 1, 0, 7_001, "one.org.example");
        dns.srv(BY_TCP, 2, 0, 7_002, "two.org.example");
        let mute = SipServer::listen_plain(SocketAddr::from((one, 7_001))).await?;
        mute.reply(Reply::Nothing);
        let healthy = SipServer::listen_plain(SocketAddr::from((two, 7_002))).await?;
        let mut partner = stage.partner().await?;
        let rob = format!("rob@{PARTNER}");
        // It waits for less than messages may wait.
        partner.message(&rob, ALICE, "first", "first").await?;
        let got = healthy.party().await?.text("first").await;
        got.with_context(|| stage.edge.log())?;
        healthy.cut();
        partner.message(&rob, ALICE, "second", "second").await?;
        let got = healthy.party().await?.text("second").await;
        got.with_context(|| stage.edge.log())?;
        ensure!(
            mute.parties().iter().all(|it| it.request_count() == 0),
            "nothing is asked of who says nothing"
        );
        Ok(())
    });
}

#[test]
fn what_dns_lacks_is_named_with_the_record_and_looked_for_again() {
    alone(async {
        let stage = Stage::start(named()).await?;
        let missing = format!("(SRV {BY_TLS} was asked)");
        let said = steps(&stage, "that nothing is there", |it| {
            it.contains("\"DnsNo") && it.contains(&missing)
        });
        let said = said.await?;
        ensure!(
            said.contains("spec.gateways[].address"),
            "what to do: {said}"
        );
        let dns = stage.lab.dns();
        dns.srv(BY_TLS, 0, 0, 0, ".");
        let nobody = format!("{BY_TLS} says in DNS that no server is there");
        let said = steps(&stage, "that it is not offered", |it| {
            it.contains("ServiceNotOffered") && it.contains(&nobody)
        });
        let said = said.await?;
        ensure!(
            !said.contains("ask the partner"),
            "it is no partner: {said}"
        );
        dns.remove(BY_TLS);
        let server = SocketAddrV4::new(stage.lab.ip(31), 7_001);
        dns.host("one.org.example", *server.ip());
        dns.srv(BY_TLS, 0, 0, server.port(), "one.org.example");
        let server = listen(&stage, server).await?;
        arrives(&stage, &server, "then").await
    });
}

#[test]
fn sip_42_the_certificate_is_for_the_address_and_not_for_whom_dns_names() {
    alone(async {
        let stage = Stage::start(StagePlan {
            trust: json!({ "caConfigMapRef": { "name": "roots", "key": "ca.crt" } }),
            ..named()
        })
        .await?;
        let server = SocketAddrV4::new(stage.lab.ip(31), 7_001);
        let dns = stage.lab.dns();
        dns.host("target.hosting.example", *server.ip());
        dns.srv(BY_TLS, 0, 0, server.port(), "target.hosting.example");
        let issued = |name: &str| {
            Identity::of(
                &stage
                    .lab
                    .authority()
                    .issue(&[name], Usage::ServerAndClientAuth),
            )
        };
        let of_target = issued("target.hosting.example")?;
        let wrong = SipServer::listen(server.into(), of_target.clone()).await?;
        let said = steps(&stage, "that it is another's", |it| {
            it.contains("PeerCertificateName") && it.contains("(SRV _sips._tcp.sip.org.example")
        });
        let said = said.await?;
        for name in ["target.hosting.example", HOST] {
            ensure!(said.contains(name), "{name}: {said}");
        }
        let party = SipParty::dial(stage.edge_sip(), Some(of_target)).await?;
        party.ended().await?;
        drop(wrong);
        stage.misses_server("tcp").await?;
        let of_host = issued(HOST)?;
        let right = SipServer::listen(server.into(), of_host.clone()).await?;
        arrives(&stage, &right, "right").await?;
        let _outside = stage.outside().await?;
        let party = SipParty::dial(stage.edge_sip(), Some(of_host)).await?;
        let answer = party.ask(message(ROB, "known", "known")).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        Ok(())
    });
}

#[test]
fn without_tls_each_target_may_connect_and_nobody_else() {
    alone(async {
        let stage = Stage::start(StagePlan {
            address: Some(HOST),
            sip: json!({ "transport": "Tcp", "allowPlaintext": true }),
            listeners: json!({ "sipTcp": SIP_PORT }),
            ..StagePlan::default()
        })
        .await?;
        let (one, two) = (stage.lab.ip(31), stage.lab.ip(32));
        let dns = stage.lab.dns();
        dns.host("one.org.example", one);
        dns.host("two.org.example", two);
        // Of the host itself it is not said that it is a server.
        dns.host(HOST, stage.lab.ip(33));
        dns.srv(BY_TCP, 1, 0, 7_001, "one.org.example");
        dns.srv(BY_TCP, 2, 0, 7_002, "two.org.example");
        let server = SipServer::listen_plain(SocketAddr::from((one, 7_001))).await?;
        arrives(&stage, &server, "in").await?;
        let _outside = stage.outside().await?;
        for (number, from) in [one, two].into_iter().enumerate() {
            let party = SipParty::dial_plain(stage.edge_sip_tcp(), from.into()).await?;
            let unique = format!("out{number}");
            let answer = party.ask(message(ROB, &unique, &unique)).await?;
            ensure!(answer.code() == Some(200), "{answer:?}");
        }
        let other = SipParty::dial_plain(stage.edge_sip_tcp(), stage.lab.ip(33).into()).await?;
        other.send(message(ROB, "other", "other"));
        other.ended().await
    });
}
