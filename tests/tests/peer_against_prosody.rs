//! The scripted peer against a real server, without the edge: it speaks as Prosody expects in every
//! role, so that what the edge is shown elsewhere is what real servers show.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    client::Client,
    lab::Lab,
    peer::{Behaviour, ClientTls, Identity, Login, Peer, PeerServer, ns},
    pki::{Leaf, Usage},
    servers::{Kind, S2S_PORT, Security, Server},
};

const PROSODY: &str = "prosody.example";
const SCRIPTED: &str = "scripted.example";
const PROSODY_HOST: u8 = 10;
const SCRIPTED_HOST: u8 = 11;

/// Prosody with a user logged in, and the scripted server's place in DNS.
struct Scene {
    prosody: Server,
    user: Client,
    identity: Leaf,
    // Last, so that its directory and DNS outlive the process.
    lab: Lab,
}

impl Scene {
    async fn start(security: Security, bidi: bool) -> Result<Self> {
        let lab = Lab::new().await?;
        let mut spec = lab.spec(PROSODY, PROSODY_HOST, "romeo", security);
        spec.bidi = bidi;
        lab.publish(&spec);
        let target = format!("xmpp.{SCRIPTED}");
        lab.dns().host(&target, lab.ip(SCRIPTED_HOST));
        lab.dns().xmpp_server(SCRIPTED, 0, 0, S2S_PORT, &target);
        let prosody = Server::start(Kind::Prosody, spec, lab.directory()).await?;
        let user = prosody.login("romeo").await?;
        let identity = lab
            .authority()
            .issue(&[SCRIPTED], Usage::ServerAndClientAuth);
        Ok(Self {
            prosody,
            user,
            identity,
            lab,
        })
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((self.lab.ip(PROSODY_HOST), S2S_PORT))
    }

    async fn serve(&self, change: impl FnOnce(&mut Behaviour)) -> Result<PeerServer> {
        let mut behaviour = Behaviour::good(Identity::of(&self.identity)?);
        change(&mut behaviour);
        let address = SocketAddr::from((self.lab.ip(SCRIPTED_HOST), S2S_PORT));
        PeerServer::listen(address, behaviour).await
    }

    /// A message of the scripted server reaches the user.
    async fn reaches_the_user(&self, peer: &mut Peer, id: &str) -> Result<()> {
        let juliet = format!("juliet@{SCRIPTED}");
        peer.message(&juliet, self.user.full(), id, "hello").await?;
        self.user
            .expect_message(id)
            .await
            .context(self.prosody.log())?;
        Ok(())
    }

    /// A message of the user reaches the scripted server; gives the number of the connection.
    async fn reaches_the_server(&self, server: &PeerServer, id: &str) -> Result<usize> {
        let juliet = format!("juliet@{SCRIPTED}");
        self.user.message(&juliet, id, "hello").await?;
        let got = server
            .stanza("the message", |e| e.attribute("id") == Some(id))
            .await
            .context(self.prosody.log())?;
        Ok(got.connection)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_external_as_initiator_and_as_receiver() -> Result<()> {
    let scene = Scene::start(Security::Certificates, false).await?;
    let login = Login::External(&scene.identity);
    let mut peer = Peer::login(scene.address(), SCRIPTED, PROSODY, &login).await?;
    scene.reaches_the_user(&mut peer, "in-1").await?;
    peer.enable_acks().await?;
    scene.reaches_the_user(&mut peer, "in-2").await?;
    peer.send(format!("<r xmlns='{}'/>", ns::ACKS)).await?;
    let ack = peer.expect("an ack", |e| e.is("a", ns::ACKS)).await?;
    ensure!(ack.attribute("h") == Some("1"), "{ack:?}");
    let server = scene.serve(|_| {}).await?;
    let connection = scene.reaches_the_server(&server, "out").await?;
    let seen = &server.seen()[connection - 1];
    ensure!(seen.method == "External", "{seen:?}");
    ensure!(seen.tls.as_ref().unwrap().names()? == [PROSODY]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_dialback_as_originating_receiving_and_authoritative_server() -> Result<()> {
    let scene = Scene::start(Security::TlsDialback, false).await?;
    let prosody = scene.address();
    // Authoritative and receiving server: keys of Prosody's are verified at Prosody.
    let server = scene
        .serve(|b| {
            b.external = false;
            b.result = None;
            b.authority = Some(prosody);
        })
        .await?;
    server.made("our-key");
    // Originating server.
    let login = Login::TlsDialback("our-key");
    let mut peer = Peer::login(prosody, SCRIPTED, PROSODY, &login)
        .await
        .with_context(|| scene.prosody.log())?;
    scene.reaches_the_user(&mut peer, "in").await?;
    let connection = scene.reaches_the_server(&server, "out").await?;
    let seen = &server.seen()[connection - 1];
    ensure!(seen.method == "Dialback", "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_nobody_made_is_invalid_on_both_sides() -> Result<()> {
    let scene = Scene::start(Security::TlsDialback, false).await?;
    let server = scene.serve(|b| b.external = false).await?;
    let tls = ClientTls::new(Some(PROSODY), None);
    let open = async || {
        let mut peer = Peer::connect(scene.address()).await?;
        peer.open(SCRIPTED, PROSODY).await?;
        peer.starttls(&tls).await?;
        peer.open(SCRIPTED, PROSODY).await?;
        anyhow::Ok(peer)
    };
    let verdict = open().await?.dialback(SCRIPTED, PROSODY, "made-up").await?;
    ensure!(verdict == "invalid", "{verdict}");
    ensure!(server.seen().iter().any(|seen| seen.asked == 1));
    let verdict = open()
        .await?
        .db_verify(SCRIPTED, PROSODY, "an-id", "made-up")
        .await?;
    ensure!(verdict == "invalid", "{verdict}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_dialback_without_tls() -> Result<()> {
    let scene = Scene::start(Security::TcpDialback, false).await?;
    let server = scene
        .serve(|b| {
            let plain = Behaviour::plain();
            *b = Behaviour {
                result: None,
                authority: Some(scene.address()),
                ..plain
            };
        })
        .await?;
    server.made("our-key");
    let login = Login::TcpDialback("our-key");
    let mut peer = Peer::login(scene.address(), SCRIPTED, PROSODY, &login)
        .await
        .with_context(|| scene.prosody.log())?;
    scene.reaches_the_user(&mut peer, "in").await?;
    scene.reaches_the_server(&server, "out").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_one_stream_for_both_directions() -> Result<()> {
    let scene = Scene::start(Security::Certificates, true).await?;
    let mut peer = Peer::connect(scene.address()).await?;
    peer.open(SCRIPTED, PROSODY).await?;
    let identity = Some(Identity::of(&scene.identity)?);
    peer.starttls(&ClientTls::new(Some(PROSODY), identity))
        .await?;
    let features = peer.open(SCRIPTED, PROSODY).await?;
    ensure!(features.bidi() && features.external(), "{features:?}");
    peer.send(format!("<bidi xmlns='{}'/>", ns::BIDI)).await?;
    ensure!(peer.auth("EXTERNAL", "=").await?.name == "success");
    peer.open(SCRIPTED, PROSODY).await?;
    scene.reaches_the_user(&mut peer, "in").await?;
    // Nobody listens at our address: it comes on this stream.
    let juliet = format!("juliet@{SCRIPTED}");
    scene.user.message(&juliet, "out", "hello").await?;
    peer.stanza("out").await?;
    Ok(())
}
