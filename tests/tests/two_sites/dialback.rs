//! A key that one site sent is verified at the other, as DNS leads the partner there.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use xmpp_edge_crds::kinds::EdgePool;
use xmpp_edge_tests::{
    client::Client,
    cluster::{alone, pools::secret},
    dns::NameServer,
    edge::INTERNAL_PORT,
    servers::{Security, Server},
    wait,
};

use crate::scene::*;

const SHARED: &str = "one-secret-for-both";

/// The partner takes dialback alone.
fn by_dialback() -> serde_json::Value {
    json!({"saslNegotiation": "NotSupported"})
}

/// The second site has an outbound stream by dialback, and the first has none: it only answered.
async fn second_was_vouched_for_by_first(first: &Site, second: &Site) -> Result<()> {
    let streams = second.pod.streams("Partner").await?;
    let outbound = streams.iter().find(|it| it["direction"] == "Outbound");
    let outbound = outbound.context("it has an outbound stream")?;
    assert_eq!(outbound["method"], "TlsDialback", "{outbound:#}");
    let directions = first.directions().await?;
    assert!(
        !directions.contains(&"Outbound".to_owned()),
        "{directions:?}"
    );
    Ok(())
}

/// Whether anybody connected to the site from outside.
async fn partner_came(site: &Site) -> Result<bool> {
    let metrics = site.pod.metrics().await?;
    let public = ["s2s", "directTls"].map(|it| format!("listener=\"{it}\""));
    let mut taken = metrics
        .lines()
        .filter(|line| line.starts_with("xmpp_edge_connections_total{"));
    Ok(taken.any(|line| public.iter().any(|it| line.contains(it)) && !line.ends_with(" 0")))
}

/// The server inside knows the second site alone, by `resolver`; the partner is led to the first.
async fn people(
    world: &World,
    cluster: &Cluster,
    resolver: SocketAddr,
) -> Result<(Server, Server, Client, Client)> {
    let partner = world.partner(Security::TlsDialback).await?;
    let inside = world.inside(cluster, vec![resolver]).await?;
    let (alice, bob) = (inside.login("alice").await?, partner.login("bob").await?);
    Ok((partner, inside, alice, bob))
}

#[test]
fn a_stream_that_the_second_site_opens_is_verified_at_the_first() {
    alone(async {
        let world = World::new().await?;
        let cluster = Cluster::start(&world, by_dialback(), &[]).await?;
        let hq = cluster.site(&world, "hq", (20, 21), 10).await?;
        let dr = cluster.site(&world, "dr", (22, 23), 20).await?;
        world.leads_to(&["hq", "dr"]).await?;
        // The site's own view would name the first one too, and before.
        let view = NameServer::start(world.lab.ip(54)).await?;
        view.host("dr.inside.example", dr.pod.place().internal_bind);
        view.xmpp_server(PARTNER, 10, 0, INTERNAL_PORT, "dr.inside.example");
        let (partner, inside, alice, bob) = people(&world, &cluster, view.address()).await?;
        let done = async {
            gets_through(&alice, &bob).await?;
            second_was_vouched_for_by_first(&hq, &dr).await?;
            // The partner came to the first alone.
            assert!(partner_came(&hq).await?);
            assert!(!partner_came(&dr).await?);
            Ok(())
        };
        let done: Result<()> = done.await;
        done.with_context(|| logs(&[&partner, &inside], &[&hq, &dr]))
    });
}

#[test]
fn two_clusters_vouch_for_each_other_once_they_are_given_one_secret() {
    alone(async {
        let world = World::new().await?;
        let (first, second) = (
            Cluster::start(&world, by_dialback(), &[]).await?,
            Cluster::start(&world, by_dialback(), &[]).await?,
        );
        let hq = first.site(&world, "hq", (20, 21), 10).await?;
        let dr = second.site(&world, "dr", (22, 23), 20).await?;
        world.leads_to(&["hq", "dr"]).await?;
        let own = async |cluster: &Cluster| cluster.secret("xmpp-edge-dialback", "secret").await;
        assert_ne!(own(&first).await?, own(&second).await?);
        let (partner, inside, alice, bob) = people(&world, &second, dr.view()).await?;
        let done = async {
            // Each has made a secret of its own: the first does not know the second's key.
            alice
                .message(bob.full(), "too-early", "nobody vouches")
                .await?;
            let bounced = alice.expect("the answer", |stanza| {
                stanza.attribute("id") == Some("too-early")
                    && stanza.attribute("type") == Some("error")
            });
            bounced.await?;
            for (cluster, pool) in [(&first, "hq"), (&second, "dr")] {
                let namespace = cluster.namespace();
                let value = json!({"secret": "a secret of many characters, for both clusters"});
                secret(&namespace, SHARED, value).await?;
                let pools: Api<EdgePool> = namespace.api();
                let settings =
                    json!({"spec": {"settings": {"dialbackSecretRef": {"name": SHARED}}}});
                pools
                    .patch(pool, &PatchParams::default(), &Patch::Merge(settings))
                    .await?;
            }
            // Another Secret means other pods.
            wait::until("both sites have the secret", wait::GENEROUS, async || {
                for site in [&hq, &dr] {
                    let mounted = site.pod.place().directory.join("secrets/dialback-secret");
                    let mounted = std::fs::read_to_string(mounted).ok()?;
                    mounted.contains("for both clusters").then_some(())?;
                }
                Some(())
            })
            .await?;
            world.leads_to(&["hq", "dr"]).await?;
            gets_through(&alice, &bob).await?;
            second_was_vouched_for_by_first(&hq, &dr).await
        };
        done.await
            .with_context(|| logs(&[&partner, &inside], &[&hq, &dr]))
    });
}
