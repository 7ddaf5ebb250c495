//! `sidecar.json` of each gateway that takes trunks: what sidecars of all pools of the namespace have to know.

use std::collections::BTreeMap;

use xmpp_edge_crds::{
    edge_config::{EdgeConfig, Gateway, Host, HostPort},
    kinds::{EdgePool, pool::PoolSidecar},
    sidecar_config::{LimitsDocument, OtherGatewayDocument, SidecarDocument},
};

/// The documents by the gateways' names. `reach`: where sidecars find the edges of a pool.
///
/// What is only in a spec (`sidecar.serverAddress`, `sidecar.edges`) is read there; where the spec is not
/// accepted, that may be newer than what is in force. A gateway of a pool whose spec is gone or cannot be read has none:
/// what was written of it is to stay, as what is in force does.
#[must_use]
pub fn documents(
    pools: &[EdgePool],
    configs: &BTreeMap<String, EdgeConfig>,
    reach: impl Fn(&EdgeConfig) -> Vec<String>,
) -> BTreeMap<String, SidecarDocument> {
    let mut documents: BTreeMap<String, SidecarDocument> = BTreeMap::new();
    let mut unknown = Vec::new();
    for config in configs.values() {
        for gateway in config.gateways.iter().filter(|it| it.sidecar.is_some()) {
            let name = gateway.effective_name();
            let Some(given) = given(pools, &config.pool, name) else {
                unknown.push(name);
                continue;
            };
            let document = documents
                .entry(name.to_owned())
                .or_insert_with(|| document(config, gateway, &given, configs));
            document.limits = largest(document.limits, config);
            // A sidecar serves what any pool has the gateway for: pools that differ are told so.
            for domain in gateway.domains.iter().map(ToString::to_string) {
                if !document.domains.contains(&domain) {
                    document.domains.push(domain);
                }
            }
            for edge in reach(config).into_iter().chain(given.edges) {
                if !document.edges.contains(&edge) {
                    document.edges.push(edge);
                }
            }
        }
    }
    documents.retain(|name, _| !unknown.contains(&name.as_str()));
    documents
}

/// Addresses of a pool's internal listener, as far as they are known: where sidecars outside of its cluster find
/// it.
#[must_use]
pub fn internal_addresses(config: &EdgeConfig) -> Vec<String> {
    let own = config.edges.iter().filter(|edge| edge.pool == config.pool);
    let addresses = own.flat_map(|edge| edge.addresses.iter().map(|ip| (*ip, edge.port)));
    addresses
        .map(|(ip, port)| {
            HostPort {
                host: Host::Ip(ip),
                port,
            }
            .to_string()
        })
        .collect()
}

/// What the pool's spec says of the gateway's sidecars; `None`: there is no spec to read.
fn given(pools: &[EdgePool], pool: &str, gateway: &str) -> Option<PoolSidecar> {
    let mut pools = pools.iter();
    let pool = pools.find(|it| it.metadata.name.as_deref() == Some(pool))?;
    let mut gateways = pool.spec.gateways.iter();
    let found = gateways.find(|it| it.effective_name() == gateway);
    Some(found.and_then(|it| it.sidecar.clone()).unwrap_or_default())
}

fn document(
    config: &EdgeConfig,
    gateway: &Gateway,
    given: &PoolSidecar,
    configs: &BTreeMap<String, EdgeConfig>,
) -> SidecarDocument {
    let domains = gateway.domains.iter().map(ToString::to_string).collect();
    let mut document = SidecarDocument::new(&config.namespace, gateway.effective_name(), domains);
    document.server.mode = given.server;
    document.server.address.clone_from(&given.server_address);
    document.server.negotiation = gateway.negotiation;
    document.server.trust_ca.clone_from(&gateway.trust_ca);
    document.server.trust_public_roots = gateway.trust_public_roots;
    document.other_gateways = others(gateway, configs);
    let limits = &config.settings;
    document.limits.max_stanza_bytes = limits.max_stanza_bytes;
    // A sidecar lives beside its server within 128 MiB: what an edge's queues may take is not meant for it.
    document.limits.queue_bytes = limits.queue_bytes.min(document.limits.queue_total_bytes);
    document.limits.queue_timeout_seconds = limits.queue_timeout_seconds;
    document
}

