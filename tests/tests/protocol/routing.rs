//! R-01 to R-07 and R-14: finding the partner's server, and trying again.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use xmpp_edge_tests::{
    peer::{Command, Peer, PeerServer},
    rig::{ALICE, Moved, Plan, Scene, Shared},
    wait,
};

fn partner(test: u8) -> Value {
    match test {
        7 => json!({ "proxyFqdn": "route.example:5333" }),
        _ => json!({}),
    }
}

/// Ordinary settings.
static RIG: Shared = Shared::new(Plan {
    partner,
    ..Plan::standard("r", 14)
});

/// A stream has 5 s to be set up, a stanza waits longer.
static HASTY: Shared = Shared::new(Plan {
    settings: || json!({ "streamEstablishmentTimeoutSeconds": 5 }),
    ..Plan::standard("h", 2)
});

/// Sends a message from alice and gives its id.
async fn send(s: &Scene, inside: &mut Peer) -> Result<String> {
    let id = s.fresh();
    inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
    Ok(id)
}

/// Sends a message from alice, which must come back: condition and text.
async fn bounced(s: &Scene, inside: &mut Peer) -> Result<(String, String)> {
    let id = send(s, inside).await?;
    let error = s.inside_gets(&id).await?;
    let condition = error.error_condition().context("no error")?;
    Ok((condition.to_owned(), error.error_text().to_owned()))
}

/// Says whether the partner's SRV records have been asked for.
fn srv_asked(s: &Scene) -> bool {
    let asked = s.rig.lab.dns().asked();
    asked
        .iter()
        .any(|(name, _)| name.ends_with(&format!("-server._tcp.{}", s.domain)))
}

/// A port whose packets nobody answers: the queue of connections not accepted is full.
struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    async fn at(ip: Ipv6Addr) -> Result<Self> {
        let socket = TcpSocket::new_v6()?;
        socket.bind(SocketAddr::from((ip, 0)))?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut waiting = Vec::new();
        // Whoever connects once the queue is full waits for ever.
        let patience = std::time::Duration::from_millis(300);
        while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
            waiting.push(stream?);
            ensure!(waiting.len() < 64, "the queue does not fill");
        }
        Ok(Self {
            address,
            _listener: listener,
            _waiting: waiting,
        })
    }
}

#[test]
fn r_01_the_next_target_is_tried_when_the_first_refuses() {
    RIG.test(1, async |s| {
        s.unpublish();
        let dns = s.rig.lab.dns();
        dns.xmpp_server(&s.domain, 1, 0, 5301, &s.target());
        dns.xmpp_server(&s.domain, 2, 0, 5302, &s.target());
        let outside = PeerServer::listen(s.at(5302), s.good_behaviour()?).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        s.moved(
            "attempts_total",
            &["step=\"tcp\"", "outcome=\"TcpRefused\""],
        )
        .await
    });
}

#[test]
fn r_02_the_next_target_is_tried_when_the_first_never_speaks() {
    HASTY.test(2, async |s| {
        s.unpublish();
        let dns = s.rig.lab.dns();
        dns.xmpp_server(&s.domain, 1, 0, 5301, &s.target());
        dns.xmpp_server(&s.domain, 2, 0, 5302, &s.target());
        // The kernel accepts for it.
        let silent = TcpListener::bind(s.at(5301)).await?;
        let outside = PeerServer::listen(s.at(5302), s.good_behaviour()?).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        drop(silent);
        Ok(())
    });
}

#[test]
fn s11_a_first_target_that_never_speaks_costs_nobody_an_error_with_the_defaults() {
    RIG.test(2, async |s| {
        s.unpublish();
        let dns = s.rig.lab.dns();
        dns.xmpp_server(&s.domain, 1, 0, 5301, &s.target());
        dns.xmpp_server(&s.domain, 2, 0, 5302, &s.target());
        let silent = TcpListener::bind(s.at(5301)).await?;
        let outside = PeerServer::listen(s.at(5302), s.good_behaviour()?).await?;
        let mut inside = s.inside().await?;
        let mut ids = Vec::new();
        for _ in 0..12 {
            ids.push(send(s, &mut inside).await?);
        }
        for id in &ids {
            tokio::select! {
                got = outside.stanza_id(id) => { got?; }
                _ = s.inside_gets(id) => anyhow::bail!("{id} came back"),
            }
        }
        drop(silent);
        Ok(())
    });
}

