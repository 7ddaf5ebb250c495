use std::{io::Write, time::Instant};

use anyhow::{Context, Result};
use serde_json::json;
use xmpp_edge_tests::{client::Client, cluster::alone, servers::Security, wait};

use crate::scene::*;

/// Both directions, and how long it took from now until both work.
async fn both_ways(alice: &Client, bob: &Client) -> Result<String> {
    let begun = Instant::now();
    let outbound = async {
        gets_through(alice, bob).await?;
        Ok::<_, anyhow::Error>(begun.elapsed())
    };
    let inbound = async {
        gets_through(bob, alice).await?;
        Ok::<_, anyhow::Error>(begun.elapsed())
    };
    let (outbound, inbound) = tokio::try_join!(outbound, inbound)?;
    Ok(format!("outbound {outbound:.1?}, inbound {inbound:.1?}"))
}

/// Waits until the site carries both directions.
async fn carries(site: &Site) -> Result<()> {
    let what = format!("{} carries both directions", site.name);
    wait::until(&what, wait::GENEROUS, async || {
        let directions = site.directions().await.ok()?;
        (directions == ["Inbound", "Outbound"]).then_some(())
    })
    .await
    .with_context(|| format!("{what}: {}", site.pod.log()))
}

#[test]
fn traffic_moves_when_a_sites_pods_vanish_and_comes_back_with_nobody_doing_anything() {
    alone(async {
        let world = World::new().await?;
        let cluster = Cluster::start(&world, json!({})).await?;
        let hq = cluster.site(&world, "hq", (20, 21), 10).await?;
        let dr = cluster.site(&world, "dr", (22, 23), 20).await?;
        world
            .leads_to(&["hq", "dr"])
            .await
            .with_context(|| logs(&[], &[&hq, &dr]))?;
        let partner = world.partner(Security::Certificates).await?;
        let inside = world.inside(&cluster, vec![hq.view(), dr.view()]).await?;
        let (alice, bob) = (inside.login("alice").await?, partner.login("bob").await?);
        let told = |text: &str| {
            // Shown when the test passes, too.
            let _ = writeln!(std::io::stderr(), "two sites: {text}");
        };
        let all = async {
            both_ways(&alice, &bob).await?;
            carries(&hq).await?;
            assert_eq!(dr.directions().await?, [""; 0], "the preferred one serves");

            for (gone, left) in [(&hq, &dr), (&dr, &hq), (&hq, &dr)] {
                gone.pod.vanish();
                let begun = Instant::now();
                let (took, withdrawn) = tokio::try_join!(both_ways(&alice, &bob), async {
                    world.leads_to(&[left.name]).await?;
                    Ok(begun.elapsed())
                })?;
                told(&format!(
                    "{} is gone: {took}; withdrawn {withdrawn:.1?}",
                    gone.name
                ));
                carries(left).await?;
                gone.pod.come_back();
                world.leads_to(&["hq", "dr"]).await?;
            }
            Ok::<(), anyhow::Error>(())
        };
        let done = all.await;
        done.with_context(|| logs(&[&partner, &inside], &[&hq, &dr]))
    });
}
