//! Gateways beside one another: what one SIP server does, or is told anew, costs the others nothing.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    peer::{Behaviour, Identity, Peer, PeerServer},
    pki::Usage,
    rig::alone,
    servers::S2S_PORT,
    sip::{Reply, SIPS_PORT, SipMessage, SipParty, SipServer, request},
    wait,
};

use super::stage::{OWN, PARTNER, Stage, StagePlan, message};

const ROB: &str = "sip:rob@partner.example";
/// Another own domain, whose server speaks SIP too.
const LAB: &str = "lab.example";
const LAB_HOST: u8 = 31;
/// One whose server speaks XMPP.
const CHAT: &str = "chat.example";
const CHAT_HOST: u8 = 40;

fn plan() -> StagePlan {
    StagePlan {
        others: vec![
            json!({ "name": "lab", "domains": [LAB], "mode": "Sip", "host": LAB_HOST }),
            json!({ "name": "chat", "domains": [CHAT], "host": CHAT_HOST }),
        ],
        ..StagePlan::default()
    }
}

/// The servers of the other domains, with a stream of the partner's to each.
struct Neighbours {
    lab: Arc<SipParty>,
    lab_server: SipServer,
    to_lab: Peer,
    chat: PeerServer,
    to_chat: Peer,
}

impl Neighbours {
    async fn of(stage: &Stage) -> Result<Self> {
        let identity = Identity::of(&stage.edge.gateway_identity(LAB)?)?;
        let at = SocketAddr::from((stage.lab.ip(LAB_HOST), SIPS_PORT));
        let lab_server = SipServer::listen(at, identity).await?;
        let identity = Identity::of(&stage.edge.gateway_identity(CHAT)?)?;
        let at = SocketAddr::from((stage.lab.ip(CHAT_HOST), S2S_PORT));
        let chat = PeerServer::listen(at, Behaviour::good(identity)).await?;
        Ok(Self {
            lab: lab_server.party().await?,
            lab_server,
            to_lab: stage.partner_to(LAB).await?,
            chat,
            to_chat: stage.partner_to(CHAT).await?,
        })
    }

    /// Each has its message, on the connection that it always had.
    async fn are_served(&mut self, id: &str) -> Result<()> {
        let rob = format!("rob@{PARTNER}");
        let carol = format!("carol@{LAB}");
        self.to_lab.message(&rob, &carol, id, id).await?;
        self.lab.text(id).await?;
        ensure!(!self.lab.is_ended() && self.lab_server.connections() == 1);
        let dave = format!("dave@{CHAT}");
        self.to_chat.message(&rob, &dave, id, id).await?;
        self.chat.stanza_id(id).await?;
        Ok(())
    }
}

#[test]
fn sip_43_hostile_sip_leaves_other_gateways_and_xmpp_alone() {
    alone(async {
        let stage = Stage::start(plan()).await?;
        let _server = stage.sip_server().await?;
        let outside = stage.outside().await?;
        let mut others = Neighbours::of(&stage).await?;
        others.are_served("before").await?;
        let whole = message(ROB, "hostile", "hostile");
        let hostile: [Vec<u8>; 5] = [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            whole
                .replace("Content-Length: 7", "Content-Length: 18446744073709551615")
                .into(),
            whole
                .replace(
                    "Content-Type",
                    &format!("X: {}\r\nContent-Type", "x".repeat(5_000)),
                )
                .into(),
            vec![0; 20_000],
            vec![0xff; 20_000],
        ];
        for round in 0..20 {
            let mut parties = Vec::new();
            for bytes in &hostile {
                let party = stage.dial_edge().await?;
                party.send(bytes.clone());
                parties.push(party);
            }
            // Requests that are right as such, as many as it likes, in the name of others.
            let party = stage.dial_edge().await?;
            let text = "Content-Type: text/plain\r\n";
            for number in 0..50 {
                let from = format!("sip:x@{}", if number % 2 == 0 { LAB } else { CHAT });
                let unique = format!("forged-{round}-{number}");
                party.send(request("MESSAGE", &from, ROB, &unique, text, "forged"));
            }
            others.are_served(&format!("meanwhile-{round}")).await?;
            for hostile in parties {
                hostile.ended().await?;
            }
            let answered = async || (party.answer_count() == 50).then_some(());
            wait::until("each forged one is answered", wait::GENEROUS, answered).await?;
            let refused = party.answers().iter().all(|it| it.code() == Some(403));
            ensure!(refused, "{:?}", party.answers());
        }
        let said = outside.transcript();
        ensure!(
            !said.contains("forged") && !said.contains("hostile"),
            "{said}"
        );
        Ok(())
    });
}

/// The partner's user writes `from..to` to alice.
async fn writes(partner: &mut Peer, numbers: std::ops::Range<usize>) -> Result<()> {
    let rob = format!("rob@{PARTNER}");
    for number in numbers {
        let (id, to) = (format!("n{number}"), format!("alice@{OWN}"));
        partner.message(&rob, &to, &id, &id).await?;
    }
    Ok(())
}

/// What the server saw of alice's texts.
#[derive(Default)]
struct Texts {
    /// In their order; what was in flight when its connection ended goes once more, and stands here once.
    came: Vec<String>,
    invites: usize,
    seen: Vec<SipMessage>,
}