#[test]
fn r_03_a_black_hole_does_not_keep_from_the_address_that_works() {
    RIG.test(3, async |s| {
        let hole = BlackHole::at(Ipv6Addr::LOCALHOST).await?;
        let port = hole.address.port();
        s.unpublish();
        let dns = s.rig.lab.dns();
        dns.host(&s.target(), hole.address.ip());
        dns.xmpp_server(&s.domain, 0, 0, port, &s.target());
        let outside = PeerServer::listen(s.at(port), s.good_behaviour()?).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await
    });
}

#[test]
fn r_04_without_srv_the_address_of_the_domain_is_used() {
    RIG.test(4, async |s| {
        s.unpublish();
        s.rig.lab.dns().host(&s.domain, s.address().ip());
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await
    });
}

#[test]
fn r_04_a_target_of_dot_means_no_service() {
    RIG.test(8, async |s| {
        s.unpublish();
        let dns = s.rig.lab.dns();
        dns.xmpp_server(&s.domain, 0, 0, 0, ".");
        dns.host(&s.domain, s.address().ip());
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        let (condition, _) = bounced(s, &mut inside).await?;
        ensure!(condition == "remote-server-not-found", "{condition}");
        ensure!(outside.connections() == 0);
        s.unharmed(Moved::Bounced("remote-server-not-found")).await
    });
}

#[test]
fn r_04_a_domain_without_any_record_is_remote_server_not_found() {
    RIG.test(9, async |s| {
        s.unpublish();
        let mut inside = s.inside().await?;
        let (condition, text) = bounced(s, &mut inside).await?;
        ensure!(
            condition == "remote-server-not-found",
            "{condition}: {text}"
        );
        ensure!(text.contains(&s.domain), "the text names no domain: {text}");
        s.unharmed(Moved::Bounced("remote-server-not-found")).await
    });
}

#[test]
fn r_05_targets_of_one_priority_are_chosen_by_weight() {
    RIG.test(5, async |s| {
        let light = PeerServer::listen(s.at(5501), s.good_behaviour()?).await?;
        let heavy = PeerServer::listen(s.at(5502), s.good_behaviour()?).await?;
        s.unpublish();
        let dns = s.rig.lab.dns();
        dns.xmpp_server(&s.domain, 0, 1, 5501, &s.target());
        dns.xmpp_server(&s.domain, 0, 9, 5502, &s.target());
        let mut inside = s.inside().await?;
        // A stream for each message: the one before is broken off.
        for _ in 0..60 {
            let id = send(s, &mut inside).await?;
            let server = tokio::select! {
                got = light.stanza_id(&id) => { got?; &light }
                got = heavy.stanza_id(&id) => { got?; &heavy }
            };
            let connection = server.last_connection();
            server.tell(connection, Command::Drop);
            server
                .until("the stream is broken off", |seen| {
                    seen[connection - 1].ended
                })
                .await?;
        }
        // 6 of 60 on average; 30 are beyond chance.
        let (few, many) = (light.connections(), heavy.connections());
        ensure!(few < 30 && many > 30, "{few} and {many} by weights 1 and 9");
        Ok(())
    });
}

/// Publishes direct TLS and STARTTLS with these priorities and says which one got the message.
async fn preferred(
    s: &Scene,
    direct_priority: u16,
    starttls_priority: u16,
) -> Result<&'static str> {
    let direct = PeerServer::listen(s.at(5401), s.good_behaviour()?).await?;
    let starttls = PeerServer::listen(s.at(5402), s.good_behaviour()?).await?;
    s.unpublish();
    let dns = s.rig.lab.dns();
    dns.xmpps_server(&s.domain, direct_priority, 0, 5401, &s.target());
    dns.xmpp_server(&s.domain, starttls_priority, 0, 5402, &s.target());
    let mut inside = s.inside().await?;
    let id = send(s, &mut inside).await?;
    tokio::select! {
        got = direct.stanza_id(&id) => {
            got?;
            let tls = direct.seen().pop().unwrap().tls.context("no TLS")?;
            ensure!(tls.alpn.as_deref() == Some("xmpp-server"), "{tls:?}");
            ensure!(starttls.connections() == 0);
            Ok("direct")
        }
        got = starttls.stanza_id(&id) => {
            got?;
            ensure!(direct.connections() == 0);
            Ok("starttls")
        }
    }
}

