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

/// Each site vanishes and comes back, in turn; the server inside has `cluster`'s certificate.
async fn sites_come_and_go(
    world: &World,
    cluster: &Cluster,
    hq: &Site,
    dr: &Site,
    preferred_both_ways: bool,
) -> Result<()> {
    world
        .leads_to(&["hq", "dr"])
        .await
        .with_context(|| logs(&[], &[hq, dr]))?;
    let partner = world.partner(Security::Certificates).await?;
    let inside = world.inside(cluster, vec![hq.view(), dr.view()]).await?;
    let (alice, bob) = (inside.login("alice").await?, partner.login("bob").await?);
    let all = async {
        both_ways(&alice, &bob).await?;
        let beside = dr.directions().await?;
        assert!(!beside.contains(&"Inbound".to_owned()), "{beside:?}");
        if preferred_both_ways {
            carries(hq).await?;
            assert_eq!(beside, [""; 0], "the preferred one serves");
        }
        for (gone, left) in [(hq, dr), (dr, hq), (hq, dr)] {
            gone.pod.vanish().await?;
            let begun = Instant::now();
            let (took, withdrawn) = tokio::try_join!(both_ways(&alice, &bob), async {
                world.leads_to(&[left.name]).await?;
                Ok(begun.elapsed())
            })?;
            // Shown when the test passes, too.
            let _ = writeln!(
                std::io::stderr(),
                "two sites: {} is gone: {took}; withdrawn {withdrawn:.1?}",
                gone.name
            );
            carries(left).await?;
            gone.pod.come_back();
            world.leads_to(&["hq", "dr"]).await?;
        }
        Ok(())
    };
    let done: Result<()> = all.await;
    done.with_context(|| logs(&[&partner, &inside], &[hq, dr]))
}

#[test]
fn traffic_moves_when_a_sites_pods_vanish_and_comes_back_with_nobody_doing_anything() {
    alone(async {
        let world = World::new().await?;
        let cluster = Cluster::start(&world, json!({}), &[]).await?;
        let hq = cluster.site(&world, "hq", (20, 21), 10).await?;
        let dr = cluster.site(&world, "dr", (22, 23), 20).await?;
        sites_come_and_go(&world, &cluster, &hq, &dr, true).await
    });
}

#[test]
fn traffic_moves_between_two_clusters_that_are_given_one_internal_ca_and_one_secret() {
    alone(async {
        let world = World::new().await?;
        let first = Cluster::start(&world, json!({}), &[]).await?;
        let hq = first.site(&world, "hq", (20, 21), 10).await?;
        let given = first.to_be_given().await?;
        let second = Cluster::start(&world, json!({}), &given).await?;
        let dr = second.site(&world, "dr", (22, 23), 20).await?;
        // Each view knows its own cluster's site: which of them the server inside asks is its choice.
        sites_come_and_go(&world, &first, &hq, &dr, false).await
    });
}
