//! E: certificates and SASL EXTERNAL, in both roles.

mod certificates;
mod external;
mod servers;
mod trust;

use std::{collections::BTreeMap, sync::OnceLock};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    edge::{manifest, texts},
    peer::{Behaviour, ClientTls, Identity, Login, Open, Peer, ServerTls, Session, Verdict, ns},
    pki::{Authority, Draft, Leaf, Usage, Validity},
    rig::{ALICE, Moved, OWN, Plan, Scene, Shared},
    servers::S2S_PORT,
    wait,
    xml::Element,
};

static RIG: Shared = Shared::new(Plan {
    partner: |test| match test {
        // Dialback inside TLS is left where a certificate is of no use.
        5 | 6 | 13 | 17 | 23 | 24 => json!({ "saslNegotiation": "Optional" }),
        7 => json!({ "additionalDomains": ["sub.e07.example", "a.sub.e07.example"] }),
        8 => json!({ "additionalDomains": ["sub.e08.example"] }),
        10 => json!({ "additionalDomains": [IDN] }),
        18 => json!({ "trust": { "caConfigMapRef": { "name": "e-18", "key": "ca.crt" } } }),
        19 | 25 => json!({ "trust": {
            "pinnedSpkiSha256": [pinned(test).pin()],
            "onKeyChange": if test == 19 { "Refuse" } else { "Warn" },
        } }),
        27 => json!({ "additionalDomains": BAD_SERVERS }),
        21 => json!({ "trust": { "onKeyChange": "Refuse" } }),
        28 => trusting(&pinned(28).pin()),
        29 => {
            let mut spec = trusting(&pinned(29).pin());
            spec["saslNegotiation"] = json!("Optional");
            spec
        }
        _ => json!({}),
    },
    objects: |lab| {
        let ca = own_authority().certificate();
        let known = lab.authority().issue(&["e21.example"], Usage::ServerAuth);
        let pin = known.pin();
        *KNOWN.lock() = Some(known);
        let config_map =
            |name, key, value| texts("ConfigMap", name, &BTreeMap::from([(key, value)]));
        vec![
            config_map("e-18", "ca.crt", ca),
            config_map("edge-peer-keys", "e-21", pin),
        ]
    },
    ..Plan::standard("e", 30)
});

/// The trust of a partner that has this key and no other.
fn trusting(pin: &str) -> Value {
    json!({ "trust": { "pinnedSpkiSha256": [pin], "onKeyChange": "Refuse" } })
}

/// One for each bad certificate.
const BAD_SERVERS: [&str; 6] = [
    "a.e27.example",
    "b.e27.example",
    "c.e27.example",
    "d.e27.example",
    "e.e27.example",
    "f.e27.example",
];
const IDN: &str = "xn--bcher-kva.example";

/// The certificate whose key the newest rig knows as that of partner 21.
static KNOWN: Mutex<Option<Leaf>> = Mutex::new(None);

/// The private authority of one partner.
fn own_authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("Private Root"))
}

/// The certificate whose key is pinned for a partner: of no authority.
fn pinned(test: u8) -> &'static Leaf {
    static LEAVES: [OnceLock<Leaf>; 30] = [const { OnceLock::new() }; 30];
    LEAVES[usize::from(test)]
        .get_or_init(|| Draft::of(&[&format!("e{test:02}.example")]).self_signed())
}

/// Connects, and does TLS with this certificate as `domain`; the new stream is not opened.
async fn secured_as(s: &Scene, domain: &str, leaf: Option<&Leaf>) -> Result<Peer> {
    let mut peer = s.connect().await?;
    peer.open(domain, OWN).await?;
    let identity = leaf.map(Identity::of).transpose()?;
    peer.starttls(&ClientTls::new(Some(OWN), identity)).await?;
    Ok(peer)
}

/// The certificate is good for `domain`: EXTERNAL succeeds.
async fn accepted(s: &Scene, domain: &str, leaf: &Leaf) -> Result<()> {
    let mut peer = secured_as(s, domain, Some(leaf)).await?;
    peer.external(domain, OWN).await?;
    let id = s.fresh();
    peer.message(&format!("rob@{domain}"), ALICE, &id, "hello")
        .await?;
    s.inside_gets(&id).await?;
    Ok(())
}

/// The certificate is not good for `domain`, and nothing else may be used: the stream ends; the text
/// of its error.
async fn refused(s: &Scene, domain: &str, leaf: Option<&Leaf>) -> Result<String> {
    let mut peer = secured_as(s, domain, leaf).await?;
    peer.open_with(&Open::new(domain, OWN)).await?;
    peer.header().await?;
    let error = peer
        .expect("a stream error", |e| e.is("error", ns::STREAM))
        .await?;
    ensure!(
        error.child("not-authorized").is_some(),
        "not not-authorized: {error:?}"
    );
    peer.ended().await?;
    let text = error.child("text").context("a text")?.text.clone();
    Ok(text)
}

/// As [`refused`], with these words in the text and this outcome.
async fn refused_because(
    s: &Scene,
    domain: &str,
    leaf: Option<&Leaf>,
    words: &[&str],
    outcome: &str,
) -> Result<()> {
    let text = refused(s, domain, leaf).await?;
    for word in words {
        ensure!(text.contains(word), "no {word:?} in {text:?}");
    }
    let label = format!("outcome=\"{outcome}\"");
    s.moved("attempts_total", &[&label]).await
}

/// Sends `<auth/>` on a fresh connection with the partner's certificate; the answer, and whether
/// the stream takes a message afterwards.
async fn auth(s: &Scene, leaf: &Leaf, mechanism: &str, text: &str) -> Result<(Peer, Element)> {
    let mut peer = secured_as(s, &s.domain, Some(leaf)).await?;
    ensure!(peer.open(&s.domain, OWN).await?.external());
    let answer = peer.auth(mechanism, text).await?;
    Ok((peer, answer))
}

/// Authentication failed with this condition, and a message is refused.
async fn failed(s: &Scene, mut peer: Peer, answer: &Element, condition: &str) -> Result<()> {
    ensure!(
        answer.is("failure", ns::SASL) && answer.child(condition).is_some(),
        "not {condition}: {answer:?}"
    );
    let id = s.forbidden();
    peer.message(&s.user("rob"), ALICE, &id, &id).await?;
    peer.expect_stream_error("not-authorized").await
}

/// A message from alice to the partner; its id.
async fn alice_writes(s: &Scene) -> Result<String> {
    let id = s.fresh();
    let mut inside = s.inside().await?;
    inside.message(ALICE, &s.user("rob"), &id, &id).await?;
    Ok(id)
}

/// The text of the error that alice gets for a message.
async fn bounced(s: &Scene, id: &str) -> Result<String> {
    let error = s.inside_gets(id).await?;
    ensure!(
        error.error_condition() == Some("remote-server-timeout"),
        "{error:?}"
    );
    Ok(error.error_text().to_owned())
}
