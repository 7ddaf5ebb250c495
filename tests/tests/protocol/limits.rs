//! L: bounds, and those who push against them.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use xmpp_edge_tests::{
    peer::{Event, Login, Open, Peer, ns},
    pki::{Draft, Usage},
    rig::{ALICE, GOOD, Moved, OWN, Plan, Rig, Scene, Shared, alone},
    wait,
};

/// `settings.maxStanzaBytes` of the small rig: the least that there is (RFC 6120 section 13.12).
const LIMIT: usize = 10_000;

fn partner(test: u8) -> Value {
    match test {
        3 | 10 => json!({ "saslNegotiation": "Optional" }),
        7 => json!({ "limits": { "stanzasPerSecond": 50 } }),
        17 => json!({ "connectionLimit": 2 }),
        _ => json!({}),
    }
}

static RIG: Shared = Shared::new(Plan {
    partner,
    ..Plan::standard("l", 17)
});

/// Small stanzas, and 5 s to set a stream up.
static SMALL: Shared = Shared::new(Plan {
    settings: || json!({ "maxStanzaBytes": LIMIT, "streamEstablishmentTimeoutSeconds": 5 }),
    ..Plan::standard("m", 6)
});

/// Connects from another address of the lab, so that the bounds of an address are the test's own.
async fn from_host(rig: &Rig, host: u8) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((rig.lab.ip(host), 0)))?;
    Ok(socket.connect(rig.public()).await?)
}

/// A message of exactly this many bytes.
fn sized(s: &Scene, to: &str, id: &str, bytes: usize) -> String {
    let (head, tail) = (
        format!(
            "<message from='{}' to='{to}' id='{id}' type='chat'><body>",
            s.user("rob")
        ),
        "</body></message>",
    );
    let body = "x".repeat(bytes - head.len() - tail.len());
    head + &body + tail
}

/// Open files of a process.
fn open_files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn l_01_a_stanza_of_the_limit_passes_and_one_byte_more_is_policy_violation() {
    SMALL.test(1, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        let id = s.fresh();
        peer.send(sized(s, ALICE, &id, LIMIT)).await?;
        s.inside_gets(&id).await?;
        let id = s.forbidden();
        peer.send(sized(s, ALICE, &id, LIMIT + 1)).await?;
        let error = outside.stanza_id(&id).await?;
        ensure!(
            error.error_condition() == Some("policy-violation"),
            "{error:?}"
        );
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Refused("TooLarge")).await
    });
}

#[test]
fn l_01_the_limit_is_told() {
    SMALL.test(2, async |s| {
        let (mut peer, features) = s.secured(Some(&s.identity)).await?;
        ensure!(features.max_bytes() == Some(LIMIT as u64), "{features:?}");
        ensure!(peer.auth("EXTERNAL", "=").await?.name == "success");
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(features.max_bytes() == Some(LIMIT as u64), "{features:?}");
        Ok(())
    });
}

#[test]
fn l_02_what_is_larger_than_the_partner_takes_comes_back_and_the_stream_stays() {
    RIG.test(2, async |s| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.max_bytes = Some(20_000);
        let outside = s.serve(behaviour).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        let id = s.fresh();
        let large = "x".repeat(20_000);
        inside.message(ALICE, &s.user("rob"), &id, &large).await?;
        let error = s.inside_gets(&id).await?;
        ensure!(
            error.error_condition() == Some("policy-violation"),
            "{error:?}"
        );
        ensure!(
            error.error_text().contains("20000"),
            "{}",
            error.error_text()
        );
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(outside.connections() == 1, "the stream was not kept");
        s.unharmed(Moved::Bounced("policy-violation")).await
    });
}

#[test]
fn l_03_before_authentication_little_is_listened_to() {
    RIG.test(3, async |s| {
        let junk = "x".repeat(11_000);
        // In the header.
        let mut peer = s.connect().await?;
        let mut open = Open::new(&s.domain, OWN);
        open.more = format!(" junk='{junk}'");
        peer.send_anyway(open.text()).await;
        peer.expect_stream_error("policy-violation").await?;
        // In an element.
        let mut peer = s.connect().await?;
        peer.open(&s.domain, OWN).await?;
        peer.send_anyway(format!("<starttls xmlns='{}'>{junk}", ns::TLS))
            .await;
        peer.expect_stream_error("policy-violation").await?;
        // In many elements after TLS, each of them small: answered and then ended.
        let (mut peer, _) = s.secured(None).await?;
        peer.send_anyway("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".repeat(500))
            .await;
        peer.expect_stream_error("policy-violation").await?;
        s.unharmed(Moved::Connection("TooLarge")).await
    });
}

