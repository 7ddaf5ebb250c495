//! What a message between XMPP and SIP costs, each way, beside a Kamailio that relays the same MESSAGE: they take turns.
//! And what a watched user of SIP takes.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use xmpp_edge_tests::{
    edge::{Edge, Place, manifest, texts},
    lab::Lab,
    peer::{Behaviour, Identity, Login, Peer, PeerServer},
    pki::{Leaf, Usage},
    servers::S2S_PORT,
    sip::{EDGE_NAME, EdgeRoute, Kamailio, SIPS_PORT, SipMessage, SipParty, SipServer, request},
    wait,
};

use crate::{
    figures::{median, micros},
    report::Table,
};

/// Messages of a run.
const MESSAGES: usize = 10_000;
/// Pairs of people who write: one message of each is in work at a time.
const PEOPLE: usize = 1_000;
/// Users of SIP whom somebody watches.
const WATCHED: usize = 5_000;
const RUNS: usize = 3;
/// Requests that wait for an answer: what the edge takes at a time from a server, and less.
const WINDOW: usize = 256;
/// What all messages of a run may take.
const LIMIT: Duration = Duration::from_secs(60);

const OWN: &str = "org.example";
const PARTNER: &str = "partner.example";
const FQDN: &str = "edge.example";

/// An edge between a partner and a scripted SIP server.
struct Bridge {
    edge: Edge,
    server: SipServer,
    outside: PeerServer,
    partner: Peer,
    identity: Leaf,
    lab: Lab,
}

pub async fn tables() -> Result<()> {
    let (mut inwards, mut outwards, mut relays) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        relays.push(relayed().await?);
        let mut bridge = Bridge::start().await?;
        inwards.push(bridge.inwards().await?);
        outwards.push(bridge.outwards().await?);
    }
    let relay = median(relays.iter().copied());
    let head = ["saturated, a message", "CPU", "beside Kamailio"];
    let mut table = Table::new("sip", 1, &head);
    for (what, runs) in [
        ("Kamailio, MESSAGE from TLS to a registered user", &relays),
        ("edge, from a partner to the SIP server", &inwards),
        ("edge, from the SIP server to a partner", &outwards),
    ] {
        let cpu = median(runs.iter().copied());
        let beside = format!("{:.2}", cpu / relay);
        table.row(&[what.into(), format!("{cpu:.1} µs"), beside]);
    }
    table.end()?;
    presence().await
}

async fn presence() -> Result<()> {
    let mut bridge = Bridge::start().await?;
    let bytes = bridge.watched().await?;
    let mut table = Table::new(
        "sip-presence",
        1,
        &["a watched user of SIP", "memory", "goal"],
    );
    table.row(&[
        format!("one of {WATCHED}, one device each"),
        format!("{:.2} KiB", bytes / 1_024.0),
        "2 KiB".into(),
    ]);
    table.end()
}

/// Microseconds of all of Kamailio's processes for one MESSAGE that it relays.
async fn relayed() -> Result<f64> {
    let lab = Lab::new().await?;
    let directory = TempDir::new()?;
    let authority = lab.authority();
    let kamailio = Kamailio::start(
        OWN,
        SocketAddrV4::new(lab.ip(30), SIPS_PORT),
        EdgeRoute::Static((lab.ip(21), SIPS_PORT).into()),
        &authority.issue(&[OWN], Usage::ServerAndClientAuth),
        &authority.certificate(),
        directory.path(),
    )
    .await?;
    let alice = kamailio.register("alice").await?;
    let edge = authority.issue(&[EDGE_NAME], Usage::ServerAndClientAuth);
    let address = SocketAddr::from((lab.ip(30), SIPS_PORT));
    let sender = SipParty::dial(address, Some(Identity::of(&edge)?)).await?;
    let before = kamailio.cpu();
    let sent = send_all(&sender, |number| {
        let (from, unique) = (
            format!("sip:r{}@{PARTNER}", number % PEOPLE),
            format!("k{number}"),
        );
        message(&from, "sip:alice@org.example", &unique)
    })
    .await;
    sent.with_context(|| format!("{} {}", alice.request_count(), kamailio.log()))?;
    let cpu = kamailio.cpu().saturating_sub(before);
    ensure!(
        alice.request_count() == MESSAGES,
        "{} arrived",
        alice.request_count()
    );
    Ok(micros(cpu, MESSAGES as u64))
}