impl Texts {
    /// Answers what comes on all connections of the server, INVITE by 488, until `last` came.
    async fn until(&mut self, server: &SipServer, last: &str) -> Result<()> {
        let found = wait::until(last, wait::GENEROUS, async || {
            for party in server.parties() {
                for asked in party.requests() {
                    self.answer(&party, asked);
                }
            }
            (self.came.last().map(String::as_str) == Some(last)).then_some(())
        });
        let found = found.await;
        found.with_context(|| format!("{:?}", self.came))
    }

    fn answer(&mut self, party: &SipParty, asked: SipMessage) {
        // An ACK has the Via of its INVITE.
        let is_same = |it: &SipMessage| it.header("Via") == asked.header("Via");
        if self.seen.iter().any(is_same) {
            return;
        }
        let is_invite = asked.method() == Some("INVITE");
        self.invites += usize::from(is_invite);
        if asked.method() == Some("MESSAGE") && self.came.last() != Some(&asked.body) {
            self.came.push(asked.body.clone());
        }
        party.send(asked.answer(if is_invite { 488 } else { 200 }, ""));
        self.seen.push(asked);
    }
}

#[test]
fn sip_48_dialect_and_server_names_change_under_traffic_and_others_see_nothing() {
    alone(async {
        let stage = Stage::start(StagePlan {
            trust: json!({ "caConfigMapRef": { "name": "roots", "key": "ca.crt" } }),
            ..plan()
        })
        .await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        server.reply(Reply::Silence);
        let mut others = Neighbours::of(&stage).await?;
        let mut partner = stage.partner().await?;
        let edit = |change: &dyn Fn(&mut Value)| {
            stage.edge.edit("EdgePool", "edge", |pool| {
                change(&mut pool["spec"]["gateways"][0]["sip"]);
            })
        };
        others.are_served("before").await?;
        // A dialog of the other server's, which stands all the while.
        let carol = format!("sip:carol@{LAB}");
        let more = "Event: presence\r\nExpires: 600\r\nContact: <sip:carol@10.0.0.1>\r\n";
        let identity = Identity::of(&stage.edge.gateway_identity(LAB)?)?;
        let agent = SipParty::dial(stage.edge_sip(), Some(identity)).await?;
        let watches = request("SUBSCRIBE", &carol, ROB, "watches", more, "");
        let answer = agent.ask(watches).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        let is_notify = |it: &SipMessage| it.method() == Some("NOTIFY");
        others.lab.requested("NOTIFY", is_notify).await?;
        // Written before, while and after the dialect is another.
        let mut texts = Texts::default();
        writes(&mut partner, 0..10).await?;
        texts.until(&server, "n9").await?;
        ensure!(texts.invites == 0, "as the dialect was");
        writes(&mut partner, 10..20).await?;
        edit(&|sip: &mut Value| sip["dialect"] = json!("Lync"))?;
        writes(&mut partner, 20..30).await?;
        texts.until(&server, "n29").await?;
        let anew = async || (server.connections() > 1).then_some(());
        wait::until("the edge dials anew", wait::GENEROUS, anew).await?;
        stage.reaches_server().await?;
        others.are_served("dialect").await?;
        writes(&mut partner, 30..31).await?;
        texts.until(&server, "n30").await?;
        ensure!(texts.invites > 0, "in sessions now");
        let came = texts.came;
        let expected: Vec<_> = (0..31).map(|number| format!("n{number}")).collect();
        ensure!(came == expected, "each, in order: {came:?}");
        // A name that its certificate has.
        let fe = stage
            .lab
            .authority()
            .issue(&["fe-1.corp.example"], Usage::ServerAndClientAuth);
        let fe = Identity::of(&fe)?;
        let unknown = SipParty::dial(stage.edge_sip(), Some(fe.clone())).await?;
        unknown.ended().await?;
        edit(&|sip: &mut Value| sip["serverNames"] = json!(["fe-1.corp.example"]))?;
        let known = wait::until("its name is known", wait::GENEROUS, async || {
            let party = SipParty::dial(stage.edge_sip(), Some(fe.clone()))
                .await
                .ok()?;
            let text = message(ROB, "named", "named");
            party.send(text);
            wait::until("answer or end", wait::GENEROUS, async || {
                (party.is_ended() || party.answers().iter().any(|it| it.code() == Some(200)))
                    .then_some(())
            })
            .await
            .ok()?;
            (!party.is_ended()).then_some(party)
        });
        known.await.with_context(|| stage.edge.log())?;
        edit(&|sip: &mut Value| sip["serverNames"] = json!([]))?;
        wait::until("its name is nobody's again", wait::GENEROUS, async || {
            let party = SipParty::dial(stage.edge_sip(), Some(fe.clone()))
                .await
                .ok()?;
            party.send(message(ROB, "late", "late"));
            wait::until("answer or end", wait::GENEROUS, async || {
                (party.is_ended() || party.answers().iter().any(|it| it.code() == Some(200)))
                    .then_some(())
            })
            .await
            .ok()?;
            party.is_ended().then_some(())
        })
        .await?;
        // The other's dialog is where it was.
        others.are_served("names").await?;
        let tell = format!("<presence from='rob@{PARTNER}' to='carol@{LAB}' type='subscribed'/>");
        others.to_lab.send(tell).await?;
        let active = others.lab.requested("NOTIFY active", |it: &SipMessage| {
            let said = it.header("Subscription-State").unwrap_or_default();
            it.method() == Some("NOTIFY") && said.starts_with("active")
        });
        let active = active.await?;
        ensure!(
            active.header("Call-ID") == answer.header("Call-ID"),
            "{active:?}"
        );
        ensure!(!agent.is_ended(), "its connection stands");
        drop(outside);
        Ok(())
    });
}
