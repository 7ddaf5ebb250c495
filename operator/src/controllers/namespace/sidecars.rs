//! What a look at a namespace has to find out of sidecars: who is too old for them, and where they are missing.

use std::collections::{BTreeMap, BTreeSet};

use xmpp_edge_crds::edge_config::{EdgeConfig, GatewayMode};

use super::snapshot::NamespaceSnapshot;
use crate::{proxy_status::PoolReport, runtime::caches::Caches};

/// Pools that are to have sidecars or SIP servers, whose last document is of before those and whose ready pods may
/// not read one with them: the first of these, in words. What pods say is asked for where there is such a pool.
pub(super) fn before(
    caches: &Caches,
    namespace: &str,
    last: &BTreeMap<String, EdgeConfig>,
    reports: impl FnOnce() -> BTreeMap<String, PoolReport>,
) -> BTreeMap<String, String> {
    let wanted = |pool: &str| {
        let pool = caches.pools.get(namespace, pool)?;
        Some(pool.read()?.spec.document_version())
    };
    let mut old = last
        .iter()
        .filter_map(|(name, config)| {
            let wanted = wanted(name).filter(|wanted| *wanted > config.version)?;
            Some((name, wanted))
        })
        .peekable();
    if old.peek().is_none() {
        return BTreeMap::new();
    }
    let reports = reports();
    let names = old.filter_map(|(pool, wanted)| {
        let pod = reports.get(pool)?.before(wanted)?;
        Some((pool.clone(), pod))
    });
    names.collect()
}

/// Gateways of mode `Sidecar` of which a ready pod misses one.
pub(super) fn missing(scene: &NamespaceSnapshot) -> BTreeSet<String> {
    let gateways = scene.facts.values().flat_map(|facts| &facts.gateways);
    let missing = gateways.filter(|gateway| {
        let sidecars = gateway.sidecars.as_ref();
        let is_missing = sidecars.is_some_and(|it| !it.missing_at.is_empty());
        gateway.mode == Some(GatewayMode::Sidecar) && is_missing
    });
    missing.map(|gateway| gateway.name.clone()).collect()
}
