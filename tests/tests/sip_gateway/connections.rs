//! How many connections the edge opens to its SIP server, and what goes on which.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    edge::manifest,
    peer::{Login, Peer},
    pki::Usage,
    rig::alone,
    sip::{Reply, SipMessage, SipParty, SipServer},
    wait,
};

use super::stage::{OWN, PARTNER, Stage, StagePlan};

const ALICE: &str = "alice@org.example";
/// Another partner's domain.
const OTHER: &str = "other.example";

/// So many users of the partner write so many messages each: `user.number`.
async fn write(partner: &mut Peer, users: usize, messages: usize) -> Result<()> {
    let mut stanzas = String::new();
    for number in 0..messages {
        for user in 0..users {
            stanzas += &format!(
                "<message from='u{user}@{PARTNER}' to='{ALICE}' type='chat'><body>{user}.{number}</body></message>"
            );
        }
    }
    partner.send(stanzas).await
}

/// What is on each connection and was not taken, once `fits`.
async fn asked(
    server: &SipServer,
    what: &str,
    fits: impl Fn(&[Vec<SipMessage>]) -> bool,
) -> Result<Vec<(Arc<SipParty>, Vec<SipMessage>)>> {
    wait::until(what, wait::GENEROUS, async || {
        let parties = server.parties();
        let asked: Vec<_> = parties.iter().map(|it| it.requests()).collect();
        fits(&asked).then(|| parties.into_iter().zip(asked).collect())
    })
    .await
}

/// Answers whatever comes on all connections by the code that it gets, and says what came until so many did.
async fn answer_each(
    server: &SipServer,
    count: usize,
    code: impl Fn(&SipMessage) -> u16,
) -> Result<Vec<SipMessage>> {
    let mut came = Vec::new();
    while came.len() < count {
        let some = |asked: &[Vec<SipMessage>]| asked.iter().any(|it| !it.is_empty());
        for (party, requests) in asked(server, "more comes", some).await? {
            for request in requests {
                let own = |it: &SipMessage| it.header("Call-ID") == request.header("Call-ID");
                party.requested("what came", own).await?;
                party.send(request.answer(code(&request), ""));
                came.push(request);
            }
        }
    }
    Ok(came)
}

/// Answers whatever comes on all connections, and says what came by user, in order, until so many came.
async fn answer_all(server: &SipServer, count: usize) -> Result<BTreeMap<String, Vec<String>>> {
    let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in answer_each(server, count, |_| 200).await? {
        let (user, number) = request.body.split_once('.').unwrap_or_default();
        let of_user = came.entry(user.to_owned()).or_default();
        of_user.push(number.to_owned());
    }
    Ok(came)
}

#[test]
fn while_much_waits_there_are_up_to_four_connections_and_each_two_people_stay_in_order() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
        server.reply(Reply::Silence);
        write(&mut partner, 64, 1).await?;
        let full = |asked: &[Vec<SipMessage>]| asked.iter().map(Vec::len).sum::<usize>() == 64;
        asked(&server, "as many as go on one", full).await?;
        ensure!(
            server.connections() == 1,
            "{} connections",
            server.connections()
        );
        // Of these 64 nothing more goes; of the others so much waits that each connection gets its share.
        write(&mut partner, 400, 2).await?;
        let all_full = |asked: &[Vec<SipMessage>]| asked.iter().map(Vec::len).eq([64; 4]);
        asked(&server, "four connections, each with its share", all_full).await?;
        let came = answer_all(&server, 64 + 800).await?;
        ensure!(
            server.connections() == 4,
            "{} connections",
            server.connections()
        );
        for (user, numbers) in came {
            let before = user.parse::<usize>()? < 64;
            let expected: &[&str] = if before {
                &["0", "0", "1"]
            } else {
                &["0", "1"]
            };
            ensure!(numbers == expected, "{user}: {numbers:?}");
        }
        Ok(())
    });
}

