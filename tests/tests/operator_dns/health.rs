//! Partners are led only where somebody serves: what is withdrawn, how soon, and when it is back.

use std::{io::Write, time::Instant};

use anyhow::Result;
use serde_json::json;
use xmpp_edge_tests::{
    cluster::Operator,
    primary::{Primary, Software},
};

use crate::{stage::*, test};

/// Looks that it may take from the event to the withdrawal. They follow an event within a second and
/// are at most four apart, so that two of them are in time; the others are what a busy cluster's own
/// events cause meanwhile.
const LOOKS: f64 = 6.0;

/// Passes over pools so far; there are two pools, each of them in every look.
async fn looks(operator: &Operator) -> Result<f64> {
    let name = "xmpp_edge_operator_reconciliations_total";
    let passes = operator.metric(name, &["kind=\"EdgePool\""]).await?;
    Ok(passes.unwrap_or(0.0) / 2.0)
}

#[test]
fn a_pool_that_is_unready_or_switched_off_is_withdrawn_and_returns_but_never_the_last() {
    test(async |namespace| {
        let own = domain(namespace);
        let primary = Primary::start(Software::Bind, &[(&own, "")]).await?;
        let operator = Operator::start(namespace, &[]).await?;
        key(namespace).await?;
        let (dr, hq) = (format!("dr.{own}"), format!("hq.{own}"));
        let (dr, hq) = (dr.as_str(), hq.as_str());
        for name in ["hq", "dr"] {
            create(namespace, &pool(&own, name, json!({"dns": at(&primary)}))).await?;
            pods_are(namespace, name, true).await?;
        }
        until_leads_to(&primary, &own, &[dr, hq]).await?;
        for name in ["hq", "dr"] {
            until_says(namespace, name, PUBLISHED, "True, Published").await?;
        }

        let withdrawn = async |what: &str, left: &[&str]| -> Result<()> {
            let (begun, before) = (Instant::now(), looks(&operator).await?);
            match what {
                "its pod is not ready" => pods_are(namespace, "hq", false).await?,
                "it is switched off" => {
                    edit(namespace, "hq", json!({"route": {"enabled": false}})).await?;
                }
                _ => edit(namespace, "hq", json!({"suspended": true})).await?,
            }
            until_leads_to(&primary, &own, left).await?;
            let took = begun.elapsed();
            let looks = looks(&operator).await? - before;
            // Shown when the test passes, too.
            let _ = writeln!(
                std::io::stderr(),
                "withdrawn because {what}: {took:.1?}, {looks} looks"
            );
            assert!(looks <= LOOKS, "{looks} looks, {took:?}");
            Ok(())
        };
        withdrawn("its pod is not ready", &[dr]).await?;
        until_told(namespace, "hq", PUBLISHED, "no pod is ready").await?;
        pods_are(namespace, "hq", true).await?;
        until_leads_to(&primary, &own, &[dr, hq]).await?;

        withdrawn("it is switched off", &[dr]).await?;
        until_told(namespace, "hq", PUBLISHED, "disabled").await?;
        edit(namespace, "hq", json!({"route": {"enabled": true}})).await?;
        until_leads_to(&primary, &own, &[dr, hq]).await?;

        withdrawn("it is suspended", &[dr]).await?;
        edit(namespace, "hq", json!({"suspended": false})).await?;
        until_leads_to(&primary, &own, &[dr, hq]).await?;

        // The last one stays for as long as nothing is there in its place.
        withdrawn("its pod is not ready", &[dr]).await?;
        pods_are(namespace, "dr", false).await?;
        let kept = "kept, as nothing else is there";
        let kept = until_told(namespace, "dr", PUBLISHED, kept).await?;
        assert!(kept.contains(&format!("SRV of {own}")), "{kept}");
        assert_eq!(targets(&primary, &own).await?, [dr]);
        pods_are(namespace, "hq", true).await?;
        until_leads_to(&primary, &own, &[hq]).await?;
        pods_are(namespace, "dr", true).await?;
        until_leads_to(&primary, &own, &[dr, hq]).await
    });
}
