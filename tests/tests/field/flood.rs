//! S-06: those who push against the door do not push out who is half through it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::net::{TcpSocket, TcpStream};
use xmpp_edge_tests::{
    peer::{ClientTls, Command, Open, Verdict},
    rig::{OWN, Plan, Rig, Shared},
};

/// An edge of its own: a flood is felt by everybody who knocks.
static DOOR: Shared = Shared::new(Plan {
    partner: |_| serde_json::json!({ "saslNegotiation": "Optional" }),
    ..Plan::standard("g", 1)
});

async fn from_host(rig: &Rig, host: u8) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((rig.lab.ip(host), 0)))?;
    Ok(socket.connect(rig.public()).await?)
}

#[test]
fn s_06_a_flood_from_many_addresses_does_not_push_out_who_is_being_verified() {
    DOOR.test(1, async |s| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.verify = Some(Verdict::Never);
        let server = s.serve(behaviour).await?;
        let mut peer = s.connect().await?;
        peer.open(&s.domain, OWN).await?;
        peer.starttls(&ClientTls::new(Some(OWN), None)).await?;
        peer.open_with(&Open::new(&s.domain, OWN)).await?;
        let header = peer.header().await?;
        peer.features().await?;
        let id = header.attribute("id").context("a stream id")?.to_owned();
        peer.db_result(&s.domain, OWN, "good").await?;
        server
            .until("the key is asked about", |seen| {
                seen.iter().any(|connection| connection.asked > 0)
            })
            .await?;
        // More than there are places, from more addresses than a place each would fill.
        let mut silent = Vec::new();
        for number in 0..1300_u32 {
            let host = u8::try_from(100 + number % 100)?;
            silent.push(from_host(&s.rig, host).await?);
        }
        server.tell_all(&Command::Send(format!(
            "<db:verify from='{}' to='{OWN}' id='{id}' type='valid'/>",
            s.domain
        )));
        let verdict = peer.db_answer("result", &s.domain, OWN).await?;
        ensure!(verdict == "valid", "{verdict}");
        Ok(())
    });
}
