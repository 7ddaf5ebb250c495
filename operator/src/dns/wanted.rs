//! Which records one pool wants in DNS, and whether it may have them now. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use xmpp_edge_crds::{domain::DomainName, kinds::PoolSpec};

use super::rrset::{Name, RecordData, name};

/// Whether partners should be led to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Availability {
    /// At least one pod is ready.
    Serving,
    /// No pod is ready, or no address is known: withdrawn, except for the last record of a domain.
    Unready,
    /// Disabled or suspended: its SRV records are withdrawn, always. Its addresses stay: a resolver that
    /// still has the SRV record would get NXDOMAIN for its target, and keep that for the zone's
    /// negative TTL.
    OutOfService,
    /// Deleted, or not to be published (any more): nothing stays.
    Removed,
}

impl Availability {
    /// The standing of a pool with this many ready pods.
    #[must_use]
    pub fn of(spec: &PoolSpec, ready_replicas: i32) -> Self {
        if spec.suspended || !spec.route.enabled {
            Self::OutOfService
        } else if ready_replicas > 0 {
            Self::Serving
        } else {
            Self::Unready
        }
    }

    /// What it means at one place: addresses are kept as long as there is a pool and nothing else
    /// leads there.
    #[must_use]
    fn at(self, place: &RecordGroup) -> Self {
        match (self, place) {
            (Self::OutOfService, RecordGroup::Host(_)) => Self::Unready,
            (availability, _) => availability,
        }
    }
}

/// Where partners reach a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// `spec.accessEdge.addresses`, or what the load balancer has.
    Known(Vec<IpAddr>),
    /// The load balancer has none yet: nobody is led there.
    Pending(PendingAddress),
    /// Nobody told us: someone else publishes the addresses of the FQDN (standalone).
    Elsewhere,
}

/// Why no address of an FQDN is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingAddress {
    /// None was told yet.
    Unknown,
    /// The load balancer is told by the FQDN itself, which leads nowhere before its addresses are published.
    OwnName,
}

/// Records that come and go together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecordGroup {
    /// SRV of `_xmpp-server._tcp` and `_xmpps-server._tcp` of an own domain.
    Domain(String),
    /// A and AAAA of an FQDN.
    Host(String),
}

impl RecordGroup {
    /// The names at which its records are.
    ///
    /// # Errors
    /// When it is no DNS name.
    pub fn names(&self) -> Result<Vec<Name>, hickory_proto::ProtoError> {
        match self {
            Self::Domain(domain) => SERVICES
                .iter()
                .map(|service| name(&format!("{service}._tcp.{domain}")))
                .collect(),
            Self::Host(fqdn) => Ok(vec![name(fqdn)?]),
        }
    }

    /// The domain or FQDN itself.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Domain(text) | Self::Host(text) => text,
        }
    }
}

impl fmt::Display for RecordGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "SRV of {domain}"),
            Self::Host(fqdn) => write!(f, "addresses of {fqdn}"),
        }
    }
}

/// RFC 6120 section 3.2.1 and XEP-0368.
pub const SERVICES: [&str; 2] = ["_xmpp-server", "_xmpps-server"];

/// What one place should hold of one pool.
pub type Records = BTreeMap<Name, BTreeSet<RecordData>>;

/// All that one pool wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredRecords {
    pub standing: Availability,
    pub places: BTreeMap<RecordGroup, Records>,
    /// Why the addresses are still to come, if they are: a cause to tell, where the pool is not published.
    pub address_pending: Option<PendingAddress>,
    /// Domains for which the pool has no way inside, and another one has.
    pub stranded: BTreeSet<DomainName>,
}

