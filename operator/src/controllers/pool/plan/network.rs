//! The NetworkPolicy: who may reach the pods, and what they may reach.
//!
//! In: the public listeners from anywhere, the internal ones from `internalFrom` (without it from the namespaces of
//! sidecars where these alone come), the admin port
//! from the operator and `adminFrom`. Out: DNS, the gateways, the contacts' database, partners on
//! any TCP port, but no private or link-local network save for partners whose host an administrator names there
//! (in their place the egress proxy, where there is one), and `egress`. A policy knows no names, and a
//! partner's SRV record may lead anywhere: what is given by name is allowed by its port alone, of a
//! Service's name within its namespace (where pods listen on another port than their Service,
//! `egress` says so); of a SIP server without a port any, for its records say which. DNS is allowed to the cluster's pods and to the resolvers that are known.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule,
        NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{EdgeConfig, GatewayAddress, GatewayMode, Host, HostPort},
    kinds::{EdgePool, pool::workload::DnsPolicy},
};

use super::{Child, Facts, metadata, names};

/// Not dialled as partners, unless `partnerEgressExcept` says otherwise.
const PRIVATE: [&str; 6] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];
/// All of both families.
const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];
/// Where resolvers answer: Services of DNS lead to the second on OpenShift, and a policy sees the
/// pod's port.
const DNS_PORTS: [u16; 2] = [53, 5353];
/// Resolvers on the node itself, as NodeLocal DNSCache and some clouds have them.
const LINK_LOCAL: [&str; 2] = ["169.254.0.0/16", "fe80::/10"];
/// PostgreSQL's, while the Secret that says otherwise cannot be read.
const DATABASE_PORT: u16 = 5432;
/// A namespace's own name, as the API server labels it.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// The policy, unless it is switched off.
#[must_use]
pub fn plan(pool: &EdgePool, config: &EdgeConfig, facts: &Facts<'_>) -> Option<Child> {
    if !pool.spec.network_policy.enabled {
        return None;
    }
    let name = pool.name_any();
    Some(Child::NetworkPolicy(Box::new(NetworkPolicy {
        metadata: metadata::owned(pool, names::workload(&name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(metadata::label_selector(&name)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress(pool, config, facts)),
            egress: Some(egress(pool, config, facts)),
        }),
    })))
}

fn ingress(
    pool: &EdgePool,
    config: &EdgeConfig,
    facts: &Facts<'_>,
) -> Vec<NetworkPolicyIngressRule> {
    let listeners = &config.listeners;
    let wanted = &pool.spec.network_policy;
    let mut public = vec![tcp(listeners.s2s)];
    if listeners.direct_tls != 0 {
        public.push(tcp(listeners.direct_tls));
    }
    let mut inside = vec![tcp(listeners.internal)];
    if listeners.dns != 0 {
        inside.extend([tcp(listeners.dns), udp(listeners.dns)]);
    }
    let of_sip = [listeners.sip, listeners.sip_tcp];
    inside.extend(of_sip.into_iter().filter(|port| *port != 0).map(tcp));
    let mut rules = vec![
        NetworkPolicyIngressRule {
            from: None,
            ports: Some(public),
        },
        NetworkPolicyIngressRule {
            from: wanted.internal_from.clone().or_else(|| sidecars(config)),
            ports: Some(inside),
        },
    ];
    let mut admin: Vec<_> = facts.operator.iter().cloned().collect();
    admin.extend(wanted.admin_from.iter().cloned());
    // A rule without peers would let everybody in.
    if !admin.is_empty() {
        rules.push(NetworkPolicyIngressRule {
            from: Some(admin),
            ports: Some(vec![tcp(listeners.admin)]),
        });
    }
    rules
}

/// Namespaces of the sidecars, where nobody but sidecars of this cluster comes from inside.
fn sidecars(config: &EdgeConfig) -> Option<Vec<NetworkPolicyPeer>> {
    let mut namespaces = BTreeSet::new();
    for gateway in &config.gateways {
        let sidecar = gateway.sidecar.as_ref()?;
        let elsewhere = !sidecar.keys.is_empty() || sidecar.trust_ca.is_some();
        if gateway.mode != GatewayMode::Sidecar || elsewhere {
            return None;
        }
        let namespace = sidecar.namespace.as_ref().unwrap_or(&config.namespace);
        namespaces.insert(namespace.clone());
    }
    let peers = namespaces.into_iter().map(|namespace| NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([(NAMESPACE_LABEL.to_owned(), namespace)].into()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    });
    Some(peers.collect())
}