fn message(from: &str, to: &str, unique: &str) -> String {
    let more = "Content-Type: text/plain;charset=UTF-8\r\n";
    request(
        "MESSAGE",
        from,
        to,
        unique,
        more,
        "A line of chat, as people write them.",
    )
}

/// All messages, at most [`WINDOW`] of them without an answer; completes with the last answer.
async fn send_all(party: &SipParty, text: impl Fn(usize) -> String) -> Result<()> {
    let mut sent = 0;
    while sent < MESSAGES {
        let room = (party.answer_count() + WINDOW)
            .saturating_sub(sent)
            .min(MESSAGES - sent);
        for number in sent..sent + room {
            party.send(text(number));
        }
        sent += room;
        let (least, what) = ((sent + 1).saturating_sub(WINDOW), "an answer");
        wait::until(what, LIMIT, async || {
            (party.answer_count() >= least).then_some(())
        })
        .await?;
    }
    wait::until("the last answer", LIMIT, async || {
        (party.answer_count() >= MESSAGES).then_some(())
    })
    .await?;
    let answers = party.answers();
    let refused = answers.iter().find(|it| it.code() != Some(200));
    ensure!(refused.is_none(), "{refused:?}");
    Ok(())
}

impl Bridge {
    async fn start() -> Result<Self> {
        let lab = Lab::new().await?;
        let place = Place::in_lab(&lab, 20, 21);
        lab.dns().host(FQDN, place.bind);
        lab.dns().xmpp_server(OWN, 0, 0, S2S_PORT, FQDN);
        let target = format!("xmpp.{PARTNER}");
        lab.dns().host(&target, lab.ip(50));
        lab.dns().xmpp_server(PARTNER, 0, 0, S2S_PORT, &target);
        let public = place.bind;
        let edge = Edge::start(place, &manifests(&lab)).await?;
        let identity = edge.gateway_identity(OWN)?;
        let at = SocketAddr::from((lab.ip(30), SIPS_PORT));
        let server = SipServer::listen(at, Identity::of(&identity)?).await?;
        let reached = wait::until(
            "the edge reaches the SIP server",
            wait::GENEROUS,
            async || {
                let status = edge.status().await.ok()?;
                (status["gateways"][0]["reachable"] == json!(true)).then_some(())
            },
        );
        reached.await.with_context(|| edge.log())?;
        let leaf = lab.authority().issue(&[PARTNER], Usage::ServerAuth);
        let at = SocketAddr::from((lab.ip(50), S2S_PORT));
        let outside = PeerServer::listen(at, Behaviour::good(Identity::of(&leaf)?)).await?;
        let at = SocketAddr::from((public, S2S_PORT));
        let partner = Peer::login(at, PARTNER, OWN, &Login::External(&leaf)).await?;
        Ok(Self {
            edge,
            server,
            outside,
            partner,
            identity,
            lab,
        })
    }

    /// Microseconds of the edge for one message from the partner.
    async fn inwards(&mut self) -> Result<f64> {
        let before = self.edge.cpu();
        let write = |number: usize| {
            let who = number % PEOPLE;
            format!(
                "<message from='r{who}@{PARTNER}/desk' to='u{who}@{OWN}' type='chat' id='m{number}'>\
                 <body>A line of chat, as people write them.</body></message>"
            )
        };
        for block in 0..MESSAGES / 100 {
            let stanzas: String = (block * 100..(block + 1) * 100).map(write).collect();
            self.partner.send(stanzas).await?;
            // What waits for longer than stanzas may is answered: the next of each pair is not far behind.
            self.arrived((block * 100).saturating_sub(PEOPLE)).await?;
        }
        self.arrived(MESSAGES).await?;
        Ok(micros(
            self.edge.cpu().saturating_sub(before),
            MESSAGES as u64,
        ))
    }

    /// Waits until so many messages are with the SIP server.
    async fn arrived(&self, least: usize) -> Result<()> {
        wait::until("messages arrive", LIMIT, async || {
            let parties = self.server.parties();
            let count: usize = parties.iter().map(|it| it.request_count()).sum();
            (count >= least).then_some(())
        })
        .await
    }

