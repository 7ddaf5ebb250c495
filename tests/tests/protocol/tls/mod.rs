//! T: STARTTLS and direct TLS, in both roles.

mod direct;
mod handshakes;
mod starttls;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};
use xmpp_edge_tests::{
    peer::{
        Behaviour, ClientTls, Encryption, Event, Features, Identity, Login, Open, Peer, PeerServer,
        ServerTls,
        hello::{self, Answer, Hello, TLS_1_0, TLS_1_1, TLS_1_2},
        ns,
    },
    pki::{Authority, Draft, Leaf},
    rig::{ALICE, GOOD, Moved, OWN, Plan, SECOND, Scene, Shared},
    xml::Element,
};

/// Short, so that what never ends a handshake is seen to be cut off.
const ESTABLISHMENT: Duration = Duration::from_secs(10);

/// ECDHE with ECDSA and AES-GCM: the edge has it.
const GOOD_CIPHER: u16 = 0xc02b;
/// TLS alert descriptions (RFC 8446 section 6).
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

static RIG: Shared = Shared::new(Plan {
    partner: |test| match test {
        // Everything is allowed, so that nothing but the order of things refuses.
        3 | 4 | 6 | 7 => json!({
            "tlsNegotiation": "Optional",
            "saslNegotiation": "Optional",
            "allowPlaintext": true,
        }),
        _ => json!({}),
    },
    settings: || json!({ "streamEstablishmentTimeoutSeconds": ESTABLISHMENT.as_secs() }),
    ..Plan::standard("t", 22)
});

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const COMPRESS: &str = "http://jabber.org/protocol/compress";

/// TLS of a client of the public listener with the partner's certificate.
fn own_tls(s: &Scene) -> Result<ClientTls> {
    Ok(ClientTls::new(Some(OWN), Some(Identity::of(&s.identity)?)))
}

/// A message from alice to the partner; its id.
async fn alice_writes(s: &Scene) -> Result<String> {
    let id = s.fresh();
    let mut inside = s.inside().await?;
    inside.message(ALICE, &s.user("rob"), &id, &id).await?;
    Ok(id)
}

/// The error that alice gets for a message.
async fn bounced(s: &Scene, id: &str, condition: &str, text: &str) -> Result<()> {
    let error = s.inside_gets(id).await?;
    ensure!(
        error.error_condition() == Some(condition) && error.error_text().contains(text),
        "not {condition} with {text:?}: {error:?}"
    );
    Ok(())
}

/// As responder: reads the edge's header, which is given back, and answers with this header's id and
/// these features.
async fn respond(s: &Scene, peer: &mut Peer, id: &str, features: &str) -> Result<Element> {
    let header = peer.header().await?;
    let mut open = Open::new(&s.domain, OWN);
    open.id = Some(id.to_owned());
    let features = format!("<stream:features>{features}</stream:features>");
    peer.send(open.text() + &features).await?;
    Ok(header)
}

fn mechanisms() -> String {
    format!(
        "<mechanisms xmlns='{}'><mechanism>EXTERNAL</mechanism></mechanisms>",
        ns::SASL
    )
}

fn dialback() -> String {
    format!("<dialback xmlns='{}'/>", ns::DIALBACK_FEATURE)
}

fn starttls_feature() -> String {
    format!("<starttls xmlns='{}'/>", ns::TLS)
}

/// Sends a ClientHello and reads what the edge chooses or refuses it with.
async fn offer(peer: &mut Peer, hello: &Hello) -> Result<Answer> {
    peer.send(hello.record()).await?;
    let mut bytes = Vec::new();
    loop {
        let more = peer.raw().await?;
        bytes.extend(&more);
        match Answer::read(&bytes) {
            Ok(answer) => return Ok(answer),
            Err(_) if !more.is_empty() => {}
            Err(error) => return Err(error.context("the edge ends the connection")),
        }
    }
}
