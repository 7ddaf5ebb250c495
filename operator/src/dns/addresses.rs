//! The addresses of a pool's FQDN: from the spec, else those of its load balancer. A load balancer
//! that is told by host name (as some clouds do) is resolved, again every 60 s.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{net::lookup_host, time::timeout};
use xmpp_edge_crds::{edge_config::Settings, kinds::PoolSpec};

use super::wanted::{Addresses, PendingAddress};

/// How long what a host name resolved to is used.
const FRESH: Duration = Duration::from_secs(60);
/// For one resolution.
const LIMIT: Duration = Duration::from_secs(5);

/// One entry of the Service's `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    Ip(IpAddr),
    HostName(String),
}

/// What is known of one pool's load balancer.
#[derive(Debug, Default)]
pub struct LoadBalancer {
    resolved: Option<Resolved>,
}

#[derive(Debug)]
struct Resolved {
    names: Vec<String>,
    at: Instant,
    addresses: Vec<IpAddr>,
}

impl LoadBalancer {
    /// The addresses now. A host name that cannot be resolved keeps the addresses it had.
    pub async fn addresses(&mut self, spec: &PoolSpec, ingress: &[Ingress]) -> Addresses {
        if let Some(given) = &spec.access_edge.addresses {
            // The schema refuses what is no address.
            let given = given.iter().filter_map(|text| text.parse().ok());
            return Addresses::Known(sorted(given.collect()));
        }
        let mut addresses = Vec::new();
        let mut names = Vec::new();
        for entry in ingress {
            match entry {
                Ingress::Ip(ip) => addresses.push(*ip),
                Ingress::HostName(name) => names.push(name.clone()),
            }
        }
        let fqdn = spec.access_edge.fqdn.trim_end_matches('.');
        let is_own = |name: &String| name.trim_end_matches('.').eq_ignore_ascii_case(fqdn);
        let is_told_by_own_name = names.iter().any(is_own);
        addresses.extend(self.resolve(names).await);
        if !addresses.is_empty() {
            Addresses::Known(sorted(of_partners(addresses)))
        } else if is_told_by_own_name {
            Addresses::Pending(PendingAddress::OwnName)
        } else {
            Addresses::Pending(PendingAddress::Unknown)
        }
    }

    async fn resolve(&mut self, names: Vec<String>) -> Vec<IpAddr> {
        if names.is_empty() {
            self.resolved = None;
            return Vec::new();
        }
        let last = self.resolved.take().filter(|last| last.names == names);
        if let Some(last) = last.as_ref().filter(|last| last.at.elapsed() < FRESH) {
            let addresses = last.addresses.clone();
            self.resolved = Some(Resolved {
                names,
                at: last.at,
                addresses: addresses.clone(),
            });
            return addresses;
        }
        let mut found = Vec::new();
        for name in &names {
            // An absolute name: search lists of a cluster have no say in it.
            let absolute = match name.contains('.') {
                true => format!("{}.", name.trim_end_matches('.')),
                false => name.clone(),
            };
            match timeout(LIMIT, lookup_host((absolute, 0))).await {
                Ok(Ok(sockets)) => found.extend(sockets.map(|socket| socket.ip())),
                Ok(Err(error)) => tracing::warn!("load balancer {name} does not resolve: {error}"),
                Err(_) => tracing::warn!("load balancer {name} does not resolve in time"),
            }
        }
        if found.is_empty() {
            found = last.map(|last| last.addresses).unwrap_or_default();
        }
        self.resolved = Some(Resolved {
            names,
            at: Instant::now(),
            addresses: found.clone(),
        });
        found
    }
}

