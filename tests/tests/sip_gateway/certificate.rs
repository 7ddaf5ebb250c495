//! The certificate that the edge shows to a SIP server: a leaf of its own, or one that somebody gave, both ways.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    edge::texts,
    peer::Identity,
    pki::{Authority, Leaf, Usage},
    rig::alone,
    sip::{SipParty, SipServer},
    wait,
};

use super::stage::{PARTNER, Stage, StagePlan};

const EDGE_NAME: &str = "edge.corp.example";
const OF_POD: &str = "edge.default.xmpp-edge.internal";

fn secret(pair: &Leaf) -> serde_json::Value {
    let (chain, key) = (pair.certificate.clone(), pair.key.clone());
    texts(
        "Secret",
        "theirs",
        &BTreeMap::from([("tls.crt", chain), ("tls.key", key)]),
    )
}

/// What the edge shows to who connects and asks for this name.
async fn shown(stage: &Stage, name: Option<&str>) -> Result<Vec<String>> {
    let identity = Identity::of(&stage.sip_identity()?)?;
    let (_party, shown) = SipParty::dial_asking(stage.edge_sip(), Some(identity), name).await?;
    Ok(shown)
}

async fn is_shown(stage: &Stage, name: Option<&str>, expected: &str) -> Result<()> {
    let mut last = Vec::new();
    let found = wait::until("it is shown", wait::GENEROUS, async || {
        last = shown(stage, name).await.ok()?;
        last.iter().any(|it| it == expected).then_some(())
    });
    found.await.with_context(|| format!("{name:?}: {last:?}"))
}

/// Waits until the edge dialled the server with a certificate of this name.
async fn dials_as(server: &SipServer, expected: &str) -> Result<()> {
    let found = wait::until("the edge dials so", wait::GENEROUS, async || {
        server.shown().iter().any(|it| it == expected).then_some(())
    });
    found.await.with_context(|| format!("{:?}", server.shown()))
}

#[test]
fn the_leaf_is_that_of_the_edge_or_of_the_partner_that_is_asked_for() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let server = stage.sip_server().await?;
        dials_as(&server, OF_POD).await?;
        for (asked, expected) in [
            (None, OF_POD),
            (Some(OF_POD), OF_POD),
            (Some(PARTNER), PARTNER),
            // Nobody is shown an own domain's name: it is the server's.
            (Some("org.example"), OF_POD),
        ] {
            let names = shown(&stage, asked).await?;
            ensure!(names == [expected], "{asked:?}: {names:?}");
        }
        Ok(())
    });
}

#[test]
fn a_certificate_that_somebody_gave_is_shown_both_ways_and_the_last_good_one_stays() {
    alone(async {
        let theirs = Authority::new("Corp Root");
        let names = [EDGE_NAME, PARTNER];
        let first = theirs.issue(&names, Usage::ServerAndClientAuth);
        let stage = Stage::start(StagePlan {
            sip: json!({ "edgeName": EDGE_NAME, "certificateSecretRef": { "name": "theirs" } }),
            ..StagePlan::default()
        })
        .await?;
        // Without it the pod's leaf is of no use there: nothing is shown.
        ensure!(shown(&stage, None).await.is_err(), "something is shown");
        stage.edge.apply(&secret(&first))?;
        is_shown(&stage, None, EDGE_NAME).await?;
        let server = stage.sip_server().await?;
        dials_as(&server, EDGE_NAME).await?;
        for asked in [
            None,
            Some(EDGE_NAME),
            Some(PARTNER),
            Some("stranger.example"),
        ] {
            let found = shown(&stage, asked).await?;
            ensure!(found == names, "{asked:?}: {found:?}");
        }
        let ends = stage.edge.metric(
            "certificate_not_after_timestamp_seconds",
            &["certificate=\"sip\""],
        );
        ensure!(ends.await? > 0.0, "its end is told");
        // One that does not name the edge is not taken.
        let wrong = theirs.issue(&["other.example"], Usage::ServerAndClientAuth);
        stage.edge.apply(&secret(&wrong))?;
        wait::until("it is told", wait::GENEROUS, async || {
            let words = "the last good certificate stays in use";
            stage.edge.log().contains(words).then_some(())
        })
        .await?;
        ensure!(
            shown(&stage, None).await? == names,
            "the last good one stays"
        );
        let renewed = theirs.issue(&[EDGE_NAME], Usage::ServerAndClientAuth);
        stage.edge.apply(&secret(&renewed))?;
        wait::until("the next good one is taken", wait::GENEROUS, async || {
            let found = shown(&stage, Some(PARTNER)).await.ok()?;
            (found == [EDGE_NAME]).then_some(())
        })
        .await
    });
}
