//! From a partner to users of SIP: what is sent, and what their server's answer is there.

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::Peer,
    rig::alone,
    sip::{Reply, SipMessage},
    wait,
};

use super::stage::{PARTNER, Stage, StagePlan};

const ALICE: &str = "alice@org.example";

fn of(code: u16) -> Reply {
    Reply::Code(code, String::new())
}

async fn writes(partner: &mut Peer, id: &str, body: &str) -> Result<()> {
    partner
        .message(&format!("rob@{PARTNER}"), ALICE, id, body)
        .await
}

#[test]
fn sip_09_a_message_is_whole_or_answered_and_never_cut() {
    alone(async {
        let stage = Stage::start(StagePlan {
            sip: json!({ "maxMessageBytes": 2000 }),
            ..StagePlan::default()
        })
        .await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, mut partner) = (server.party().await?, stage.partner().await?);
        let (fits, long) = ("x".repeat(2000), "x".repeat(2001));
        writes(&mut partner, "fits", &fits).await?;
        party.text(&fits).await?;
        writes(&mut partner, "long", &long).await?;
        let error = outside.stanza_id("long").await?;
        ensure!(
            error.error_condition() == Some("policy-violation"),
            "{error:?}"
        );
        writes(&mut partner, "then", "then").await?;
        party.text("then").await?;
        ensure!(server.connections() == 1, "the connection lives");
        Ok(())
    });
}

#[test]
fn sip_10_two_people_s_messages_stay_in_order_and_others_do_not_wait_for_them() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let server = stage.sip_server().await?;
        let (party, mut partner) = (server.party().await?, stage.partner().await?);
        party.reply(Reply::Silence);
        let mut stanzas = String::new();
        for number in 0..3 {
            for user in ["a", "b"] {
                stanzas += &format!(
                    "<message from='{user}@{PARTNER}' to='{ALICE}' type='chat'><body>{user}{number}</body></message>"
                );
            }
        }
        partner.send(stanzas).await?;
        // One of each: the next goes after its answer.
        for number in 0..3 {
            let a = party.text(&format!("a{number}")).await?;
            let b = party.text(&format!("b{number}")).await?;
            ensure!(party.requests().is_empty(), "{:?}", party.requests());
            party.send(a.answer(200, ""));
            party.send(b.answer(200, ""));
        }
        Ok(())
    });
}

#[test]
fn sip_10_a_hundred_messages_each_of_twenty_to_twenty_all_arrive_in_order() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        for number in 0..100 {
            let round: String = (0..20)
                .map(|user| {
                    format!("<message from='r{user}@{PARTNER}' to='u{user}@org.example' type='chat'><body>{number}</body></message>")
                })
                .collect();
            partner.send(round).await?;
        }
        let all = async || {
            let came: usize = server.parties().iter().map(|it| it.request_count()).sum();
            (came == 2_000).then_some(())
        };
        wait::until("all arrive", wait::GENEROUS, all).await?;
        let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        for user in 0..20 {
            let to = format!("MESSAGE sip:u{user}@org.example SIP/2.0");
            // Each is on any of the connections, the next only after its answer: their order is that of the numbers
            // on each.
            let mut came = Vec::new();
            for party in server.parties() {
                let requests = party.requests().into_iter();
                let own: Vec<u32> = requests
                    .filter(|it| it.start == to)
                    .map(|it| it.body.parse())
                    .collect::<Result<_, _>>()?;
                ensure!(own.is_sorted(), "{to}: {own:?}");
                came.extend(own);
            }
            came.sort_unstable();
            let came: Vec<String> = came.iter().map(u32::to_string).collect();
            ensure!(came == expected, "{to}: {came:?}");
        }
        ensure!(outside.stanzas().is_empty(), "{:?}", outside.stanzas());
        Ok(())
    });
}

#[test]
fn sip_11_a_receipt_is_given_for_200_and_not_for_202() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, mut partner) = (server.party().await?, stage.partner().await?);
        for (code, id) in [(202, "kept"), (200, "there")] {
            party.reply(of(code));
            let rob = format!("rob@{PARTNER}/desk");
            let stanza = format!(
                "<message from='{rob}' to='{ALICE}' type='chat' id='{id}'><body>{id}</body><request xmlns='urn:xmpp:receipts'/></message>"
            );
            partner.send(stanza).await?;
            party.text(id).await?;
        }
        let receipt = outside.stanza("a receipt", |it| it.child("received").is_some());
        let receipt = receipt.await?.stanza;
        ensure!(
            receipt.attribute("to") == Some(&format!("rob@{PARTNER}/desk"))
                && receipt.attribute("from") == Some(ALICE)
                && receipt.child("received").and_then(|it| it.attribute("id")) == Some("there"),
            "{receipt:?}"
        );
        let count = outside
            .stanzas()
            .iter()
            .filter(|it| it.stanza.child("received").is_some())
            .count();
        ensure!(count == 1, "the first was answered before the second went");
        Ok(())
    });
}