/// What partners are told of a load balancer's addresses: the public ones. Beside these, one of a private network
/// (RFC 6890) leads partners nowhere, or to a host of their own; where there is no other, whoever set it up means it.
#[must_use]
pub fn of_partners(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let not_public = Settings::default().dial_except;
    let is_public = |ip: &IpAddr| !not_public.iter().any(|network| network.contains(ip));
    if addresses.iter().any(is_public) {
        addresses.retain(is_public);
    }
    addresses
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(addresses: Option<&[&str]>) -> PoolSpec {
        serde_json::from_value(serde_json::json!({
            "site": "hq", "domains": ["org.example"],
            "accessEdge": { "fqdn": "edge.example", "addresses": addresses },
            "gateways": [{ "domains": ["org.example"], "address": "a:1" }],
            "certificate": { "selfSigned": {} },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn the_spec_wins_over_the_load_balancer_and_neither_is_pending() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let ingress = [Ingress::Ip(ip("192.0.2.9")), Ingress::Ip(ip("192.0.2.1"))];
        for (given, ingress, expected) in [
            (
                Some(&["2001:db8::1", "192.0.2.5"][..]),
                &ingress[..],
                Addresses::Known(vec![ip("192.0.2.5"), ip("2001:db8::1")]),
            ),
            (
                None,
                &ingress[..],
                Addresses::Known(vec![ip("192.0.2.1"), ip("192.0.2.9")]),
            ),
            (None, &[], Addresses::Pending(PendingAddress::Unknown)),
        ] {
            let found = LoadBalancer::default()
                .addresses(&spec(given), ingress)
                .await;
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn of_public_and_private_addresses_of_a_load_balancer_partners_are_told_the_public_ones()
    {
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            let texts = texts.iter();
            texts.map(|text| text.parse().unwrap()).collect()
        };
        for (has, told) in [
            (&["10.0.0.5", "203.0.113.5"][..], &["203.0.113.5"][..]),
            (&["203.0.113.5", "fd00::5"], &["203.0.113.5"]),
            (&["100.64.0.5", "fe80::5", "2001:db8::5"], &["2001:db8::5"]),
            (
                &["203.0.113.5", "2001:db8::5"],
                &["203.0.113.5", "2001:db8::5"],
            ),
            // In a network of one's own, as on a test bench.
            (&["10.0.0.5", "192.168.0.5"], &["10.0.0.5", "192.168.0.5"]),
        ] {
            let ingress: Vec<_> = ips(has).into_iter().map(Ingress::Ip).collect();
            let found = LoadBalancer::default()
                .addresses(&spec(None), &ingress)
                .await;
            assert_eq!(found, Addresses::Known(ips(told)), "{has:?}");
            // What the spec says is meant.
            let found = LoadBalancer::default()
                .addresses(&spec(Some(has)), &[])
                .await;
            assert_eq!(found, Addresses::Known(sorted(ips(has))), "{has:?}");
        }
    }

    /// Annotations of some clouds for the PROXY protocol put it there.
    #[tokio::test]
    async fn a_load_balancer_that_is_told_by_the_name_that_waits_for_it_is_no_mere_waiting() {
        for (name, expected) in [
            ("edge.example", PendingAddress::OwnName),
            ("EDGE.example.", PendingAddress::OwnName),
            ("other.invalid", PendingAddress::Unknown),
        ] {
            // As if it had been looked up.
            let mut balancer = LoadBalancer {
                resolved: Some(Resolved {
                    names: vec![name.to_owned()],
                    at: Instant::now(),
                    addresses: Vec::new(),
                }),
            };
            let ingress = [Ingress::HostName(name.to_owned())];
            let found = balancer.addresses(&spec(None), &ingress).await;
            assert_eq!(found, Addresses::Pending(expected), "{name}");
        }
    }

    #[tokio::test]
    async fn a_host_name_is_resolved_and_keeps_what_it_had() {
        let mut balancer = LoadBalancer::default();
        let named = [Ingress::HostName("localhost".to_owned())];
        let found = balancer.addresses(&spec(None), &named).await;
        let Addresses::Known(addresses) = &found else {
            panic!("localhost resolves")
        };
        assert!(addresses.iter().all(IpAddr::is_loopback));
        // The same names again are not asked for within a minute.
        let at = balancer.resolved.as_ref().unwrap().at;
        assert_eq!(balancer.addresses(&spec(None), &named).await, found);
        assert_eq!(balancer.resolved.as_ref().unwrap().at, at);
    }
}
