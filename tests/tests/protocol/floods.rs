//! What a stranger or a partner can cause at will has a number: memory, lines of the log. The bound is
//! read from the program's own account and seen from outside (RSS).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xmpp_edge_tests::{
    edge::manifest,
    peer::{Login, Peer},
    pki::Usage,
    rig::{ALICE, OWN, Plan, Scene, Shared},
    wait,
};

/// Growth that is the allocator's and the sockets', in KiB.
const SLACK_KIB: u64 = 24 * 1024;

// Each floods its own edge.
static NAMES: Shared = Shared::new(Plan {
    partner: |test| match test {
        2 => Value::Null,
        // So that a stream without a certificate is let in at all.
        1 => json!({ "saslNegotiation": "Optional" }),
        _ => json!({}),
    },
    objects: |_| {
        let wildcard = json!({
            "domain": "agency.example",
            "additionalDomains": ["*.agency.example"],
            "partnerType": "Federated",
        });
        vec![manifest("XmppFederatedPartner", "agencies", wildcard)]
    },
    ..Plan::standard("fn", 2)
});
static PRESENCE: Shared = Shared::new(Plan::standard("fp", 2));
static SCRAPES: Shared = Shared::new(Plan::standard("fs", 1));
static LINES: Shared = Shared::new(Plan {
    partner: |_| json!({ "partnerType": "PublicUnverified" }),
    ..Plan::standard("fl", 1)
});

