//! The scripted peer in each of its roles against a real Prosody, without the edge: what passes here
//! is no invention of the script, and what it says of a refusal is what a real server says.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    client::Client,
    lab::Lab,
    peer::{Behaviour, ClientTls, Event, Identity, Login, Peer, PeerServer, Seen, ns},
    pki::Leaf,
    servers::{DIRECT_TLS_PORT, Kind, S2S_PORT, Security, Server},
};

const REAL: &str = "real.example";
const SCRIPTED: &str = "scripted.example";
const ROB: &str = "rob@scripted.example";
const KEY: &str = "a-key-of-ours";

struct Scene {
    prosody: Server,
    alice: Client,
    /// Where the scripted domain is by DNS: receiving and authoritative server.
    server: PeerServer,
    identity: Leaf,
    // Last, so that its directory and DNS outlive the processes.
    lab: Lab,
}

impl Scene {
    async fn start(security: Security, bidi: bool) -> Result<Self> {
        let lab = Lab::new().await?;
        let mut spec = lab.spec(REAL, 1, "alice", security);
        spec.bidi = bidi;
        spec.direct_tls = security != Security::TcpDialback;
        lab.publish(&spec);
        let address = SocketAddr::new(IpAddr::V4(lab.ip(2)), S2S_PORT);
        lab.dns().host("xmpp.scripted.example", lab.ip(2));
        lab.dns()
            .xmpp_server(SCRIPTED, 0, 0, S2S_PORT, "xmpp.scripted.example");
        let prosody = Server::start(Kind::Prosody, spec, lab.directory()).await?;
        let identity = lab.identity(SCRIPTED, security);
        let mut behaviour = match security {
            Security::Certificates => Behaviour::good(Identity::of(&identity)?),
            Security::TlsDialback => Behaviour::tls_dialback(Identity::of(&identity)?),
            Security::TcpDialback => Behaviour::plain(),
        };
        if security != Security::Certificates {
            // The real server is asked whether its keys are its own.
            behaviour.result = None;
            behaviour.authority = Some(SocketAddr::new(IpAddr::V4(lab.ip(1)), S2S_PORT));
        }
        let server = PeerServer::listen(address, behaviour).await?;
        server.made(KEY);
        Ok(Self {
            alice: prosody.login("alice").await?,
            prosody,
            server,
            identity,
            lab,
        })
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.lab.ip(1)), port)
    }

    /// From the scripted peer to alice.
    async fn delivers_inwards(&self, peer: &mut Peer) -> Result<()> {
        peer.message(ROB, self.alice.full(), "in", "hello").await?;
        let got = self.alice.expect_message("in").await;
        let got = got.with_context(|| self.prosody.log())?;
        ensure!(got.attribute("from") == Some(ROB), "{got:?}");
        Ok(())
    }

    /// From alice to the scripted server, over a stream that Prosody opened and authenticated so.
    async fn delivers_outwards(&self, method: &str, tls: bool) -> Result<()> {
        self.alice.message(ROB, "out", "hello").await?;
        let got = self.server.stanza_id("out").await;
        let got = got.with_context(|| self.prosody.log())?;
        ensure!(got.child("body").unwrap().text == "hello", "{got:?}");
        let right =
            |seen: &Seen| seen.method == method && seen.tls.is_some() == tls && seen.from == REAL;
        let seen = self.server.seen();
        ensure!(seen.iter().any(right), "{seen:#?}");
        Ok(())
    }
}

