//! The addresses of a pool's FQDN: from the spec, else those of its load balancer. A load balancer
//! that is told by host name (as some clouds do) is resolved, again every 60 s.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{net::lookup_host, time::timeout};
use xmpp_edge_crds::kinds::PoolSpec;

use super::wanted::Addresses;

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
        addresses.extend(self.resolve(names).await);
        if addresses.is_empty() {
            Addresses::Pending
        } else {
            Addresses::Known(sorted(addresses))
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
            let absolute = format!("{}.", name.trim_end_matches('.'));
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
            (None, &[], Addresses::Pending),
        ] {
            let found = LoadBalancer::default()
                .addresses(&spec(given), ingress)
                .await;
            assert_eq!(found, expected);
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
