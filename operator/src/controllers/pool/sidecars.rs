//! Documents of sidecars in a cluster: they find each pod of each pool by the Service `<pool>-trunk`.

use std::collections::BTreeMap;

use xmpp_edge_crds::{edge_config::EdgeConfig, kinds::EdgePool, sidecar_config::SidecarDocument};

use super::plan::names;
use crate::sidecar::document;

/// Zone of a cluster's Services where nothing says another.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// The documents of a namespace by the gateways' names. `cluster_domain` is the zone of the cluster's Services.
#[must_use]
pub fn documents(
    pools: &[EdgePool],
    configs: &BTreeMap<String, EdgeConfig>,
    cluster_domain: &str,
) -> BTreeMap<String, SidecarDocument> {
    document::documents(pools, configs, |config| {
        let service = names::trunk_service(&config.pool);
        let (namespace, port) = (&config.namespace, config.listeners.internal);
        vec![format!("{service}.{namespace}.svc.{cluster_domain}:{port}")]
    })
}
