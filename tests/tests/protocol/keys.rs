//! E-19: the partner's key changes between two connections, the edge restarts in between.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    edge::manifest,
    peer::{Login, Peer},
    pki::{Leaf, Usage},
    rig::{OWN, Plan, Scene, Shared},
    wait,
};

/// An edit or a key seen is in force.
const IN_FORCE: Duration = Duration::from_secs(10);

// One edge for each: they are restarted.
static IGNORE: Shared = Shared::new(Plan {
    partner: |_| trust("Ignore", &[]),
    ..Plan::standard("ki", 1)
});
static WARN: Shared = Shared::new(Plan {
    partner: |_| trust("Warn", &[]),
    ..Plan::standard("kw", 1)
});
static STRICT: Shared = Shared::new(Plan {
    partner: |_| trust("Refuse", &[]),
    ..Plan::standard("ks", 1)
});
static REFUSE: Shared = Shared::new(Plan {
    partner: |_| trust("Refuse", &[]),
    ..Plan::standard("kr", 1)
});

fn trust(on_key_change: &str, pins: &[String]) -> Value {
    json!({ "trust": { "onKeyChange": on_key_change, "pinnedSpkiSha256": pins } })
}

/// Another certificate for the same domain, by the same CA.
fn changed(s: &Scene) -> Leaf {
    let authority = s.rig.lab.authority();
    authority.issue(&[&s.domain], Usage::ServerAuth)
}

async fn connects(s: &Scene, leaf: &Leaf) -> Result<Peer> {
    s.partner_by(&Login::External(leaf)).await
}

/// A message arrives over a new stream with this key.
async fn delivers(s: &Scene, leaf: &Leaf) -> Result<()> {
    let mut peer = connects(s, leaf).await?;
    s.delivers_inwards(&mut peer).await?;
    peer.send("</stream:stream>").await
}

async fn generation(s: &Scene) -> Result<u64> {
    let status = s.rig.edge.lock().await.status().await?;
    status["config"]["generation"]
        .as_u64()
        .context("no generation in /status")
}

async fn reaches(s: &Scene, wanted: u64) -> Result<()> {
    let what = format!("generation {wanted}");
    wait::until(&what, IN_FORCE, || async {
        (generation(s).await.ok()? >= wanted).then_some(())
    })
    .await
}

/// What a counter of this partner says since the edge started last.
async fn counted(s: &Scene, name: &str, label: &str) -> Result<f64> {
    let partner = format!("partner=\"{}\"", s.name);
    let edge = s.rig.edge.lock().await;
    edge.metric(name, &[&partner, label]).await
}

async fn restarts(s: &Scene) -> Result<()> {
    s.rig.edge.lock().await.restart().await
}

fn remembered(s: &Scene, log: &str) -> usize {
    log.lines()
        .filter(|line| line.contains("key is recorded") && line.contains(&s.name))
        .count()
}

#[test]
fn e_19_ignore_takes_a_changed_key_and_remembers_none() {
    IGNORE.test(1, async |s| {
        let before = generation(s).await?;
        delivers(s, &s.identity).await?;
        restarts(s).await?;
        delivers(s, &changed(s)).await?;
        ensure!(generation(s).await? == before, "the configuration changed");
        ensure!(counted(s, "peer_key_changed_total", "").await? == 0.0);
        let log = s.rig.edge.lock().await.log();
        ensure!(!log.contains("key has changed") && remembered(s, &log) == 0);
        Ok(())
    });
}

#[test]
fn e_19_warn_takes_a_changed_key_says_so_once_and_remembers_it() {
    WARN.test(1, async |s| {
        let before = generation(s).await?;
        delivers(s, &s.identity).await?;
        reaches(s, before + 1).await?;
        restarts(s).await?;
        ensure!(
            generation(s).await? == before + 1,
            "forgotten, or counted twice"
        );
        delivers(s, &s.identity).await?;
        ensure!(counted(s, "peer_key_changed_total", "").await? == 0.0);
        let next = changed(s);
        delivers(s, &next).await?;
        ensure!(counted(s, "peer_key_changed_total", "").await? == 1.0);
        reaches(s, before + 2).await?;
        for leaf in [&next, &s.identity] {
            delivers(s, leaf).await?;
        }
        ensure!(counted(s, "peer_key_changed_total", "").await? == 1.0);
        ensure!(generation(s).await? == before + 2);
        let log = s.rig.edge.lock().await.log();
        let warning = log.lines().find(|line| line.contains("key has changed"));
        let warning = warning.context("no warning")?;
        ensure!(warning.contains(&next.pin()) && warning.contains(&s.domain));
        ensure!(remembered(s, &log) == 2, "{log}");
        Ok(())
    });
}

#[test]
fn e_19_refuse_takes_a_changed_key_only_once_it_is_pinned() {
    REFUSE.test(1, async |s| {
        let before = generation(s).await?;
        delivers(s, &s.identity).await?;
        reaches(s, before + 1).await?;
        restarts(s).await?;
        let next = changed(s);
        // Twice: what was refused is not known the second time.
        for _ in 0..2 {
            ensure!(connects(s, &next).await.is_err(), "the new key was taken");
        }
        let refused = "outcome=\"CertificateKeyChanged\"";
        ensure!(counted(s, "attempts_total", refused).await? >= 2.0);
        delivers(s, &s.identity).await?;
        ensure!(
            generation(s).await? == before + 1,
            "a refused key was remembered"
        );

        let mut spec = trust("Refuse", &[next.pin()]);
        spec["domain"] = json!(s.domain);
        spec["partnerType"] = json!("Federated");
        let pinned = manifest("XmppFederatedPartner", &s.name, spec);
        s.rig.edge.lock().await.apply(&pinned)?;
        reaches(s, before + 2).await?;
        delivers(s, &next).await?;
        let log = s.rig.edge.lock().await.log();
        ensure!(remembered(s, &log) == 1, "only the first: {log}");
        Ok(())
    });
}

#[test]
fn e_19_a_key_that_a_certificate_of_another_domain_shows_is_not_remembered() {
    STRICT.test(1, async |s| {
        let other = s
            .rig
            .lab
            .authority()
            .issue(&["other.example"], Usage::ServerAuth);
        let login = Login::External(&other);
        let refused = Peer::login(s.rig.public(), &s.domain, OWN, &login).await;
        ensure!(refused.is_err(), "a foreign certificate was taken");
        let log = s.rig.edge.lock().await.log();
        ensure!(!log.contains(&other.pin()), "a foreign key was remembered");
        Ok(())
    });
}