/// Names of domains below a wildcard, as many as a stranger sends in one go; read is what comes back.
async fn names(s: &Scene, from: usize, to: usize) -> Result<()> {
    let (mut peer, _) = s.secured(None).await?;
    let pad = "a".repeat(60);
    let texts: String = (from..to)
        .map(|number| {
            let name = format!("x{number}.{pad}.{pad}.{pad}.agency.example");
            format!("<db:result from='{name}' to='{OWN}'>k</db:result>")
        })
        .collect();
    // The edge may have had enough before it has read it all.
    peer.send_anyway(&texts).await;
    for _ in from..to {
        if peer.element().await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn metric(s: &Scene, name: &str) -> Result<f64> {
    s.rig.edge.lock().await.metric(name, &[]).await
}

async fn resident_kib(s: &Scene) -> Result<u64> {
    s.rig.edge.lock().await.resident_kib()
}

#[test]
fn s_01_twenty_thousand_names_of_a_wildcard_partner_cost_a_constant_and_blind_nobody() {
    NAMES.test(1, async |s| {
        let before = resident_kib(s).await?;
        for burst in 0..100 {
            names(s, burst * 200, (burst + 1) * 200).await?;
        }
        let held = metric(s, "attempts_bytes").await?;
        ensure!(held < 512.0 * 1024.0, "{held} bytes are accounted");
        let grown = resident_kib(s).await?.saturating_sub(before);
        ensure!(grown < SLACK_KIB, "grew by {grown} KiB");

        // A partner that is new since the flood is seen, and the gateway too.
        let name = "late";
        // Published by the rig, a partner of nobody so far.
        let domain = "fn02.example";
        let partner = json!({ "domain": domain, "partnerType": "Federated" });
        s.rig
            .edge
            .lock()
            .await
            .apply(&manifest("XmppFederatedPartner", name, partner))?;
        let leaf = s.rig.lab.authority().issue(&[domain], Usage::ServerAuth);
        let login = Login::External(&leaf);
        let mut peer = wait::until("the new partner is let in", wait::GENEROUS, async || {
            Peer::login(s.rig.public(), domain, OWN, &login).await.ok()
        })
        .await?;
        let id = s.fresh();
        peer.message(&format!("rob@{domain}"), ALICE, &id, "hello")
            .await?;
        s.inside_gets(&id).await?;
        let status = s.rig.edge.lock().await.status().await?;
        let of = |list: &str, key: &str, value: &str| {
            let list = status[list].as_array()?;
            list.iter().find(|own| own[key] == value).cloned()
        };
        let partner = of("partners", "name", name).context("the partner is not in /status")?;
        ensure!(partner["lastConnectedTime"].is_string(), "{partner}");
        ensure!(
            partner["lastAttempt"]
                .as_array()
                .is_some_and(|steps| !steps.is_empty()),
            "{partner}"
        );
        let gateways = status["gateways"].as_array().context("gateways")?;
        let own = gateways.iter().find(|own| own["domains"][0] == OWN);
        ensure!(own.is_some_and(|own| own["reachable"] == true), "{own:?}");
        Ok(())
    });
}

#[test]
fn s_02_presence_of_ever_new_devices_and_users_stays_within_its_partners_share() {
    PRESENCE.test(1, async |s| {
        let mut peer = s.partner().await?;
        let before = resident_kib(s).await?;
        let resource = "r".repeat(900);
        for burst in 0..100 {
            let texts: String = (0..150)
                .map(|number| {
                    let user = burst * 150 + number;
                    let from = format!("u{user}@{}/{resource}", s.domain);
                    format!("<presence from='{from}' to='u{user}@{OWN}/{resource}'/>")
                })
                .collect();
            peer.send(&texts).await?;
        }
        let id = s.fresh();
        peer.message(&s.user("rob"), ALICE, &id, "all of it is through")
            .await?;
        s.inside_gets(&id).await?;
        let held = metric(s, "presence_bytes").await?;
        ensure!(held > 1e6 && held <= 8.0 * 1024.0 * 1024.0, "{held} bytes");
        let grown = resident_kib(s).await?.saturating_sub(before);
        ensure!(grown < 8 * 1024 + SLACK_KIB, "grew by {grown} KiB");
        // Whoever ended the last stream, a minute later it is taken back.
        peer.send("</stream:stream>").await?;
        drop(peer);
        wait::until("presence is taken back", 3 * wait::GENEROUS, async || {
            let held = metric(s, "presence_bytes").await.ok()?;
            (held < 4.0 * 1024.0 * 1024.0).then_some(())
        })
        .await
    });
}

#[test]
fn s_10_refused_messages_and_failed_connections_cause_a_bounded_number_of_lines() {
    LINES.test(1, async |s| {
        // Nobody takes the answers.
        s.unpublish();
        let mut peer = s.partner().await?;
        let message = format!(
            "<message from='{}' to='{ALICE}' type='chat'><body>x</body></message>",
            s.user("rob")
        );
        let burst = message.repeat(1000);
        for _ in 0..200 {
            peer.send(&burst).await?;
        }
        wait::until("all are counted", 2 * wait::GENEROUS, async || {
            let labels = ["reason=\"Contact\""];
            let edge = s.rig.edge.lock().await;
            let refused = edge.metric("stanzas_refused_total", &labels).await.ok()?;
            (refused >= 200_000.0).then_some(())
        })
        .await?;
        for _ in 0..6000 {
            let mut stream = TcpStream::connect(s.rig.direct()).await?;
            // The beginning of a handshake, and no more.
            let _ = stream.write_all(&[22, 3, 1, 0, 1, 9]).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let read = stream.read_to_end(&mut rest);
            let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
        }
        let log = s.rig.edge.lock().await.log();
        let lines = log.lines().count();
        ensure!(lines < 300, "{lines} lines, {} bytes", log.len());
        Ok(())
    });
}

#[test]
fn scrapes_at_the_same_time_show_the_same_streams() {
    SCRAPES.test(1, async |s| {
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        let edge = s.rig.edge.lock().await;
        let label = format!("partner=\"{}\"", s.name);
        for _ in 0..20 {
            let labels = ["side=\"partner\"", label.as_str()];
            let scrapes = (0..8).map(|_| edge.metric("streams", &labels));
            for streams in futures::future::join_all(scrapes).await {
                ensure!(streams? == 1.0, "a gauge was cleared by another scrape");
            }
        }
        Ok(())
    });
}
