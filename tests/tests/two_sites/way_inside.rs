//! A site that loses its way inside: no sidecar reaches its pod any more, and one reaches the other site's (B-31).

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use xmpp_edge_crds::sidecar_config::SidecarConfig;
use xmpp_edge_tests::{
    cluster::{
        alone,
        pools::{SOON, until},
    },
    edge::INTERNAL_PORT,
    relay::Relay,
    servers::{Kind, S2S_PORT, Security, Server},
    sidecar::Sidecar,
    traffic::{End, Traffic},
    wait,
};

use crate::scene::*;

const SIDECAR_HOST: u8 = 40;
/// Where the sidecar finds the first site, by a way that can be cut.
const WAY_HOST: u8 = 41;
/// So long a site may be without a way inside, once its pod is ready without one: a new pod waits for trunks at first.
const PATIENCE: Duration = Duration::from_secs(45 + 60);
/// Messages a second, each way.
const RATE: u32 = 50;
/// Without a fate at most: while the way is cut, what comes by it waits.
const AHEAD: usize = 100;

/// The sidecar of the server inside, with what the operator made for it. `edges`: where it finds the pods of pools.
async fn sidecar(
    world: &World,
    cluster: &Cluster,
    edges: [(&str, SocketAddr); 2],
) -> Result<Sidecar> {
    let lab = &world.lab;
    let mut sidecar = Sidecar::at(lab, lab.ip(SIDECAR_HOST), "prosody-0")?;
    let namespace = cluster.namespace();
    let name = format!("xmpp-edge-sidecar-{OWN}");
    let names: Vec<_> = edges
        .iter()
        .map(|(pool, _)| format!("{pool}-trunk."))
        .collect();
    let (files, config) = until(&namespace, &name, |it: &Secret| {
        let files = it.data.clone()?;
        let config = SidecarConfig::parse(&files.get("sidecar.json")?.0, "sidecar.json").ok()?;
        let found: Vec<_> = config.edges.iter().map(ToString::to_string).collect();
        let has = |name: &String| found.iter().any(|it| it.starts_with(name.as_str()));
        names.iter().all(has).then_some((files, found))
    })
    .await?;
    for (file, content) in files {
        fs::write(sidecar.path("given").join(file), content.0)?;
    }
    for edge in config {
        let (host, _) = edge.rsplit_once(':').context("a port")?;
        let at = edges
            .iter()
            .find(|(pool, _)| host.starts_with(&format!("{pool}-trunk.")));
        let (_, address) = at.context("an edge of either pool")?;
        lab.dns().host(host, address.ip());
    }
    sidecar.server = Some((lab.ip(INSIDE_HOST), S2S_PORT).into());
    sidecar.start().await?;
    Ok(sidecar)
}

/// The organisation's server, which knows its sidecar alone, and the partner's.
async fn servers(world: &World, sidecar: &Sidecar) -> Result<(Server, Server)> {
    let lab = &world.lab;
    let mut own = lab.spec(OWN, INSIDE_HOST, "alice", Security::TlsDialback);
    own.resolver = lab.ip(SIDECAR_HOST);
    let authority = sidecar.path("state/public/ca.crt");
    own.trust = wait::until("its authority is there", wait::GENEROUS, async || {
        fs::read_to_string(&authority).ok()
    })
    .await?;
    own.trace = true;
    let mut partner = lab.spec(PARTNER, PARTNER_HOST, "bob", Security::Certificates);
    partner.trace = true;
    lab.publish(&partner);
    tokio::try_join!(
        Server::start(Kind::Prosody, own, lab.directory()),
        Server::start(Kind::Prosody, partner, lab.directory())
    )
}

/// Until the site's streams with the partner are all gone, or are there each way.
async fn carries(site: &Site, directions: &[&str], limit: Duration) -> Result<()> {
    let what = format!("{} carries {directions:?}", site.name);
    wait::until(&what, limit, async || {
        (site.directions().await.ok()? == directions).then_some(())
    })
    .await
}

async fn flows(traffic: &Traffic) -> Result<()> {
    traffic.arrived(traffic.so_far() + RATE as usize).await
}

async fn comes_and_goes(
    world: &World,
    (hq, dr): (&Site, &Site),
    way: &Relay,
    (own, partner): (&Server, &Server),
) -> Result<()> {
    let end = |server: &Server, user: &str| End {
        server: server.c2s(),
        jid: format!("{user}@{}", server.spec().domain),
    };
    let (alice, bob) = (end(own, "alice"), end(partner, "bob"));
    let load = (u32::MAX, RATE);
    let outbound = Traffic::start_within(alice.clone(), bob.clone(), load, AHEAD).await?;
    let inbound = Traffic::start_within(bob, alice, load, AHEAD).await?;
    tokio::try_join!(flows(&outbound), flows(&inbound))?;
    carries(hq, &["Inbound", "Outbound"], wait::GENEROUS).await?;
    way.cut();
    // What goes out goes by the other site at once.
    flows(&outbound).await?;
    // Only a pool that is withdrawn gives up its streams.
    carries(hq, &[], PATIENCE + SOON).await?;
    world.leads_to(&[dr.name]).await?;
    tokio::try_join!(flows(&outbound), flows(&inbound))?;
    carries(dr, &["Inbound", "Outbound"], wait::GENEROUS).await?;
    way.mend();
    world.leads_to(&[hq.name, dr.name]).await?;
    tokio::try_join!(flows(&outbound), flows(&inbound))?;
    wait::until("the first site sends again", wait::GENEROUS, async || {
        let directions = hq.directions().await.ok()?;
        directions.contains(&"Outbound".to_owned()).then_some(())
    })
    .await?;
    outbound.stop();
    inbound.stop();
    let (outbound, inbound) = tokio::try_join!(outbound.finish(), inbound.finish())?;
    println!("a site without a way inside: outbound {outbound}; inbound {inbound}");
    let lost = outbound.lost_beside(&partner.log());
    ensure!(
        lost.is_empty() && outbound.bounced == 0,
        "{lost:?}: {outbound}"
    );
    let lost = inbound.lost_beside(&own.log());
    ensure!(lost.is_empty(), "{lost:?}: {inbound}");
    Ok(())
}

#[test]
fn b_31_a_site_that_loses_its_way_inside_is_left_in_order_and_is_back_with_its_trunks() {
    alone(async {
        let world = World::new().await?;
        let cluster = Cluster::start(&world, json!({}), &[]).await?;
        let by_sidecar = || json!({"domains": [OWN], "mode": "Sidecar"});
        let hq = cluster.site_by(&world, "hq", (20, 21), 10, by_sidecar());
        let hq = hq.await?;
        let dr = cluster.site_by(&world, "dr", (22, 23), 20, by_sidecar());
        let dr = dr.await?;
        let listens =
            |site: &Site| SocketAddr::from((site.pod.place().internal_bind, INTERNAL_PORT));
        let entrance = SocketAddr::from((world.lab.ip(WAY_HOST), INTERNAL_PORT));
        let way = Relay::start(entrance, listens(&hq)).await?;
        let edges = [("hq", entrance), ("dr", listens(&dr))];
        let sidecar = sidecar(&world, &cluster, edges).await?;
        let (own, partner) = servers(&world, &sidecar).await?;
        let done = async {
            world.leads_to(&["hq", "dr"]).await?;
            comes_and_goes(&world, (&hq, &dr), &way, (&own, &partner)).await
        };
        let done: Result<()> = done.await;
        done.with_context(|| {
            format!(
                "{}=== sidecar\n{}",
                logs(&[&partner, &own], &[&hq, &dr]),
                sidecar.log()
            )
        })
    });
}