fn egress(pool: &EdgePool, config: &EdgeConfig, facts: &Facts<'_>) -> Vec<NetworkPolicyEgressRule> {
    let mut rules = vec![NetworkPolicyEgressRule {
        to: resolvers(pool, facts),
        ports: Some(
            DNS_PORTS
                .into_iter()
                .flat_map(|port| [udp(port), tcp(port)])
                .collect(),
        ),
    }];
    let dialled = config.gateways.iter().filter(|gateway| {
        // Those of mode Sidecar are not: nothing in the DMZ opens a connection inwards.
        gateway.mode != GatewayMode::Sidecar
    });
    for address in dialled.filter_map(|it| it.address.as_ref()) {
        rules.extend(match address {
            GatewayAddress::At(server) => to_server(server, &config.namespace),
            // The records may name any port.
            GatewayAddress::Named(host) => to_name(host, &tcp_any(), &config.namespace),
        });
    }
    if pool.spec.has_database() {
        for address in &facts.database {
            rules.extend(to_server(address, &config.namespace));
        }
        if facts.database.is_empty() {
            rules.push(anywhere(&tcp(DATABASE_PORT)));
        }
    }
    let partners = partners(pool);
    if let Some(proxy) = &config.settings.egress_proxy {
        // Nothing but the proxy is dialled for partners.
        rules.extend(to_server(&proxy.address, &config.namespace));
    } else {
        if !partners.is_empty() {
            rules.push(NetworkPolicyEgressRule {
                to: Some(partners),
                ports: Some(vec![tcp_any()]),
            });
        }
        rules.extend(named_partners(pool, config));
    }
    rules.extend(pool.spec.network_policy.egress.iter().cloned());
    rules.dedup();
    rules
}

/// Who answers DNS; `None` where that is only known to the node.
fn resolvers(pool: &EdgePool, facts: &Facts<'_>) -> Option<Vec<NetworkPolicyPeer>> {
    let template = pool.spec.pod_template.as_ref();
    let policy = template.and_then(|template| template.dns_policy);
    let config = template.and_then(|template| template.dns_config.as_ref());
    let given = config.and_then(|config| config.nameservers.as_ref());
    let given = given.into_iter().flatten().filter_map(|it| it.parse().ok());
    let mut peers = Vec::new();
    let mut addresses: Vec<IpAddr> = given.collect();
    match policy {
        Some(DnsPolicy::Default) => return None,
        Some(DnsPolicy::None) => {}
        Some(DnsPolicy::ClusterFirst) | None => {
            peers.push(NetworkPolicyPeer {
                namespace_selector: Some(LabelSelector::default()),
                ..NetworkPolicyPeer::default()
            });
            peers.extend(LINK_LOCAL.map(|network| block(network, None)));
            addresses.extend(&facts.resolvers);
        }
    }
    addresses.sort();
    addresses.dedup();
    peers.extend(
        addresses
            .into_iter()
            .map(|ip| block(&host_network(ip), None)),
    );
    Some(peers)
}

fn host_network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}/32"),
        IpAddr::V6(ip) => format!("{ip}/128"),
    }
}

/// Networks that no connection to a partner is let out to.
fn denied(pool: &EdgePool) -> Vec<String> {
    let given = pool.spec.network_policy.partner_egress_except.as_ref();
    given.map_or_else(|| PRIVATE.map(str::to_owned).to_vec(), Clone::clone)
}

/// Both families, each without its exceptions; a family that is excepted whole is left out.
fn partners(pool: &EdgePool) -> Vec<NetworkPolicyPeer> {
    let except = denied(pool);
    ANYWHERE
        .into_iter()
        .filter(|all| {
            !except
                .iter()
                .any(|network| network.ends_with("/0") && same(network, all))
        })
        .map(|all| {
            let except: Vec<String> = except
                .iter()
                .filter(|network| same(network, all))
                .cloned()
                .collect();
            block(all, (!except.is_empty()).then_some(except))
        })
        .collect()
}