#[test]
fn l_04_connections_that_say_nothing_are_bounded_and_lock_nobody_out() {
    RIG.test(4, async |s| {
        let pid = s.rig.edge.lock().await.pid().context("no edge")?;
        let mut silent = Vec::new();
        // From few addresses, then from many: the bound of an address, then that of all.
        for host in 200..=250 {
            for _ in 0..40 {
                silent.push(from_host(&s.rig, host).await?);
            }
        }
        s.rig.serves_the_good_partner().await?;
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        let files = open_files(pid)?;
        ensure!(files < 1_400, "{files} files are open for {}", silent.len());
        // The first were closed without a word of theirs.
        let first = &mut silent[0];
        let mut nothing = [0; 64];
        let end = tokio::time::timeout(wait::GENEROUS, first.read(&mut nothing)).await?;
        ensure!(!matches!(end, Ok(1..)), "the edge spoke first");
        drop(silent);
        wait::until("the files are closed", wait::GENEROUS, async || {
            (open_files(pid).ok()? < 400).then_some(())
        })
        .await?;
        s.unharmed(Moved::Connection("Unauthenticated")).await
    });
}

#[test]
fn l_05_a_flood_of_openings_from_one_address_harms_only_that_address() {
    RIG.test(5, async |s| {
        let rig = &s.rig;
        let flood = async {
            let mut open = Vec::new();
            let text = Open::new(&s.domain, OWN).text();
            for _ in 0..600 {
                let mut stream = from_host(rig, 251).await?;
                // It may have been closed for the next already.
                let _ = stream.write_all(text.as_bytes()).await;
                open.push(stream);
            }
            anyhow::Ok(open)
        };
        let legitimate = async {
            for _ in 0..5 {
                rig.serves_the_good_partner().await?;
            }
            anyhow::Ok(())
        };
        let (open, ()) = tokio::try_join!(flood, legitimate)?;
        drop(open);
        s.unharmed(Moved::Connection("Unauthenticated")).await
    });
}

#[test]
fn l_06_a_header_byte_by_byte_ends_when_the_time_to_set_up_is_over() {
    SMALL.test(3, async |s| {
        let mut peer = s.connect().await?.with_patience(Duration::from_millis(400));
        let text = Open::new(&s.domain, OWN).text();
        let mut bytes = text.bytes().cycle();
        let end = tokio::time::Instant::now() + wait::GENEROUS;
        let condition = loop {
            ensure!(tokio::time::Instant::now() < end, "it is still listened to");
            peer.send_anyway([bytes.next().unwrap()]).await;
            // Nothing comes while the edge listens.
            match peer.next().await {
                Ok(Event::Open(_)) => break peer.stream_error().await?,
                Ok(Event::Eof | Event::Broken(_)) => break "closed".to_owned(),
                Ok(other) => anyhow::bail!("{other:?}"),
                Err(_) => {}
            }
        };
        ensure!(condition == "connection-timeout", "{condition}");
        s.unharmed(Moved::Connection("EstablishmentTimeout")).await
    });
}

#[test]
fn l_06_a_stream_that_never_authenticates_ends_too() {
    SMALL.test(4, async |s| {
        let (mut peer, _) = s.secured(Some(&s.identity)).await?;
        peer.expect_stream_error("connection-timeout").await?;
        s.unharmed(Moved::Connection("EstablishmentTimeout")).await
    });
}

#[test]
fn l_07_over_the_rate_a_partner_is_slowed_down_and_nothing_is_dropped() {
    RIG.test(7, async |s| {
        let mut peer = s.partner().await?;
        let ids: Vec<_> = (0..150).map(|_| s.fresh()).collect();
        let all: String = ids.iter().map(|id| sized(s, ALICE, id, 200)).collect();
        peer.send(all).await?;
        s.rig.serves_the_good_partner().await?;
        for id in &ids {
            s.inside_gets(id).await?;
        }
        s.delivers_inwards(&mut peer).await?;
        s.moved("throttled_seconds_total", &["direction=\"inbound\""])
            .await
    });
}

