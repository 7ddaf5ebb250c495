//! What a peer that has proved nothing learns of where its names lead the edge: nothing (S-13).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use xmpp_edge_tests::{
    dns::Fault,
    peer::{Behaviour, Peer, PeerServer, Verdict, ns},
    rig::{Moved, OWN, Scene},
    servers::S2S_PORT,
};

use super::{RIG, push, secured};

/// Of each way that a verification can fail, one name.
pub(super) const NAMES: [&str; 8] = [
    "missing",
    "noservice",
    "broken",
    "refuses",
    "closes",
    "silent",
    "notls",
    "ourselves",
];

#[test]
fn d_29_a_stranger_does_not_learn_where_its_names_lead() {
    RIG.test(29, async |s| {
        let _servers = lead_everywhere(s).await?;
        let (mut peer, _) = secured(s).await?;
        let keys = NAMES.map(|name| {
            format!(
                "<db:result from='{name}.{}' to='{OWN}'>key</db:result>",
                s.domain
            )
        });
        let asked = Instant::now();
        peer.send(keys.concat()).await?;
        // What is known to have failed is not answered sooner.
        let (mut again, _) = secured(s).await?;
        let asked_again = Instant::now();
        let missing = format!("missing.{}", s.domain);
        again.db_result(&missing, OWN, "key").await?;

        let mut answers = Vec::new();
        for _ in NAMES {
            answers.push(answer(&mut peer, s).await?);
        }
        let (second, at) = answer(&mut again, s).await?;
        let (first, _) = &answers[0];
        ensure!(first.contains("remote-connection-failed"), "{first}");
        for (text, _) in &answers {
            ensure!(text == first, "{text}, and {first}");
        }
        ensure!(&second == first, "{second}, and {first}");
        // They differ in time by far less than the slowest takes.
        let times: Vec<Duration> = answers.iter().map(|(_, at)| *at - asked).collect();
        let (least, most) = (times.iter().min(), times.iter().max());
        ensure!(
            least.map(|least| *least * 5 / 4) > most.copied(),
            "{times:?}"
        );
        ensure!((at - asked_again) * 2 > times[0], "{times:?}");
        // The administrator does learn it.
        for outcome in [
            "AuthoritativeNotFound",
            "AuthoritativeConnectionFailed",
            "AuthoritativeTimedOut",
        ] {
            let label = format!("outcome=\"{outcome}\"");
            s.moved("attempts_total", &[&label]).await?;
        }
        push(s, &mut peer, &format!("rob@missing.{}", s.domain)).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("NotAuthorized")).await
    });
}

/// The next answer to a key, its name left out, and when it came.
async fn answer(peer: &mut Peer, s: &Scene) -> Result<(String, Instant)> {
    let answer = peer
        .expect("an answer to db:result", |e| e.is("result", ns::DIALBACK))
        .await?;
    let at = Instant::now();
    let name = answer.attribute("to").unwrap_or_default().to_owned();
    ensure!(name.ends_with(&s.domain), "{answer:?}");
    Ok((format!("{answer:?}").replace(&name, "-"), at))
}

/// Publishes the names, and starts the servers that some of them have.
async fn lead_everywhere(s: &Scene) -> Result<Vec<PeerServer>> {
    let dns = s.rig.lab.dns();
    let mut servers = Vec::new();
    for (number, name) in (0u8..).zip(NAMES) {
        let domain = format!("{name}.{}", s.domain);
        let host = s.rig.lab.ip(210 + number);
        let target = format!("xmpp.{domain}");
        let mut behaviour = match name {
            "notls" => Behaviour::plain(),
            _ => s.good_behaviour()?,
        };
        behaviour.verify = Some(match name {
            "closes" => Verdict::Close,
            _ => Verdict::Never,
        });
        match name {
            "missing" => continue,
            "noservice" => {
                dns.xmpp_server(&domain, 0, 0, 0, ".");
                continue;
            }
            "broken" => {
                dns.fault(&format!("_xmpp-server._tcp.{domain}"), Fault::Fails);
                continue;
            }
            // An address that is not dialled.
            "ourselves" => {
                dns.xmpp_server(&domain, 0, 0, S2S_PORT, "edge.example");
                continue;
            }
            _ => {}
        }
        dns.host(&target, host);
        dns.xmpp_server(&domain, 0, 0, S2S_PORT, &target);
        if name != "refuses" {
            let at = SocketAddr::from((host, S2S_PORT));
            servers.push(PeerServer::listen(at, behaviour).await?);
        }
    }
    Ok(servers)
}