impl DesiredRecords {
    /// Nothing, at no place: what a pool wants of which only memories are left.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            standing: Availability::Removed,
            places: BTreeMap::new(),
            address_pending: None,
            stranded: BTreeSet::new(),
        }
    }

    /// What the pool of `spec` wants.
    ///
    /// # Errors
    /// When a domain is no DNS name; the schema refuses most of these.
    pub fn new(
        spec: &PoolSpec,
        standing: Availability,
        addresses: &Addresses,
    ) -> Result<Self, hickory_proto::ProtoError> {
        let mut places = BTreeMap::new();
        let target = name(&spec.access_edge.fqdn)?;
        let ports = [spec.listeners.s2s, spec.listeners.direct_tls];
        for domain in &spec.domains {
            let place = RecordGroup::Domain(domain.clone());
            let mut records = Records::new();
            for (owner, port) in place.names()?.into_iter().zip(ports) {
                let data = records.entry(owner).or_default();
                if port != 0 {
                    data.insert(RecordData::Srv {
                        priority: spec.route.priority,
                        weight: spec.route.weight,
                        port,
                        target: target.clone(),
                    });
                }
            }
            places.insert(place, records);
        }
        let known: Option<&[IpAddr]> = match addresses {
            Addresses::Known(addresses) => Some(addresses),
            Addresses::Pending(_) => Some(&[]),
            Addresses::Elsewhere => None,
        };
        if let Some(addresses) = known {
            let data = addresses.iter().map(|ip| match ip {
                IpAddr::V4(ip) => RecordData::A(*ip),
                IpAddr::V6(ip) => RecordData::Aaaa(*ip),
            });
            places.insert(
                RecordGroup::Host(spec.access_edge.fqdn.clone()),
                Records::from([(target, data.collect())]),
            );
        }
        let address_pending = match addresses {
            Addresses::Pending(cause) => Some(*cause),
            Addresses::Known(known) if known.is_empty() => Some(PendingAddress::Unknown),
            Addresses::Known(_) | Addresses::Elsewhere => None,
        };
        let standing = match standing {
            Availability::Serving if address_pending.is_some() => Availability::Unready,
            other => other,
        };
        Ok(Self {
            standing,
            places,
            address_pending,
            stranded: BTreeSet::new(),
        })
    }

    /// The same of a pool that has no way inside for these domains.
    #[must_use]
    pub fn stranded(mut self, domains: &BTreeSet<DomainName>) -> Self {
        self.stranded.clone_from(domains);
        self
    }

    /// What its standing means at one place.
    #[must_use]
    pub fn standing_at(&self, place: &RecordGroup) -> Availability {
        let is_stranded = matches!(place, RecordGroup::Domain(domain)
            if DomainName::parse(domain).is_ok_and(|domain| self.stranded.contains(&domain)));
        match self.standing {
            Availability::Serving if is_stranded => Availability::Unready,
            standing => standing.at(place),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dns::records;

    fn spec(more: serde_json::Value) -> PoolSpec {
        let mut spec = serde_json::json!({
            "site": "hq", "domains": ["org.example", "org.test"],
            "accessEdge": { "fqdn": "edge.example" },
            "gateways": [{ "domains": ["org.example", "org.test"], "address": "a:1" }],
            "certificate": { "selfSigned": {} },
        });
        let more = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(more);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_pool_wants_what_its_status_lists() {
        let ips: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let texts: Vec<String> = ips.iter().map(ToString::to_string).collect();
        for listeners in [
            serde_json::json!({}),
            serde_json::json!({ "s2s": 1, "directTls": 0 }),
        ] {
            let spec = spec(serde_json::json!({
                "listeners": listeners, "accessEdge": { "fqdn": "edge.example", "addresses": texts }
            }));
            let wanted =
                DesiredRecords::new(&spec, Availability::Serving, &Addresses::Known(ips.clone()))
                    .unwrap();
            let mut found: Vec<String> = wanted
                .places
                .values()
                .flatten()
                .flat_map(|(owner, data)| data.iter().map(move |it| format!("{owner} 60 IN {it}")))
                .collect();
            let mut listed = records::of_pool(&spec);
            found.sort();
            listed.sort();
            assert_eq!(found, listed);
        }
    }

    #[test]
    fn standing_is_what_the_switches_and_the_pods_say() {
        for (more, ready, expected) in [
            (serde_json::json!({}), 1, Availability::Serving),
            (serde_json::json!({}), 0, Availability::Unready),
            (
                serde_json::json!({ "suspended": true }),
                2,
                Availability::OutOfService,
            ),
            (
                serde_json::json!({ "route": { "enabled": false } }),
                0,
                Availability::OutOfService,
            ),
        ] {
            assert_eq!(Availability::of(&spec(more), ready), expected);
        }
    }

    /// B-31.
    #[test]
    fn a_domain_without_a_way_inside_is_as_if_no_pod_were_ready() {
        let spec = spec(serde_json::json!({}));
        let stranded = [DomainName::parse("org.test").unwrap()].into();
        let ips = Addresses::Known(vec!["192.0.2.1".parse().unwrap()]);
        for (standing, expected) in [
            (Availability::Serving, Availability::Unready),
            (Availability::Unready, Availability::Unready),
            (Availability::OutOfService, Availability::OutOfService),
            (Availability::Removed, Availability::Removed),
        ] {
            let wanted = DesiredRecords::new(&spec, standing, &ips).unwrap();
            let wanted = wanted.stranded(&stranded);
            let of = |domain: &str| wanted.standing_at(&RecordGroup::Domain(domain.to_owned()));
            assert_eq!((of("org.example"), of("org.test")), (standing, expected));
            let host = RecordGroup::Host("edge.example".to_owned());
            assert_eq!(wanted.standing_at(&host), standing.at(&host));
        }
    }

    #[test]
    fn nobody_is_led_to_a_name_without_addresses() {
        let spec = spec(serde_json::json!({}));
        for (addresses, expected) in [
            (
                Addresses::Pending(PendingAddress::Unknown),
                Availability::Unready,
            ),
            (Addresses::Known(Vec::new()), Availability::Unready),
            (Addresses::Elsewhere, Availability::Serving),
        ] {
            let wanted = DesiredRecords::new(&spec, Availability::Serving, &addresses).unwrap();
            assert_eq!(wanted.standing, expected);
            assert_eq!(
                wanted.address_pending.is_some(),
                expected == Availability::Unready
            );
        }
    }
}