    /// The same for one message to the partner.
    async fn outwards(&mut self) -> Result<f64> {
        let at = SocketAddr::from((self.lab.ip(21), SIPS_PORT));
        let sender = SipParty::dial(at, Some(Identity::of(&self.identity)?)).await?;
        let before = self.edge.cpu();
        send_all(&sender, |number| {
            let who = number % PEOPLE;
            let (from, to) = (format!("sip:u{who}@{OWN}"), format!("sip:r{who}@{PARTNER}"));
            message(&from, &to, &format!("o{number}"))
        })
        .await?;
        let cpu = self.edge.cpu().saturating_sub(before);
        let arrived = self.outside.stanzas().len();
        ensure!(arrived >= MESSAGES, "{arrived} arrived");
        Ok(micros(cpu, MESSAGES as u64))
    }

    /// Bytes that one watched user takes.
    async fn watched(&mut self) -> Result<f64> {
        // What the edge needs for the first of anything is not counted.
        self.watch(0..100).await?;
        let before = self.edge.resident_kib()?;
        self.watch(100..100 + WATCHED).await?;
        let after = self.edge.resident_kib()?;
        Ok(after.saturating_sub(before) as f64 * 1_024.0 / WATCHED as f64)
    }

    async fn watch(&mut self, whom: std::ops::Range<usize>) -> Result<()> {
        let party = self.server.party().await?;
        let (begin, end) = (whom.start, whom.end);
        for number in whom.clone() {
            let stanza = format!(
                "<presence from='r{number}@{PARTNER}' to='u{number}@{OWN}' type='subscribe'/>"
            );
            self.partner.send(stanza).await?;
        }
        for _ in begin..end {
            let is_subscribe = |it: &SipMessage| it.method() == Some("SUBSCRIBE");
            let asked = party.requested("a SUBSCRIBE", is_subscribe).await?;
            party.send(notify(&asked)?);
        }
        let labels = ["role=\"watcher\"", "state=\"active\""];
        wait::until("all are watched", LIMIT, async || {
            let active = self.edge.metric("sip_subscriptions", &labels).await.ok()?;
            (active >= end as f64).then_some(())
        })
        .await
    }
}

/// The NOTIFY that the presence agent sends after its 200, of one device.
fn notify(asked: &SipMessage) -> Result<String> {
    let field = |name: &str| asked.header(name).with_context(|| format!("no {name}"));
    let (from, to, call) = (field("From")?, field("To")?, field("Call-ID")?);
    let contact = field("Contact")?.trim_matches(['<', '>']);
    let uri = to.trim_matches(['<', '>']);
    let body = format!(
        "<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='{uri}'>\
         <tuple id='phone'><status><basic>open</basic></status><note>at lunch</note></tuple></presence>"
    );
    Ok(format!(
        "NOTIFY {contact} SIP/2.0\r\nVia: SIP/2.0/TLS sip.org.example:5061;branch=z9hG4bKn{call}\r\n\
         Max-Forwards: 70\r\nFrom: {to};tag=answered\r\nTo: {from}\r\nCall-ID: {call}\r\nCSeq: 1 NOTIFY\r\n\
         Contact: <sip:sip.org.example:5061;transport=tls>\r\nEvent: presence\r\n\
         Subscription-State: active;expires=3600\r\nContent-Type: application/pidf+xml\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn manifests(lab: &Lab) -> Vec<serde_json::Value> {
    let own = lab
        .authority()
        .issue(&[OWN, FQDN], Usage::ServerAndClientAuth);
    let pair = BTreeMap::from([("tls.crt", own.certificate), ("tls.key", own.key)]);
    let roots = BTreeMap::from([("ca.crt", lab.authority().certificate())]);
    let pool = json!({
        "site": "here", "domains": [OWN], "accessEdge": { "fqdn": FQDN },
        "gateways": [{ "domains": [OWN], "mode": "Sip", "address": format!("{}:{SIPS_PORT}", lab.ip(30)) }],
        "certificate": { "secretRef": { "name": "edge-certificate" } },
        "trust": { "caConfigMapRef": { "name": "roots", "key": "ca.crt" } },
    });
    let access = json!({
        "scope": "Global", "enableFederationAccess": true,
        "enableXmppAccess": true, "enablePublicCloudAccess": true,
    });
    vec![
        texts("Secret", "edge-certificate", &pair),
        texts("ConfigMap", "roots", &roots),
        manifest("EdgePool", "edge", pool),
        manifest(
            "XmppFederatedPartner",
            "partner",
            json!({ "domain": PARTNER, "partnerType": "Federated" }),
        ),
        manifest("ExternalAccessPolicy", "everybody", access),
    ]
}