/// What the edges of each pool let through, a sidecar does.
fn largest(limits: LimitsDocument, config: &EdgeConfig) -> LimitsDocument {
    let own = &config.settings;
    LimitsDocument {
        max_stanza_bytes: limits.max_stanza_bytes.max(own.max_stanza_bytes),
        queue_bytes: (limits.queue_bytes.max(own.queue_bytes)).min(limits.queue_total_bytes),
        queue_total_bytes: limits.queue_total_bytes,
        queue_timeout_seconds: limits.queue_timeout_seconds.max(own.queue_timeout_seconds),
    }
}

/// The organisation's other servers, each domain once: the first pool that serves it says where.
fn others(own: &Gateway, configs: &BTreeMap<String, EdgeConfig>) -> Vec<OtherGatewayDocument> {
    let all = configs.values().flat_map(|config| &config.gateways);
    let own = all.filter(|it| it.sidecar.is_some() && it.effective_name() == own.effective_name());
    let mut seen: Vec<_> = own.flat_map(|it| it.domains.iter().cloned()).collect();
    let mut others = Vec::new();
    for gateway in configs.values().flat_map(|config| &config.gateways) {
        let mut domains = gateway.domains.clone();
        domains.retain(|domain| !seen.contains(domain));
        if domains.is_empty() {
            continue;
        }
        seen.extend_from_slice(&domains);
        // A server that speaks SIP offers no XMPP: nobody is led to it.
        let address = gateway.address.as_ref().filter(|_| gateway.sip.is_none());
        others.push(OtherGatewayDocument {
            domains: domains.iter().map(ToString::to_string).collect(),
            address: address.map(ToString::to_string),
        });
    }
    others
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use xmpp_edge_crds::{edge_config::SidecarServers, sidecar_config::SidecarConfig};

    use super::*;
    use crate::{
        compile::{NamespaceInputs, compile},
        standalone::{documents, manifests},
    };

    fn world(pools: &[(&str, &str)]) -> NamespaceInputs {
        let pools = pools.iter().map(|(name, gateways)| {
            format!(
                "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {{name: {name}}}\nspec: {{site: {name}, domains: [org.example, lab.example], accessEdge: {{fqdn: {name}.edge.example}}, gateways: [{gateways}], certificate: {{selfSigned: {{}}}}}}\n"
            )
        });
        let documents = documents::read(&pools.collect::<String>()).unwrap();
        let mut gathered = manifests::gather(
            [("test.yaml", documents.as_slice())],
            &manifests::Stored::new(),
        );
        let mut world = gathered.worlds.remove("default").unwrap();
        world.namespace = "default".to_owned();
        world
    }

    const LAB: &str = "{domains: [lab.example], name: lab, address: 'lab.example:5269'}";

    #[test]
    fn one_document_for_all_pools_is_what_a_sidecar_reads() {
        let own = "{domains: [org.example], mode: Sidecar, sidecar: {server: Clustered, serverAddress: '[::1]:5299', edges: ['far.example:1']}}";
        let world = world(&[
            ("hq", &format!("{own}, {LAB}")),
            ("dr", &format!("{own}, {LAB}")),
        ]);
        let configs = compile(&world, &BTreeMap::new()).configs;
        assert_eq!(configs.len(), 2);
        let made = documents_of(&world, &configs);
        assert_eq!(made.keys().collect::<Vec<_>>(), ["org.example"]);
        let json = made["org.example"].to_json();
        let read = SidecarConfig::parse(json.as_bytes(), "sidecar.json").unwrap();
        assert_eq!(read.server.mode, SidecarServers::Clustered);
        assert_eq!(read.server.address.to_string(), "[::1]:5299");
        assert!(read.server.methods.allows_plaintext(), "it is loopback");
        let edges: Vec<_> = read.edges.iter().map(ToString::to_string).collect();
        assert_eq!(edges, ["dr-trunk:23456", "far.example:1", "hq-trunk:23456"]);
        assert_eq!(read.other_gateways.len(), 1);
        assert_eq!(read.other_gateways[0].domains[0].as_str(), "lab.example");
    }

    fn documents_of(
        world: &NamespaceInputs,
        configs: &BTreeMap<String, EdgeConfig>,
    ) -> BTreeMap<String, SidecarDocument> {
        super::documents(&world.pools, configs, |config| {
            vec![format!(
                "{}-trunk:{}",
                config.pool, config.listeners.internal
            )]
        })
    }

    #[test]
    fn a_document_serves_the_domains_of_all_pools_whatever_each_has() {
        let of = |domains: &str| format!("{{domains: [{domains}], name: org, mode: Sidecar}}");
        let lab = ", {domains: [lab.example], address: 'lab.example:5269'}";
        let (both, one) = (of("org.example, lab.example"), of("org.example") + lab);
        for (hq, dr) in [(&both, &one), (&one, &both)] {
            let mut world = world(&[("hq", hq), ("dr", dr)]);
            world.pools[0].spec.settings.max_stanza_bytes = 1_000_000;
            let configs = compile(&world, &BTreeMap::new()).configs;
            let made = &documents_of(&world, &configs)["org"];
            assert_eq!(made.domains, ["org.example", "lab.example"]);
            assert!(made.other_gateways.is_empty(), "{made:?}");
            assert_eq!(made.limits.max_stanza_bytes, 1_000_000);
        }
    }

    #[test]
    fn a_sidecar_s_queues_stay_within_its_memory_whatever_an_edge_s_may_take() {
        let own = "{domains: [org.example], mode: Sidecar}, {domains: [lab.example], name: lab, address: 'lab.example:5269'}";
        let world = world(&[("hq", own)]);
        let mut configs = compile(&world, &BTreeMap::new()).configs;
        let usual = documents_of(&world, &configs)["org.example"].limits;
        assert_eq!(usual.queue_bytes, configs["hq"].settings.queue_bytes);
        configs.get_mut("hq").unwrap().settings.queue_bytes = 1 << 30;
        let limits = &documents_of(&world, &configs)["org.example"].limits;
        assert_eq!(limits.queue_total_bytes, usual.queue_total_bytes);
        assert_eq!(limits.queue_bytes, limits.queue_total_bytes);
    }

    #[test]
    fn a_gateway_without_sidecars_has_no_document_and_one_of_other_domains_may_be_nowhere() {
        let direct = "{domains: [org.example], address: 'a.example:5269'}";
        let world_of = |more: &str| world(&[("hq", &format!("{direct}, {more}"))]);
        let plain = world_of(LAB);
        let configs = compile(&plain, &BTreeMap::new()).configs;
        assert!(documents_of(&plain, &configs).is_empty());
        let sidecar = world_of("{domains: [lab.example], name: lab, mode: Sidecar}");
        let configs = compile(&sidecar, &BTreeMap::new()).configs;
        let made = documents_of(&sidecar, &configs);
        assert_eq!(made.keys().collect::<Vec<_>>(), ["lab"]);
        let address = made["lab"].other_gateways[0].address.as_deref();
        assert_eq!(address, Some("a.example:5269"));
    }

    #[test]
    fn a_sidecar_leads_nobody_to_a_server_that_speaks_sip() {
        let sip = "{domains: [org.example], name: sip, mode: Sip, address: sip.org.example}";
        let sidecar = "{domains: [lab.example], name: lab, mode: Sidecar}";
        let world = world(&[("hq", &format!("{sip}, {sidecar}"))]);
        let configs = compile(&world, &BTreeMap::new()).configs;
        let made = documents_of(&world, &configs);
        let other = &made["lab"].other_gateways[0];
        assert_eq!(
            (&*other.domains, &other.address),
            (&["org.example".to_owned()][..], &None)
        );
    }
}
