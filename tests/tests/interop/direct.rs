//! The real servers with each other, without the edge: shows that the harness itself works, and
//! what the pairs can do alone.

use anyhow::Result;
use xmpp_edge_tests::{
    conversation,
    lab::Lab,
    servers::{Kind, Security, Server},
};

async fn converse(a: Kind, b: Kind, security: Security, direct_tls: bool) -> Result<()> {
    let lab = Lab::new().await?;
    let mut left = lab.spec("left.example", 1, "alice", security);
    let mut right = lab.spec("right.example", 2, "bob", security);
    for spec in [&mut left, &mut right] {
        spec.direct_tls = direct_tls;
        lab.publish(spec);
    }
    let (left, right) = tokio::try_join!(
        Server::start(a, left, lab.directory()),
        Server::start(b, right, lab.directory())
    )?;
    let (alice, bob) = tokio::try_join!(left.login("alice"), right.login("bob"))?;
    let outcome = conversation::all(&alice, &bob).await;
    if outcome.is_err() {
        eprintln!("{}\n{}\n{:?}", left.log(), right.log(), lab.dns().asked());
    }
    outcome
}

#[tokio::test]
async fn prosody_and_prosody_converse_by_certificates() {
    converse(Kind::Prosody, Kind::Prosody, Security::Certificates, false)
        .await
        .unwrap();
}

#[tokio::test]
async fn prosody_and_ejabberd_converse_by_certificates() {
    converse(Kind::Prosody, Kind::Ejabberd, Security::Certificates, false)
        .await
        .unwrap();
}

#[tokio::test]
async fn prosody_and_ejabberd_converse_by_direct_tls() {
    converse(Kind::Prosody, Kind::Ejabberd, Security::Certificates, true)
        .await
        .unwrap();
}

#[tokio::test]
async fn prosody_and_ejabberd_converse_by_dialback_over_tls() {
    converse(Kind::Prosody, Kind::Ejabberd, Security::TlsDialback, false)
        .await
        .unwrap();
}

#[tokio::test]
async fn prosody_and_ejabberd_converse_by_dialback_over_tcp() {
    converse(Kind::Prosody, Kind::Ejabberd, Security::TcpDialback, false)
        .await
        .unwrap();
}