/// The rules that let pods reach those partners whose host an administrator names (`proxyFqdn`) where partners else
/// are not: an address of a denied network, or a Service. Public addresses are let out already, and what any other
/// name stands for is the partner's to change.
fn named_partners(pool: &EdgePool, config: &EdgeConfig) -> Vec<NetworkPolicyEgressRule> {
    let denied = denied(pool);
    let denied: Vec<IpNet> = denied.iter().filter_map(|it| it.parse().ok()).collect();
    let (mut addresses, mut services) = (BTreeSet::new(), BTreeSet::new());
    let dialled = config.partners.iter();
    let dialled = dialled.filter(|partner| !partner.suspended && !partner.left_out);
    for HostPort { host, port } in dialled.filter_map(|partner| partner.proxy_fqdn.as_ref()) {
        match host {
            Host::Ip(ip) => {
                if denied.iter().any(|network| network.contains(ip)) {
                    addresses.insert((*ip, *port));
                }
            }
            Host::Name(name) => {
                let namespace = namespace_of_service(name, &config.namespace);
                services.extend(namespace.map(|namespace| (namespace, *port)));
            }
        }
    }
    let addresses = addresses.into_iter();
    let services = services.into_iter();
    addresses
        .map(|(ip, port)| to_address(ip, tcp(port)))
        .chain(services.map(|(namespace, port)| to_namespace(namespace, &tcp(port))))
        .collect()
}

/// Whether two networks are of one family.
fn same(one: &str, other: &str) -> bool {
    one.contains(':') == other.contains(':')
}

/// The rules that let pods reach a server.
fn to_server(address: &HostPort, namespace: &str) -> Vec<NetworkPolicyEgressRule> {
    let port = tcp(address.port);
    match &address.host {
        Host::Ip(ip) => vec![to_address(*ip, port)],
        Host::Name(name) => to_name(name, &port, namespace),
    }
}

fn to_address(ip: IpAddr, port: NetworkPolicyPort) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: Some(vec![block(&host_network(ip), None)]),
        ports: Some(vec![port]),
    }
}

/// The namespace of the Service that a host name is, where it can be nothing else. `own`: that of the pods.
fn namespace_of_service<'a>(name: &'a DomainName, own: &'a str) -> Option<&'a str> {
    let labels: Vec<&str> = name.as_str().split('.').collect();
    match labels.as_slice() {
        [_] => Some(own),
        // Of a headless Service, a pod's own name comes first.
        [.., other, "svc"] | [.., other, "svc", "cluster", "local"] => Some(*other),
        [_, other, "svc", ..] => Some(*other),
        _ => None,
    }
}

/// The rules that let pods reach a port of a host.
fn to_name(
    name: &DomainName,
    port: &NetworkPolicyPort,
    namespace: &str,
) -> Vec<NetworkPolicyEgressRule> {
    if let Some(namespace) = namespace_of_service(name, namespace) {
        return vec![to_namespace(namespace, port)];
    }
    match name.as_str().split_once('.') {
        // A Service of another namespace, or a name of two labels outside.
        Some((_, other)) if !other.contains('.') => {
            vec![to_namespace(other, port), anywhere(port)]
        }
        _ => vec![anywhere(port)],
    }
}

fn to_namespace(name: &str, port: &NetworkPolicyPort) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(LabelSelector {
                match_labels: Some([(NAMESPACE_LABEL.to_owned(), name.to_owned())].into()),
                ..LabelSelector::default()
            }),
            ..NetworkPolicyPeer::default()
        }]),
        ports: Some(vec![port.clone()]),
    }
}

/// Whatever a name may stand for, but the node itself and what clouds answer there.
fn anywhere(port: &NetworkPolicyPort) -> NetworkPolicyEgressRule {
    let peers = ANYWHERE.into_iter().map(|all| {
        let except = LINK_LOCAL.into_iter().filter(|network| same(network, all));
        block(all, Some(except.map(str::to_owned).collect()))
    });
    let pods = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicyEgressRule {
        to: Some(peers.chain([pods]).collect()),
        ports: Some(vec![port.clone()]),
    }
}

fn block(network: &str, except: Option<Vec<String>>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: network.to_owned(),
            except,
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn tcp(port: u16) -> NetworkPolicyPort {
    of("TCP", port)
}

/// Any port.
fn tcp_any() -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: None,
        ..tcp(0)
    }
}

fn udp(port: u16) -> NetworkPolicyPort {
    of("UDP", port)
}

fn of(protocol: &str, port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(port.into())),
        ..NetworkPolicyPort::default()
    }
}