#[test]
fn r_06_direct_tls_first_where_its_priority_is_lower() {
    RIG.test(6, async |s| {
        ensure!(preferred(s, 1, 2).await? == "direct");
        Ok(())
    });
}

#[test]
fn r_06_starttls_first_where_its_priority_is_lower() {
    RIG.test(10, async |s| {
        ensure!(preferred(s, 2, 1).await? == "starttls");
        Ok(())
    });
}

#[test]
fn r_07_proxy_fqdn_replaces_srv_but_not_the_name_in_the_certificate() {
    RIG.test(7, async |s| {
        s.rig.lab.dns().host("route.example", s.address().ip());
        let outside = PeerServer::listen(s.at(5333), s.good_behaviour()?).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(!srv_asked(s), "SRV was asked for");
        let seen = outside.seen().pop().unwrap();
        ensure!(
            seen.tls.context("no TLS")?.sni.as_deref() == Some(&s.domain),
            "another name than the domain's was asked for"
        );
        Ok(())
    });
}

#[test]
fn r_07_a_certificate_of_the_target_s_name_alone_does_not_count() {
    HASTY.test(1, async |s| {
        let wrong = s
            .rig
            .lab
            .authority()
            .issue(&[&s.target()], xmpp_edge_tests::pki::Usage::ServerAuth);
        let identity = xmpp_edge_tests::peer::Identity::of(&wrong)?;
        let mut behaviour = xmpp_edge_tests::peer::Behaviour::good(identity);
        behaviour.dialback = false;
        let outside = s.serve(behaviour).await?;
        let mut inside = s.inside().await?;
        let (condition, text) = bounced(s, &mut inside).await?;
        ensure!(condition == "remote-server-timeout", "{condition}: {text}");
        ensure!(outside.stanzas().is_empty());
        s.unharmed(Moved::Attempt("PeerCertificateName")).await
    });
}

#[test]
fn r_14_during_the_pause_a_stanza_is_answered_at_once_with_cause_and_time() {
    RIG.test(14, async |s| {
        let mut inside = s.inside().await?;
        // The first try fails, the second is made at once, then there is a pause. A try may fall
        // after a pause: so, until one is answered in a pause.
        let text = wait::until("an answer in a pause", wait::GENEROUS, async || {
            let (condition, text) = bounced(s, &mut inside).await.ok()?;
            (condition == "remote-server-timeout" && text.contains("next try in")).then_some(text)
        })
        .await?;
        ensure!(text.contains("refused"), "no cause: {text}");
        // Many stanzas, few tries.
        let tries = s
            .grown(
                "attempts_total",
                &["step=\"tcp\"", "outcome=\"TcpRefused\""],
            )
            .await?;
        for _ in 0..200 {
            send(s, &mut inside).await?;
        }
        let (condition, _) = bounced(s, &mut inside).await?;
        ensure!(condition == "remote-server-timeout");
        let more = s
            .grown(
                "attempts_total",
                &["step=\"tcp\"", "outcome=\"TcpRefused\""],
            )
            .await?
            - tries;
        ensure!(more <= 6.0, "{more} tries for 200 stanzas");
        s.unharmed(Moved::Bounced("remote-server-timeout")).await?;
        // It is back: after the pause, stanzas pass.
        let outside = s.outside().await?;
        wait::until("a stanza passes again", wait::GENEROUS, async || {
            let id = send(s, &mut inside).await.ok()?;
            tokio::select! {
                got = outside.stanza_id(&id) => got.ok().map(|_| ()),
                _ = s.inside_gets(&id) => None,
            }
        })
        .await
    });
}
