//! Documents of sidecars in a cluster: they find each pod of each pool by the Service `<pool>-trunk`.

use std::{collections::BTreeMap, fmt};

use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{EdgeConfig, Gateway},
    kinds::{EdgePool, pool::workload::ServiceType},
    sidecar_config::SidecarDocument,
};

use super::{plan::names, sidecar_secrets::HeldElsewhere};
use crate::{runtime::caches::SecretPlace, sidecar::document};

/// Zone of a cluster's Services where nothing says another.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// What planning a pool's Secrets has to know of its gateways' sidecars.
pub struct SidecarInputs<'a> {
    /// Of the namespace's gateways that take trunks, by their names; one that is not here keeps what it has.
    pub documents: BTreeMap<String, SidecarDocument>,
    /// For hosts outside of the cluster, of the gateways whose first pool this one is.
    pub outside: BTreeMap<String, SidecarDocument>,
    /// Of all pools of the namespace: what several of them write is issued for all.
    pub configs: &'a BTreeMap<String, EdgeConfig>,
    /// What another namespace holds for a gateway.
    pub elsewhere: &'a dyn Fn(&SecretPlace, &str) -> HeldElsewhere,
}

impl SidecarInputs<'_> {
    /// The domains for which a Secret is issued that all gateways like `own` share: its own and theirs, whichever
    /// pool is looked at. Where each pool issued for its own, none would be content with what another wrote.
    #[must_use]
    pub fn domains_of(&self, own: &Gateway, is_like: impl Fn(&Gateway) -> bool) -> Vec<DomainName> {
        let all = self.configs.values().flat_map(|config| &config.gateways);
        let mut domains = own.domains.clone();
        for gateway in all.filter(|it| is_like(it)) {
            for domain in &gateway.domains {
                if !domains.contains(domain) {
                    domains.push(domain.clone());
                }
            }
        }
        domains
    }
}

impl fmt::Debug for SidecarInputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarInputs")
            .field("gateways", &self.documents.keys())
            .finish_non_exhaustive()
    }
}

/// The documents for hosts outside of the cluster of the gateways whose first pool is `pool`: a gateway has one,
/// whatever pools it has. They name the addresses of pools that have any but a Service's of the cluster.
#[must_use]
pub fn outside(
    pools: &[EdgePool],
    configs: &BTreeMap<String, EdgeConfig>,
    pool: &str,
) -> BTreeMap<String, SidecarDocument> {
    let is_reached = |name: &str| {
        let own = pools
            .iter()
            .find(|it| it.metadata.name.as_deref() == Some(name));
        own.is_some_and(|it| {
            let service = &it.spec.internal_service;
            service.service_type == ServiceType::LoadBalancer || service.addresses.is_some()
        })
    };
    let mut documents = document::documents(pools, configs, |config| {
        if is_reached(&config.pool) {
            document::internal_addresses(config)
        } else {
            Vec::new()
        }
    });
    let first = |gateway: &str| {
        let mut all = configs.values();
        let has = |config: &&EdgeConfig| {
            let mut gateways = config.gateways.iter();
            gateways.any(|it| it.sidecar.is_some() && it.effective_name() == gateway)
        };
        all.find(has).map(|config| config.pool.as_str())
    };
    documents.retain(|gateway, _| first(gateway) == Some(pool));
    documents
}

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
