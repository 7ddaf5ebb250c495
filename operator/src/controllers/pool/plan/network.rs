//! The NetworkPolicy: who may reach the pods, and what they may reach.
//!
//! In: the public listeners from anywhere, the internal ones from `internalFrom`, the admin port
//! from the operator and `adminFrom`. Out: DNS, the gateways, the contacts' database, and partners
//! on any TCP port, but no private or link-local network. A policy knows no names: what is given by
//! name is allowed by its port, or, where the name is a Service's, by its namespace (the port that
//! a policy sees is the pod's, which the name does not tell).

use std::net::IpAddr;

use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule,
        NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt;
use xmpp_edge_crds::{
    edge_config::{EdgeConfig, Host, HostPort},
    kinds::EdgePool,
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
const DNS_PORT: u16 = 53;
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
    let mut rules = vec![
        NetworkPolicyIngressRule {
            from: None,
            ports: Some(public),
        },
        NetworkPolicyIngressRule {
            from: wanted.internal_from.clone(),
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

fn egress(pool: &EdgePool, config: &EdgeConfig, facts: &Facts<'_>) -> Vec<NetworkPolicyEgressRule> {
    let mut rules = vec![NetworkPolicyEgressRule {
        to: None,
        ports: Some(vec![udp(DNS_PORT), tcp(DNS_PORT)]),
    }];
    for gateway in &config.gateways {
        rules.extend(to_host(&gateway.address, &config.namespace));
    }
    let postgres = pool
        .spec
        .contacts
        .as_ref()
        .is_some_and(|contacts| contacts.postgres.is_some());
    if postgres {
        for address in &facts.database {
            rules.extend(to_host(address, &config.namespace));
        }
        if facts.database.is_empty() {
            rules.push(anywhere(DATABASE_PORT));
        }
    }
    let partners = partners(pool);
    if !partners.is_empty() {
        rules.push(NetworkPolicyEgressRule {
            to: Some(partners),
            ports: Some(vec![NetworkPolicyPort {
                protocol: Some("TCP".to_owned()),
                ..NetworkPolicyPort::default()
            }]),
        });
    }
    rules.dedup();
    rules
}

/// Both families, each without its exceptions; a family that is excepted whole is left out.
fn partners(pool: &EdgePool) -> Vec<NetworkPolicyPeer> {
    let given = pool.spec.network_policy.partner_egress_except.as_ref();
    let except: Vec<String> =
        given.map_or_else(|| PRIVATE.map(str::to_owned).to_vec(), Clone::clone);
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

/// Whether two networks are of one family.
fn same(one: &str, other: &str) -> bool {
    one.contains(':') == other.contains(':')
}

/// The rules that let pods reach a server.
fn to_host(address: &HostPort, namespace: &str) -> Vec<NetworkPolicyEgressRule> {
    match &address.host {
        Host::Ip(ip) => {
            let network = match ip {
                IpAddr::V4(ip) => format!("{ip}/32"),
                IpAddr::V6(ip) => format!("{ip}/128"),
            };
            vec![NetworkPolicyEgressRule {
                to: Some(vec![block(&network, None)]),
                ports: Some(vec![tcp(address.port)]),
            }]
        }
        Host::Name(name) => {
            let labels: Vec<&str> = name.as_str().split('.').collect();
            match labels.as_slice() {
                [_] => vec![to_namespace(namespace)],
                [_, other, "svc", ..] => vec![to_namespace(other)],
                // A Service of another namespace, or a name of two labels outside.
                [_, other] => vec![to_namespace(other), anywhere(address.port)],
                _ => vec![anywhere(address.port)],
            }
        }
    }
}

fn to_namespace(name: &str) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(LabelSelector {
                match_labels: Some([(NAMESPACE_LABEL.to_owned(), name.to_owned())].into()),
                ..LabelSelector::default()
            }),
            ..NetworkPolicyPeer::default()
        }]),
        ports: Some(vec![NetworkPolicyPort {
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }]),
    }
}

fn anywhere(port: u16) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: None,
        ports: Some(vec![tcp(port)]),
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