#[test]
fn sip_14_who_does_not_take_that_somebody_writes_is_not_told_again() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, mut partner) = (server.party().await?, stage.partner().await?);
        party.reply(of(415));
        let composing = format!(
            "<message from='rob@{PARTNER}' to='{ALICE}' type='chat' id='writes'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
        );
        partner.send(composing.clone()).await?;
        let is_state = |it: &SipMessage| it.body.contains("isComposing");
        party.requested("a state", is_state).await?;
        party.reply(of(200));
        partner.send(composing).await?;
        writes(&mut partner, "text", "text").await?;
        party.text("text").await?;
        ensure!(party.requests().is_empty(), "{:?}", party.requests());
        let errors = outside.stanzas();
        ensure!(errors.is_empty(), "no error for a state: {errors:?}");
        Ok(())
    });
}

#[test]
fn sip_19_the_domain_answers_for_itself_and_for_nobody_else() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (_server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        let asks = |id: &str, to: &str, asked: &str| {
            format!("<iq from='rob@{PARTNER}/a' to='{to}' type='get' id='{id}'>{asked}</iq>")
        };
        partner
            .send(asks("ping", "org.example", "<ping xmlns='urn:xmpp:ping'/>"))
            .await?;
        let disco = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        partner.send(asks("disco", "org.example", disco)).await?;
        partner
            .send(asks("version", ALICE, "<query xmlns='jabber:iq:version'/>"))
            .await?;
        let pong = outside.stanza_id("ping").await?;
        ensure!(pong.attribute("type") == Some("result"), "{pong:?}");
        let info = outside.stanza_id("disco").await?;
        let identity = info.child("query").and_then(|it| it.child("identity"));
        ensure!(
            identity.is_some_and(|it| it.attribute("category") == Some("gateway")
                && it.attribute("type") == Some("simple")),
            "{info:?}"
        );
        let error = outside.stanza_id("version").await?;
        ensure!(
            error.error_condition() == Some("service-unavailable"),
            "{error:?}"
        );
        Ok(())
    });
}

#[test]
fn sip_21_each_code_is_an_error_and_strangers_learn_nothing_of_who_exists() {
    alone(async {
        for (partner_type, gone, full) in [
            ("Federated", "item-not-found", "internal-server-error"),
            (
                "PublicVerified",
                "service-unavailable",
                "internal-server-error",
            ),
        ] {
            let stage = Stage::start(StagePlan {
                partner: json!({ "domain": PARTNER, "partnerType": partner_type }),
                ..StagePlan::default()
            })
            .await?;
            let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
            let (party, mut partner) = (server.party().await?, stage.partner().await?);
            for (code, condition) in [(404, gone), (503, full), (488, "not-acceptable")] {
                party.reply(of(code));
                let id = format!("code-{code}");
                writes(&mut partner, &id, &id).await?;
                let error = outside.stanza_id(&id).await?;
                ensure!(
                    error.error_condition() == Some(condition),
                    "{code}: {error:?}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn sip_25_sip_26_nobody_is_dialled_or_logged_in_for_an_answer() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, mut partner) = (server.party().await?, stage.partner().await?);
        party.reply(Reply::Code(
            302,
            "Contact: <sip:alice@127.0.0.1:9>\r\n".to_owned(),
        ));
        writes(&mut partner, "moved", "moved").await?;
        let error = outside.stanza_id("moved").await?;
        ensure!(error.error_condition() == Some("redirect"), "{error:?}");
        party.reply(of(407));
        writes(&mut partner, "login", "login").await?;
        let error = outside.stanza_id("login").await?;
        ensure!(
            error.error_condition() == Some("registration-required"),
            "{error:?}"
        );
        let status = stage.edge.status().await?;
        let steps = status["gateways"][0]["lastAttempt"].to_string();
        ensure!(steps.contains("AuthenticationDemanded"), "{steps}");
        ensure!(party.requests().len() == 2, "{:?}", party.requests());
        Ok(())
    });
}
