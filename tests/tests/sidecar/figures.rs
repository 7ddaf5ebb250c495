//! What edges and sidecars count.

use anyhow::{Context, Result};
use xmpp_edge_tests::wait;

use crate::scene::SidecarScene;

/// Sum of a sidecar's metric over all its labels.
pub fn sum(metrics: &str, name: &str) -> f64 {
    let prefix = format!("xmpp_edge_sidecar_{name}");
    let lines = metrics.lines().filter(|line| line.starts_with(&prefix));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// Until the first sidecar has no trunk to the edges of this pool any more.
pub async fn trunks_are_given_up(scene: &SidecarScene, pool: &str) -> Result<()> {
    let name = format!("trunks{{pool=\"{pool}\"}}");
    wait::until("the trunks are given up", wait::GENEROUS, async || {
        let (_, metrics) = scene.sidecars[0].get("/metrics").await.ok()?;
        (sum(&metrics, &name) == 0.0).then_some(())
    })
    .await
}

/// Until this edge takes in more stanzas of a direction than it has so far.
pub async fn carries(scene: &SidecarScene, edge: usize, direction: &str) -> Result<()> {
    let label = format!("direction=\"{direction}\"");
    let taken = async || scene.edges[edge].metric("stanzas_total", &[&label]).await;
    let before = taken().await?;
    wait::until("it takes in more", wait::GENEROUS, async || {
        (taken().await.ok()? > before).then_some(())
    })
    .await
    .with_context(|| format!("edge {edge}, {direction}"))
}