#[test]
fn l_08_a_flood_of_tiny_stanzas_keeps_nobody_else_waiting() {
    RIG.test(8, async |s| {
        let mut peer = s.partner().await?;
        let rob = s.user("rob");
        let one = format!("<presence from='{rob}' to='{ALICE}'/>");
        let flood = async {
            peer.send(one.repeat(20_000)).await?;
            s.delivers_inwards(&mut peer).await
        };
        let others = async {
            for _ in 0..3 {
                s.rig.serves_the_good_partner().await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(flood, others)?;
        Ok(())
    });
}

#[test]
fn l_09_streams_that_come_and_go_leave_nothing_behind() {
    alone(async {
        let rig = Rig::start(Plan::standard("s", 0)).await?;
        let pid = rig.edge.lock().await.pid().context("no edge")?;
        rig.serves_the_good_partner().await?;
        let before = open_files(pid)?;
        for _ in 0..50 {
            rig.serves_the_good_partner().await?;
            // One that breaks off in the middle of the handshake.
            let mut broken = Peer::connect(rig.public()).await?;
            broken.open(GOOD, OWN).await?;
            broken
                .send(format!("<starttls xmlns='{}'/>", ns::TLS))
                .await?;
        }
        wait::until("the files are closed", wait::GENEROUS, async || {
            (open_files(pid).ok()? <= before + 2).then_some(())
        })
        .await?;
        let streams = rig.edge.lock().await.status().await?;
        let streams = streams["streams"].as_array().map_or(0, Vec::len);
        ensure!(streams < 10, "{streams} streams are left");
        Ok(())
    });
}

#[test]
fn l_10_a_certificate_with_thousands_of_names_costs_little() {
    RIG.test(10, async |s| {
        let many = |count: usize| {
            let names: Vec<String> = (0..count)
                .map(|n| format!("n{n}.example"))
                .chain([s.domain.clone()])
                .collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            s.rig.lab.authority().issue_as(&Draft {
                common_name: "many".into(),
                usage: Usage::ServerAuth,
                ..Draft::of(&names)
            })
        };
        // One that TLS carries is judged like any other.
        let (_, features) = s.secured(Some(&many(1_000))).await?;
        ensure!(features.external(), "{features:?}");
        // One that lacks the name is told with few of those that it has.
        let names: Vec<String> = (0..1_000).map(|n| format!("n{n}.example")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let other = s.rig.lab.authority().issue(&names, Usage::ServerAuth);
        let (_, features) = s.secured(Some(&other)).await?;
        ensure!(!features.external());
        // 10,000 are more than a handshake takes: refused, or judged; never a stream without end.
        if let Ok((mut peer, features)) = s.secured(Some(&many(10_000))).await
            && features.external()
        {
            ensure!(peer.auth("EXTERNAL", "=").await?.name == "success");
        }
        let log = s.rig.edge.lock().await.log();
        let longest = log.lines().map(str::len).max().unwrap_or_default();
        ensure!(longest < 4_096, "a line of {longest} bytes");
        s.unharmed(Moved::Attempt("PeerCertificateName")).await
    });
}

#[test]
fn l_11_nothing_that_a_peer_says_forges_a_line_of_the_log() {
    RIG.test(11, async |s| {
        let forged = "2026-01-01T00:00:00Z  INFO forged: all is well";
        let break_ = format!("x&#10;{forged}&#13;\u{9b}31m\u{202e}");
        let mut open = Open::new(&s.domain, OWN);
        open.from = None;
        open.more = format!(" from='{break_}'");
        let mut peer = s.connect().await?;
        peer.send_anyway(open.text()).await;
        peer.stream_error().await?;
        let rob = s.user("rob");
        let mut peer = s.partner().await?;
        // In an address that passes policy's look, in a condition, in a text.
        for stanza in [
            format!("<message from='{rob}/{break_}' to='bob@{OWN}' type='chat'><body>x</body></message>"),
            format!("<message from='{rob}' to='bob@{OWN}/{break_}' type='{break_}'><body>x</body></message>"),
        ] {
            peer.send_anyway(stanza).await;
        }
        peer.send_anyway(format!(
            "<stream:error><undefined-condition xmlns='{0}'/><text xmlns='{0}'>{break_}</text></stream:error>",
            ns::STREAM_ERRORS
        ))
        .await;
        peer.ended().await?;
        s.rig.serves_the_good_partner().await?;
        let log = s.rig.edge.lock().await.log();
        let hit = log.lines().find(|line| line.starts_with(forged));
        ensure!(hit.is_none(), "a line was forged");
        ensure!(
            !log.contains(['\r', '\u{1b}', '\u{9b}', '\u{202e}']),
            "control characters are in the log"
        );
        let metrics = s.rig.metrics().await?;
        ensure!(!metrics.contains("forged"), "a label was forged");
        let status = s.rig.edge.lock().await.get("/status").await?.1;
        ensure!(!status.contains(['\u{9b}', '\u{202e}']) || serde_json::from_str::<Value>(&status).is_ok());
        Ok(())
    });
}

#[test]
fn l_12_unlisted_domains_make_no_series() {
    RIG.test(12, async |s| {
        let series = |metrics: &str| metrics.lines().count();
        let mut peer = s.connect().await?;
        peer.open_with(&Open::new("knock.example", OWN)).await?;
        peer.stream_error().await?;
        s.rig.serves_the_good_partner().await?;
        for n in 0..300 {
            let mut peer = s.connect().await?;
            peer.open_with(&Open::new(&format!("knock{n}.example"), OWN))
                .await?;
            peer.header().await?;
            peer.expect_stream_error("policy-violation").await?;
        }
        let metrics = s.rig.metrics().await?;
        ensure!(!metrics.contains("knock"), "a stranger has a series");
        // Others' tests run beside and have series of their own.
        ensure!(series(&metrics) < 5_000, "{} lines", series(&metrics));
        s.unharmed(Moved::Connection("PartnerNotAllowed")).await
    });
}

/// A PROXY header of version 2 that says that the connection comes from `source`.
fn proxy_header(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&source);
    header.extend_from_slice(&[192, 0, 2, 1]);
    header.extend_from_slice(&[0x30, 0x39, 0x14, 0x95]);
    header
}

#[test]
fn l_13_without_trusted_sources_a_proxy_header_is_not_listened_to() {
    RIG.test(13, async |s| {
        let mut peer = s.connect().await?;
        peer.send_anyway(proxy_header([203, 0, 113, 7])).await;
        peer.send_anyway(Open::new(&s.domain, OWN).text()).await;
        let condition = peer.stream_error().await?;
        // Its zero bytes look like UTF-16.
        ensure!(condition == "unsupported-encoding", "{condition}");
        let status = s.rig.edge.lock().await.get("/status").await?.1;
        ensure!(!status.contains("203.0.113.7"));
        s.rig.serves_the_good_partner().await
    });
}

#[test]
fn l_13_a_proxy_header_counts_from_a_trusted_source_alone() {
    alone(async {
        let rig = Rig::start(Plan {
            pool: || {
                json!({ "service": { "proxyProtocol": { "trustedSources": ["127.0.0.1/32"] } } })
            },
            ..Plan::standard("y", 1)
        })
        .await?;
        // From another address: not even a header helps.
        let mut untrusted = Peer::over(from_host(&rig, 200).await?);
        untrusted.send_anyway(proxy_header([203, 0, 113, 7])).await;
        untrusted
            .send_anyway(Open::new("y01.example", OWN).text())
            .await;
        ensure!(untrusted.ended().await?.is_empty());
        // From the trusted one without a header: refused too.
        let mut bare = Peer::connect(rig.public()).await?;
        bare.send_anyway(Open::new("y01.example", OWN).text()).await;
        ensure!(bare.ended().await?.is_empty());
        // With one: served, and known by that address.
        let identity = rig
            .lab
            .authority()
            .issue(&["y01.example"], Usage::ServerAuth);
        let mut peer = Peer::connect(rig.public()).await?;
        peer.send(proxy_header([203, 0, 113, 7])).await?;
        peer.authenticate("y01.example", OWN, &Login::External(&identity))
            .await?;
        let id = rig.fresh();
        peer.message("rob@y01.example", ALICE, &id, "hello").await?;
        rig.inside.stanza_id(&id).await?;
        let edge = rig.edge.lock().await;
        let streams = edge.streams("Partner").await?;
        ensure!(
            streams.iter().any(|s| s["address"]
                .as_str()
                .is_some_and(|a| a.starts_with("203.0.113.7"))),
            "{streams:?}"
        );
        for reason in ["ProxyHeaderUntrusted", "ProxyHeader"] {
            let label = format!("reason=\"{reason}\"");
            let count = edge.metric("connections_refused_total", &[&label]).await?;
            ensure!(count > 0.0, "no {reason}");
        }
        Ok(())
    });
}

#[test]
fn l_05_the_streams_of_a_partner_are_counted() {
    RIG.test(17, async |s| {
        let mut first = s.partner().await?;
        let mut second = s.partner().await?;
        let (mut third, _) = s.secured(Some(&s.identity)).await?;
        third.auth("EXTERNAL", "=").await?;
        third.open_with(&Open::new(&s.domain, OWN)).await?;
        third.expect_stream_error("resource-constraint").await?;
        s.delivers_inwards(&mut first).await?;
        s.delivers_inwards(&mut second).await?;
        s.rig.serves_the_good_partner().await
    });
}