#[test]
fn sip_40_what_was_on_one_of_several_goes_once_more_on_the_others_in_order() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        server.reply(Reply::Silence);
        write(&mut partner, 200, 2).await?;
        let several = |asked: &[Vec<SipMessage>]| asked.iter().map(Vec::len).eq([64; 3]);
        let before = asked(&server, "several connections", several).await?;
        // The first carries presence and answers, too.
        let (first, _) = before.into_iter().next().context("three connections")?;
        server.cut_one(first);
        let came = answer_all(&server, 400).await?;
        ensure!(came.len() == 200, "{}", came.len());
        for (user, numbers) in came {
            ensure!(numbers == ["0", "1"], "{user}: {numbers:?}");
        }
        ensure!(
            outside.stanzas().is_empty(),
            "nobody hears of it: {:?}",
            outside.stanzas()
        );
        let status = stage.edge.status().await?;
        ensure!(status["gateways"][0]["reachable"] == true, "{status}");
        Ok(())
    });
}

#[test]
fn sip_40_what_goes_once_more_is_the_same_request_and_482_to_it_says_that_it_was_there() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        server.reply(Reply::Silence);
        write(&mut partner, 200, 1).await?;
        let several = |asked: &[Vec<SipMessage>]| asked.iter().map(Vec::len).eq([64; 3]);
        let before = asked(&server, "several connections", several).await?;
        let (first, lost) = before.into_iter().next().context("three connections")?;
        server.cut_one(first);
        let name = |it: &SipMessage| {
            let header = |name: &str| it.header(name).unwrap_or_default().to_owned();
            (it.body.clone(), header("Call-ID"), header("From"))
        };
        let names: Vec<_> = lost.iter().map(name).collect();
        let is_again = |it: &SipMessage| names.contains(&name(it));
        let code = |it: &SipMessage| if is_again(it) { 482 } else { 200 };
        let came = answer_each(&server, 200, code).await?;
        let again: Vec<_> = came.iter().filter(|it| is_again(it)).collect();
        ensure!(again.len() == 64, "{} again", again.len());
        let vias: Vec<_> = lost.iter().map(|it| it.header("Via")).collect();
        for request in again {
            let via = request.header("Via");
            ensure!(!vias.contains(&via), "another branch: {request:?}");
        }
        partner
            .message(&format!("rob@{PARTNER}"), ALICE, "last", "200.last")
            .await?;
        let last = answer_each(&server, 1, |_| 482).await?;
        let error = outside.stanza_id("last").await?;
        ensure!(
            error.error_condition() == Some("not-acceptable"),
            "a loop is one: {last:?} {error:?}"
        );
        ensure!(outside.stanzas().len() <= 1, "{:?}", outside.stanzas());
        Ok(())
    });
}

#[test]
fn sip_40_a_loop_that_a_message_finds_on_its_second_connection_is_an_error() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        server.reply(Reply::Silence);
        let rob = format!("rob@{PARTNER}");
        partner.message(&rob, ALICE, "loop", "200.loop").await?;
        server.party().await?.text("200.loop").await?;
        server.cut();
        let second = server.party().await?;
        let again = second.text("200.loop").await?;
        second.send(again.answer(482, ""));
        let error = outside.stanza_id("loop").await?;
        ensure!(
            error.error_condition() == Some("not-acceptable"),
            "{error:?}"
        );
        Ok(())
    });
}

#[test]
fn a_partner_whose_users_phones_are_dead_keeps_no_other_partner_waiting() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        let spec = json!({ "domain": OTHER, "partnerType": "Federated" });
        let other = manifest("XmppFederatedPartner", "other", spec);
        stage.edge.apply(&other)?;
        let identity = stage.lab.authority().issue(&[OTHER], Usage::ServerAuth);
        let login = Login::External(&identity);
        let dialled = async || {
            let peer = Peer::login(stage.edge_xmpp(), OTHER, OWN, &login).await;
            peer.ok()
        };
        let mut other = wait::until("it is a partner", wait::GENEROUS, dialled).await?;
        server.reply(Reply::Silence);
        write(&mut partner, 400, 1).await?;
        let full = |asked: &[Vec<SipMessage>]| asked.iter().map(Vec::len).eq([64; 4]);
        asked(&server, "as much as one partner may have in work", full).await?;
        let rob = format!("rob@{OTHER}");
        other.message(&rob, ALICE, "other", "other").await?;
        let has = |asked: &[Vec<SipMessage>]| asked.iter().flatten().any(|it| it.body == "other");
        asked(&server, "the other's message", has).await?;
        // Nothing of the first has been given up for it.
        ensure!(
            outside.stanzas().is_empty(),
            "it waited: {:?}",
            outside.stanzas()
        );
        Ok(())
    });
}
