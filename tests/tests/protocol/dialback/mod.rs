//! D: Server Dialback (XEP-0220, XEP-0185), in all three roles of the edge.

mod abuse;
mod authoritative;
mod initiating;
mod receiving;
mod strangers;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    edge::{manifest, texts},
    peer::{
        Behaviour, ClientTls, Command, Features, Identity, Login, Open, Peer, PeerServer, Verdict,
    },
    pki::{Authority, Leaf, Usage},
    rig::{ALICE, OWN, Plan, SECOND, Scene, Shared},
    servers::S2S_PORT,
};

/// The shared edge's dialback secret: D-15 looks for it in the log.
const SECRET: &str = "this is never to be seen in a log";

static RIG: Shared = Shared::new(Plan {
    // Dialback is what is left to a peer without a certificate.
    partner: |test| match test {
        4 => with_more(&[
            "noservice.d04.example",
            "missing.d04.example",
            "refuses.d04.example",
            "closes.d04.example",
            "silent.d04.example",
        ]),
        7 => json!({}),
        17 => with_more(&["sub.d17.example"]),
        27 => with_more(&["sub.d13.example"]),
        19 => with_more(&["sub.d19.example"]),
        20 => with_more(&["*.d20.example"]),
        21 => with_more(&["sub.d21.example"]),
        22 => with_more(&["loop.d22.example"]),
        29 => {
            let names = strangers::NAMES.map(|name| format!("{name}.d29.example"));
            with_more(&names.each_ref().map(String::as_str))
        }
        24 => json!({ "saslNegotiation": "Optional", "supportDialbackNegotiation": false }),
        _ => with_more(&[]),
    },
    settings: || {
        json!({
            "streamEstablishmentTimeoutSeconds": 12,
            "dialbackSecretRef": { "name": "known" },
        })
    },
    objects: |_| {
        let strict = json!({ "domain": "strict-d17.example", "partnerType": "Federated" });
        let suspended = json!({ "domain": "suspended-d17.example", "suspended": true });
        let full = json!({
            "domain": "full-d17.example",
            "partnerType": "Federated",
            "saslNegotiation": "Optional",
            "connectionLimit": 1,
        });
        vec![
            manifest("XmppFederatedPartner", "d-17-full", full),
            texts(
                "Secret",
                "known",
                &BTreeMap::from([("secret", SECRET.to_owned())]),
            ),
            manifest("XmppFederatedPartner", "d-17-strict", strict),
            manifest("XmppFederatedPartner", "d-17-suspended", suspended),
        ]
    },
    ..Plan::standard("d", 29)
});

fn with_more(additional: &[&str]) -> Value {
    json!({ "saslNegotiation": "Optional", "additionalDomains": additional })
}

// ---- steps that many tests share ----

/// The partner's authoritative server, which knows these keys.
async fn authority(s: &Scene, keys: &[&str]) -> Result<PeerServer> {
    let server = s.outside().await?;
    for key in keys {
        server.made(key);
    }
    Ok(server)
}

/// A certificate that proves nothing.
fn untrusted(domain: &str) -> Leaf {
    Authority::new("Nobody's Root").issue(&[domain], Usage::ServerAndClientAuth)
}

/// A server of the partner that can only be told by dialback.
async fn dialback_server(s: &Scene, change: impl FnOnce(&mut Behaviour)) -> Result<PeerServer> {
    let identity = Identity::of(&untrusted(&s.domain))?;
    let mut behaviour = Behaviour::tls_dialback(identity);
    change(&mut behaviour);
    s.serve(behaviour).await
}

/// A connection inside TLS without a certificate, and the id of its stream.
async fn secured(s: &Scene) -> Result<(Peer, String)> {
    let mut peer = s.connect().await?;
    let id = secure(&mut peer, &s.domain, OWN).await?;
    Ok((peer, id))
}

async fn secure(peer: &mut Peer, from: &str, to: &str) -> Result<String> {
    peer.open(from, to).await?;
    peer.starttls(&ClientTls::new(Some(to), None)).await?;
    peer.open_with(&Open::new(from, to)).await?;
    let header = peer.header().await?;
    let Features(_) = peer.features().await?;
    Ok(header.attribute("id").context("a stream id")?.to_owned())
}

/// A stream of the partner, its first pair authenticated by dialback with `key`.
async fn dialled_back(s: &Scene, key: &str) -> Result<Peer> {
    s.partner_by(&Login::TlsDialback(key)).await
}

/// Publishes one more domain at the partner's address.
fn publish(s: &Scene, domain: &str) {
    let target = format!("xmpp.{}", s.domain);
    s.rig.lab.dns().xmpp_server(domain, 0, 0, S2S_PORT, &target);
}

/// A connection inside TLS whose `key` was asked about at a server that answers nothing by itself.
async fn in_question(s: &Scene, key: &str) -> Result<(PeerServer, Peer, String)> {
    let mut behaviour = s.good_behaviour()?;
    behaviour.verify = Some(Verdict::Never);
    let server = s.serve(behaviour).await?;
    let (mut peer, id) = secured(s).await?;
    peer.db_result(&s.domain, OWN, key).await?;
    server
        .until("the key is asked about", |seen| {
            seen.iter().any(|c| c.asked > 0)
        })
        .await?;
    Ok((server, peer, id))
}

/// Sends these keys of one pair at once.
async fn send_keys(s: &Scene, peer: &mut Peer, keys: [&str; 2]) -> Result<()> {
    let domain = &s.domain;
    let keys = keys.map(|key| format!("<db:result from='{domain}' to='{OWN}'>{key}</db:result>"));
    peer.send(keys.concat()).await
}

/// A message from `from` that must not get through.
async fn push(s: &Scene, peer: &mut Peer, from: &str) {
    let id = s.forbidden();
    let _ = peer.message(from, ALICE, &id, &id).await;
}

/// A message from `user` arrives inside.
async fn delivers(s: &Scene, peer: &mut Peer, user: &str, to: &str) -> Result<()> {
    let id = s.fresh();
    peer.message(user, to, &id, "hello").await?;
    let server = if to.ends_with(SECOND) {
        &s.rig.second
    } else {
        &s.rig.inside
    };
    let got = server.stanza_id(&id).await?;
    ensure!(got.attribute("from") == Some(user), "{got:?}");
    Ok(())
}

fn verify_answer(from: &str, to: &str, id: &str, verdict: &str) -> Command {
    Command::Send(format!(
        "<db:verify from='{from}' to='{to}' id='{id}' type='{verdict}'/>"
    ))
}

fn result_answer(from: &str, to: &str, verdict: &str) -> Command {
    Command::Send(format!(
        "<db:result from='{from}' to='{to}' type='{verdict}'/>"
    ))
}
