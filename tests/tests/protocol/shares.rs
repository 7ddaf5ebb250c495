//! What the queues of one partner object may hold, seen from outside: none stops another (S-08), and an
//! outage costs no more memory than was queued (S-09).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    peer::{Login, Peer},
    pki::Usage,
    rig::{DOWN, Plan, Scene, Shared},
    wait,
};

/// `settings.queueTotalBytes`, and what is one partner object's at most.
const TOTAL: f64 = 8.0 * 1024.0 * 1024.0;
const SHARE: f64 = TOTAL / 4.0;
/// The same of the outage, so that errors ten times as large as what they are for stand out.
const OUTAGE_TOTAL: f64 = 4.0 * TOTAL;
const OUTAGE_SHARE: f64 = OUTAGE_TOTAL / 4.0;
/// Each pair's stream may have one read more in hand when there is no room any more, in KiB.
const READ: f64 = 64.0 * 1024.0;
/// Growth that is the allocator's and the sockets'.
const SLACK: f64 = 16.0 * 1024.0 * 1024.0;
/// A message of [`fill`] has more bytes than this.
const SMALLEST: f64 = 64.0;
/// Pairs of the partner: what their queues may hold, 1 MiB each, is more than [`TOTAL`].
const PAIRS: usize = 16;

const fn plan(section: &'static str, settings: fn() -> serde_json::Value) -> Plan {
    Plan {
        // The test's domain and all below it, and more streams than there are pairs.
        partner: |_| json!({ "connectionLimit": 1000, "additionalDomains": ["*.sh01.example", "*.sa01.example"] }),
        settings,
        ..Plan::standard(section, 1)
    }
}

// Each fills the queues of its own edge.
static FULL: Shared = Shared::new(plan("sh", || json!({ "queueTotalBytes": TOTAL as u64 })));
static OUTAGE: Shared = Shared::new(plan(
    "sa",
    || json!({ "queueTotalBytes": OUTAGE_TOTAL as u64, "queueTimeoutSeconds": 12 }),
));

/// Sends from many domains of the partner, towards a server inside that does not run, until the edge
/// takes no more. The streams stay open.
async fn fill(s: &Scene, body: usize) -> Result<Vec<Peer>> {
    let names: Vec<_> = (0..PAIRS)
        .map(|number| format!("n{number}.{}", s.domain))
        .collect();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let leaf = s.rig.lab.authority().issue(&all, Usage::ServerAuth);
    let mut streams = Vec::new();
    for name in &names {
        let peer = Peer::login(s.rig.public(), name, DOWN, &Login::External(&leaf)).await?;
        streams.push((name, peer.with_patience(Duration::from_secs(2))));
    }
    let body = "x".repeat(body);
    let floods = streams.into_iter().map(async |(name, mut peer)| {
        let burst = format!(
            "<message from='a@{name}' to='b@{DOWN}' type='chat'><body>{body}</body></message>"
        );
        let burst = burst.repeat(16_384 / burst.len() + 1);
        for _ in 0..2_000 {
            if peer.send(&burst).await.is_err() {
                return Ok(peer);
            }
        }
        anyhow::bail!("{name} was never slowed down")
    });
    futures::future::try_join_all(floods).await
}

#[test]
fn s_08_a_partner_that_fills_all_it_may_stops_nobody_else() {
    FULL.test(1, async |s| {
        let began = Instant::now();
        s.rig.serves_the_good_partner().await?;
        let usual = began.elapsed();
        let streams = fill(s, 1_000).await?;
        let held = s.grown("queue_bytes", &[]).await?;
        #[expect(clippy::cast_precision_loss, reason = "a few pairs")]
        let most = SHARE + streams.len() as f64 * READ;
        ensure!(held > SHARE / 2.0 && held < most, "{held} bytes, of {most}");
        // Others are served as before, not when room comes: what is queued waits for 20 s.
        let began = Instant::now();
        for _ in 0..5 {
            s.rig.serves_the_good_partner().await?;
        }
        let now = began.elapsed();
        let held = s.grown("queue_bytes", &[]).await?;
        ensure!(held > SHARE / 2.0, "{held} bytes: the queues are not full");
        ensure!(
            now < 50 * usual,
            "{now:?} for five, {usual:?} for one before"
        );
        Ok(())
    });
}

#[test]
fn s_09_an_outage_inside_makes_no_more_memory_than_was_queued() {
    OUTAGE.test(1, async |s| {
        // Whoever is to take the errors accepts connections and says nothing.
        let _silent = TcpListener::bind(s.address()).await?;
        for number in 0..PAIRS {
            let name = format!("n{number}.{}", s.domain);
            s.rig.lab.dns().xmpp_server(&name, 0, 0, 5269, &s.target());
        }
        let before = s.rig.edge.lock().await.resident_kib()?;
        // Errors are longer than these.
        let streams = fill(s, 1).await?;
        let queued = s.grown("queue_bytes", &[]).await?;
        ensure!(queued > OUTAGE_SHARE / 4.0, "{queued} bytes are queued");
        let mut most: f64 = 0.0;
        let mut resident = 0;
        // Until as much has failed: the next comes as soon as there is room.
        wait::until("what was queued fails", 2 * wait::GENEROUS, async || {
            resident = resident.max(s.rig.edge.lock().await.resident_kib().ok()?);
            most = most.max(s.grown("queue_bytes", &[]).await.ok()?);
            let failed = s.grown("stanzas_bounced_total", &[]).await.ok()?;
            (failed * SMALLEST > queued).then_some(())
        })
        .await?;
        #[expect(clippy::cast_precision_loss, reason = "a few pairs")]
        let bound = OUTAGE_SHARE * 9.0 / 8.0 + streams.len() as f64 * READ;
        ensure!(most < bound, "{most} bytes held, of {bound}");
        // Much of it is the allocator's, which keeps what it had. An error is ten times as long as these.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let grown = resident.saturating_sub(before) as f64 * 1024.0;
        ensure!(
            grown < 3.0 * queued + SLACK,
            "grew by {grown} bytes for {queued}"
        );
        s.rig.serves_the_good_partner().await
    });
}
