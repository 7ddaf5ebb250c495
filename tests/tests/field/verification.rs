//! Keys that come at once, and keys that are none.

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::{ClientTls, Open, Peer},
    rig::{Moved, OWN, Plan, Scene, Shared},
};

use super::RIG;

/// A stranger has the ordinary time.
static PATIENT: Shared = Shared::new(Plan {
    partner: |_| json!({ "saslNegotiation": "Optional" }),
    ..Plan::standard("fv", 1)
});

/// A connection inside TLS without a certificate.
async fn secured(s: &Scene) -> Result<Peer> {
    let mut peer = s.connect().await?;
    peer.open(&s.domain, OWN).await?;
    peer.starttls(&ClientTls::new(Some(OWN), None)).await?;
    peer.open_with(&Open::new(&s.domain, OWN)).await?;
    peer.header().await?;
    peer.features().await?;
    Ok(peer)
}

/// A partner that comes back opens all its streams at once: each key waits for its turn.
#[test]
fn s15_twenty_keys_at_once_are_twenty_times_valid() {
    RIG.test(3, async |s| {
        let server = s.outside().await?;
        server.made("good");
        let mut peers = Vec::new();
        for _ in 0..20 {
            peers.push(secured(s).await?);
        }
        for peer in &mut peers {
            peer.db_result(&s.domain, OWN, "good").await?;
        }
        let mut verdicts = Vec::new();
        for peer in &mut peers {
            verdicts.push(peer.db_answer("result", &s.domain, OWN).await?);
        }
        ensure!(verdicts.iter().all(|got| got == "valid"), "{verdicts:?}");
        Ok(())
    });
}

/// S-07: a stranger has endless names under a wildcard, and one partner object.
#[test]
fn s_07_made_up_names_of_a_wildcard_are_looked_up_a_bounded_number_of_times() {
    RIG.test(4, async |s| {
        const ROUNDS: usize = 4;
        const STREAMS: usize = 10;
        const NAMES: usize = 8;
        for round in 0..ROUNDS {
            let mut peers = Vec::new();
            for stream in 0..STREAMS {
                let mut peer = secured(s).await?;
                let domain = |name| format!("n{round}{stream}-{name}.{}", s.domain);
                for name in 0..NAMES {
                    peer.db_result(&domain(name), OWN, "bad").await?;
                }
                peers.push((peer, domain(NAMES - 1)));
            }
            for (peer, last) in &mut peers {
                // Refused, or not found: what counts is what it costs.
                let _ = peer.db_answer("result", last, OWN).await;
            }
        }
        let suffix = format!(".{}", s.domain);
        let asked = s.rig.lab.dns().asked();
        let mut names: Vec<_> = asked
            .iter()
            .filter(|(name, _)| name.ends_with(&suffix))
            .filter_map(|(name, _)| {
                let own = name.strip_suffix(&suffix)?;
                Some(own.rsplit('.').next()?.to_owned())
            })
            .filter(|label| label.starts_with('n') && label.contains('-'))
            .collect();
        let questions = names.len();
        names.sort();
        names.dedup();
        ensure!(names.len() <= 60, "{} names were looked up", names.len());
        ensure!(questions <= 60 * 12, "{questions} questions");
        s.unharmed(Moved::Attempt("AuthoritativeBusy")).await
    });
}

/// What a partner queued behind its key is not refused because its authoritative server was away for a
/// moment: it hears of a failure no sooner than the edge has tried again.
#[test]
fn a_key_is_verified_once_the_authoritative_server_is_back() {
    PATIENT.test(1, async |s| {
        let mut first = secured(s).await?;
        first.db_result(&s.domain, OWN, "good").await?;
        let failed = ["step=\"tcp\"", "outcome=\"TcpRefused\""];
        s.moved("attempts_total", &failed).await?;
        // A key that comes meanwhile waits like the first.
        let mut second = secured(s).await?;
        second.db_result(&s.domain, OWN, "good").await?;
        let server = s.outside().await?;
        server.made("good");
        for peer in [&mut first, &mut second] {
            let got = peer.db_answer("result", &s.domain, OWN).await?;
            ensure!(got == "valid", "{got}");
        }
        s.delivers_inwards(&mut first).await
    });
}