#[tokio::test]
async fn as_initiator_it_authenticates_by_external_and_delivers() {
    let scene = Scene::start(Security::Certificates, false).await.unwrap();
    for (port, login) in [
        (S2S_PORT, Login::External(&scene.identity)),
        (DIRECT_TLS_PORT, Login::Direct(&scene.identity)),
    ] {
        let mut peer = Peer::login(scene.at(port), SCRIPTED, REAL, &login)
            .await
            .with_context(|| scene.prosody.log())
            .unwrap();
        scene.delivers_inwards(&mut peer).await.unwrap();
        peer.send("</stream:stream>").await.unwrap();
        assert_eq!(peer.next().await.unwrap(), Event::Close);
        peer.ended().await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_offered_no_external() {
    let scene = Scene::start(Security::Certificates, false).await.unwrap();
    let stranger = scene.lab.identity(SCRIPTED, Security::TlsDialback);
    let mut peer = Peer::connect(scene.at(S2S_PORT)).await.unwrap();
    peer.open(SCRIPTED, REAL).await.unwrap();
    let identity = Some(Identity::of(&stranger).unwrap());
    let tls = ClientTls::new(Some(REAL), identity);
    peer.starttls(&tls).await.unwrap();
    let refused = peer.external(SCRIPTED, REAL).await;
    assert!(refused.is_err(), "Prosody took it");
}

#[tokio::test]
async fn as_responder_it_takes_external() {
    let scene = Scene::start(Security::Certificates, false).await.unwrap();
    scene.delivers_outwards("External", true).await.unwrap();
    let seen = scene.server.seen();
    let tls = seen.iter().find_map(|seen| seen.tls.clone()).unwrap();
    assert!(!tls.certificates.is_empty(), "Prosody shows its own");
}

#[tokio::test]
async fn as_initiator_and_authority_it_does_dialback_over_tls() {
    dialback_inwards(Security::TlsDialback, Login::TlsDialback(KEY)).await;
}

#[tokio::test]
async fn as_initiator_and_authority_it_does_dialback_over_tcp() {
    dialback_inwards(Security::TcpDialback, Login::TcpDialback(KEY)).await;
}

async fn dialback_inwards(security: Security, login: Login<'_>) {
    let scene = Scene::start(security, false).await.unwrap();
    let mut peer = Peer::login(scene.at(S2S_PORT), SCRIPTED, REAL, &login)
        .await
        .with_context(|| scene.prosody.log())
        .unwrap();
    scene.delivers_inwards(&mut peer).await.unwrap();
    let asked: usize = scene.server.seen().iter().map(|seen| seen.asked).sum();
    assert_eq!(asked, 1, "Prosody asks the authoritative server");
}

#[tokio::test]
async fn a_key_that_the_authority_does_not_know_is_invalid() {
    let scene = Scene::start(Security::TcpDialback, false).await.unwrap();
    let mut peer = Peer::connect(scene.at(S2S_PORT)).await.unwrap();
    peer.open(SCRIPTED, REAL).await.unwrap();
    let answer = peer.dialback(SCRIPTED, REAL, "not-ours").await.unwrap();
    assert_eq!(answer, "invalid");
}

#[tokio::test]
async fn as_receiving_server_it_has_keys_verified_over_tls() {
    let scene = Scene::start(Security::TlsDialback, false).await.unwrap();
    scene.delivers_outwards("Dialback", true).await.unwrap();
}

#[tokio::test]
async fn as_receiving_server_it_has_keys_verified_over_tcp() {
    let scene = Scene::start(Security::TcpDialback, false).await.unwrap();
    scene.delivers_outwards("Dialback", false).await.unwrap();
    // The key that Prosody gave belongs to one stream's id alone.
    let seen = scene.server.seen();
    let (_, _, id, key) = seen.iter().find_map(|seen| seen.keys.first()).unwrap();
    let mut peer = Peer::connect(scene.at(S2S_PORT)).await.unwrap();
    peer.open(SCRIPTED, REAL).await.unwrap();
    let right = peer.db_verify(SCRIPTED, REAL, id, key).await.unwrap();
    let wrong = peer.db_verify(SCRIPTED, REAL, "other", key).await.unwrap();
    assert_eq!((right.as_str(), wrong.as_str()), ("valid", "invalid"));
}

#[tokio::test]
async fn acknowledgements_count_what_prosody_took() {
    let scene = Scene::start(Security::Certificates, false).await.unwrap();
    let login = Login::External(&scene.identity);
    let mut peer = Peer::login(scene.at(S2S_PORT), SCRIPTED, REAL, &login)
        .await
        .unwrap();
    peer.enable_acks().await.unwrap();
    scene.delivers_inwards(&mut peer).await.unwrap();
    peer.send(format!("<r xmlns='{}'/>", ns::ACKS))
        .await
        .unwrap();
    let ack = peer
        .expect("an <a/>", |e| e.is("a", ns::ACKS))
        .await
        .unwrap();
    assert_eq!(ack.attribute("h"), Some("1"));
}

#[tokio::test]
async fn a_bidirectional_stream_carries_both_ways() {
    let scene = Scene::start(Security::Certificates, true).await.unwrap();
    let mut peer = Peer::connect(scene.at(S2S_PORT)).await.unwrap();
    peer.open(SCRIPTED, REAL).await.unwrap();
    let identity = Some(Identity::of(&scene.identity).unwrap());
    let tls = ClientTls::new(Some(REAL), identity);
    peer.starttls(&tls).await.unwrap();
    let features = peer.open(SCRIPTED, REAL).await.unwrap();
    assert!(features.bidi() && features.external(), "{features:?}");
    peer.send(format!("<bidi xmlns='{}'/>", ns::BIDI))
        .await
        .unwrap();
    assert_eq!(peer.auth("EXTERNAL", "=").await.unwrap().name, "success");
    peer.open(SCRIPTED, REAL).await.unwrap();
    scene.delivers_inwards(&mut peer).await.unwrap();
    scene.alice.message(ROB, "out", "hello").await.unwrap();
    peer.stanza("out").await.unwrap();
    assert_eq!(scene.server.connections(), 0, "no second stream");
}
