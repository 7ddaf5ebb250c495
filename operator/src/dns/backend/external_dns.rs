//! The backend `spec.dns.externalDns`: objects of external-dns (v0.22 or later), which does the
//! publishing. Pure: nothing here talks to anyone.
//!
//! external-dns owns an RRset as a whole, and merges objects only where their TTLs agree. So each
//! name is in one object, built from all pools of the namespace, with one TTL. An object is named
//! after its domain or FQDN.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use xmpp_edge_crds::kinds::pool::dns::ExternalDns;

use crate::dns::{
    rrset::{Name, RecordData, RecordKind},
    wanted::{Availability, DesiredRecords, RecordGroup},
};

/// Of the kind.
pub const API_VERSION: &str = "externaldns.k8s.io/v1alpha1";
/// Of external-dns.
pub const KIND: &str = "DNSEndpoint";

/// A pool as external-dns is to publish it.
#[derive(Clone, Debug)]
pub struct PoolEndpoint<'a> {
    /// Name of the object.
    pub name: &'a str,
    /// `spec.route.priority`: the lowest is the most preferred, then the name.
    pub priority: u16,
    pub settings: &'a ExternalDns,
    pub wanted: &'a DesiredRecords,
}

/// One DNSEndpoint; where it is and whose is the caller's to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsEndpoint {
    pub name: String,
    /// Names of the pools in it, which own it together, none as controller.
    pub pools: BTreeSet<String>,
    /// What the most preferred of them wants on it.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub spec: EndpointSpec,
}

/// `spec` of a DNSEndpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// One RRset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Without the last dot.
    pub dns_name: String,
    pub record_type: String,
    /// Seconds.
    #[serde(rename = "recordTTL", default)]
    pub record_ttl: u32,
    /// SRV: `priority weight port host.`
    #[serde(default)]
    pub targets: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provider_specific: Vec<ProviderProperty>,
}

/// What a provider is told of an RRset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderProperty {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

/// Which pools are to be published: all that serve; where no pool of a domain does, of those in the
/// objects as they are now the most preferred that is only unready. `now` are the `spec`s of the
/// namespace's objects.
#[must_use]
pub fn published<'a>(
    pools: &[PoolEndpoint<'a>],
    now: &[EndpointSpec],
) -> BTreeSet<(&'a str, RecordGroup)> {
    let mut published = BTreeSet::new();
    let places: BTreeSet<&RecordGroup> = pools
        .iter()
        .flat_map(|pool| pool.wanted.places.keys())
        .collect();
    for place in places {
        let of_place = || {
            pools
                .iter()
                .filter(move |pool| pool.wanted.places.contains_key(place))
        };
        let at = |pool: &PoolEndpoint<'_>| pool.wanted.standing_at(place);
        let serving = || of_place().filter(|pool| at(pool) == Availability::Serving);
        published.extend(serving().map(|pool| (pool.name, place.clone())));
        if serving().next().is_none() {
            let last = of_place()
                .filter(|pool| at(pool) == Availability::Unready)
                .filter(|pool| is_in(pool, place, now))
                .min_by_key(|pool| (pool.priority, pool.name));
            published.extend(last.map(|pool| (pool.name, place.clone())));
        }
    }
    published
}

/// Whether some record of the pool at this place is in the objects as they are.
fn is_in(pool: &PoolEndpoint<'_>, place: &RecordGroup, now: &[EndpointSpec]) -> bool {
    let target = |data: &RecordData| match data {
        // Priority, weight and port may have been edited since.
        RecordData::Srv { target, .. } => format!(" {target}"),
        other => target_of(other),
    };
    pool.wanted.places[place].iter().any(|(name, wanted)| {
        let endpoints = now.iter().flat_map(|spec| &spec.endpoints);
        let here = endpoints.filter(|endpoint| endpoint.dns_name == dns_name(name));
        let mut targets = here.flat_map(|endpoint| &endpoint.targets);
        targets.any(|there| wanted.iter().any(|data| there.ends_with(&target(data))))
    })
}

/// The objects of a namespace: all that there should be. `now` as in [`published`]; an object that
/// is there and not among these is to be deleted.
#[must_use]
pub fn objects(pools: &[PoolEndpoint<'_>], now: &[EndpointSpec]) -> Vec<DnsEndpoint> {
    let published = published(pools, now);
    let mut objects: BTreeMap<String, DnsEndpoint> = BTreeMap::new();
    let mut ordered: Vec<&PoolEndpoint<'_>> = pools.iter().collect();
    ordered.sort_by_key(|pool| (pool.priority, pool.name));
    for pool in ordered {
        for (place, records) in &pool.wanted.places {
            if !published.contains(&(pool.name, place.clone())) {
                continue;
            }
            let name = object_name(place.text());
            let object = objects.entry(name.clone()).or_insert_with(|| DnsEndpoint {
                name,
                pools: BTreeSet::new(),
                labels: pool.settings.labels.clone(),
                annotations: pool.settings.annotations.clone(),
                spec: EndpointSpec::default(),
            });
            object.pools.insert(pool.name.to_owned());
            // The first pool that comes is the most preferred: its TTL holds for the object, and what it says to the
            // provider.
            let first = object.spec.endpoints.first();
            let like = first.cloned().unwrap_or_else(|| empty(pool.settings));
            for (name, wanted) in records {
                for data in wanted {
                    add(&mut object.spec, name, data, &like);
                }
            }
        }
    }
    let mut objects: Vec<DnsEndpoint> = objects.into_values().collect();
    for object in &mut objects {
        let endpoints = &mut object.spec.endpoints;
        endpoints.retain_mut(|endpoint| {
            endpoint.targets.sort();
            endpoint.targets.dedup();
            !endpoint.targets.is_empty()
        });
        endpoints.sort_by(|a, b| (&a.dns_name, &a.record_type).cmp(&(&b.dns_name, &b.record_type)));
    }
    objects.retain(|object| !object.spec.endpoints.is_empty());
    objects
}

/// An RRset of nothing as a pool wants its own to be.
fn empty(settings: &ExternalDns) -> Endpoint {
    let properties = settings.provider_specific.iter();
    let properties = properties.map(|(name, value)| ProviderProperty {
        name: name.clone(),
        value: value.clone(),
    });
    Endpoint {
        dns_name: String::new(),
        record_type: String::new(),
        record_ttl: settings.ttl_seconds,
        targets: Vec::new(),
        provider_specific: properties.collect(),
    }
}

/// Adds a record; its RRset is else as `like`.
fn add(spec: &mut EndpointSpec, name: &Name, data: &RecordData, like: &Endpoint) {
    let (dns_name, record_type) = (dns_name(name), record_type(data.kind()));
    let here = spec
        .endpoints
        .iter_mut()
        .find(|endpoint| endpoint.dns_name == dns_name && endpoint.record_type == record_type);
    match here {
        Some(endpoint) => endpoint.targets.push(target_of(data)),
        None => spec.endpoints.push(Endpoint {
            dns_name,
            record_type: record_type.to_owned(),
            targets: vec![target_of(data)],
            ..like.clone()
        }),
    }
}

fn dns_name(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

fn record_type(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Srv => "SRV",
        RecordKind::Txt => "TXT",
        RecordKind::A => "A",
        RecordKind::Aaaa => "AAAA",
    }
}

/// A record's data without its type; an SRV target keeps its last dot, which external-dns demands.
fn target_of(data: &RecordData) -> String {
    let text = data.to_string();
    text.split_once(' ')
        .map_or(text.clone(), |(_, rest)| rest.to_owned())
}

/// `xmpp-edge-<domain>`: one name of a DNSEndpoint for each domain or FQDN. A domain has at most 253
/// characters, and so has a name: what would be longer ends in a hash.
#[must_use]
pub fn object_name(text: &str) -> String {
    const MAX: usize = 253;
    let name = format!("xmpp-edge-{text}");
    if name.len() <= MAX {
        return name;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hash = HEXLOWER.encode(&digest.as_ref()[..8]);
    let keep = name[..MAX - hash.len() - 1].trim_end_matches(['.', '-']);
    format!("{keep}-{hash}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dns::wanted::Addresses;

    fn wanted(fqdn: &str, priority: u16, standing: Availability, ip: &str) -> DesiredRecords {
        let spec = serde_json::from_value(serde_json::json!({
            "site": "hq", "domains": ["org.example"], "accessEdge": { "fqdn": fqdn },
            "route": { "priority": priority },
            "gateways": [{ "domains": ["org.example"], "address": "a:1" }],
            "certificate": { "selfSigned": {} },
        }))
        .unwrap();
        DesiredRecords::new(
            &spec,
            standing,
            &Addresses::Known(vec![ip.parse().unwrap()]),
        )
        .unwrap()
    }

    /// Objects of two pools with these standings, over those that are there.
    fn two(standings: [Availability; 2], now: &[DnsEndpoint]) -> Vec<DnsEndpoint> {
        let one = wanted("a.edge.example", 10, standings[0], "192.0.2.1");
        let two = wanted("b.edge.example", 20, standings[1], "2001:db8::2");
        let settings = [(60, "a"), (300, "b")].map(|(ttl_seconds, pool)| ExternalDns {
            ttl_seconds,
            labels: [("zone".to_owned(), pool.to_owned())].into(),
            annotations: [("filter".to_owned(), pool.to_owned())].into(),
            provider_specific: [("proxied".to_owned(), format!("not-{pool}"))].into(),
        });
        let pools = [
            PoolEndpoint {
                name: "b",
                priority: 20,
                settings: &settings[1],
                wanted: &two,
            },
            PoolEndpoint {
                name: "a",
                priority: 10,
                settings: &settings[0],
                wanted: &one,
            },
        ];
        let now: Vec<EndpointSpec> = now.iter().map(|object| object.spec.clone()).collect();
        objects(&pools, &now)
    }

    #[test]
    fn a_domain_is_one_object_of_all_pools_as_the_most_preferred_wants_it() {
        let objects = two([Availability::Serving; 2], &[]);
        let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "xmpp-edge-a.edge.example",
                "xmpp-edge-b.edge.example",
                "xmpp-edge-org.example"
            ]
        );
        assert_eq!(
            objects[2].pools,
            BTreeSet::from(["a".to_owned(), "b".to_owned()])
        );
        let told = |value: &str| serde_json::json!([{ "name": "proxied", "value": value }]);
        assert_eq!(
            serde_json::to_value(&objects[2].spec).unwrap(),
            serde_json::json!({ "endpoints": [
                { "dnsName": "_xmpp-server._tcp.org.example", "recordType": "SRV", "recordTTL": 60,
                  "targets": ["10 100 5269 a.edge.example.", "20 100 5269 b.edge.example."],
                  "providerSpecific": told("not-a") },
                { "dnsName": "_xmpps-server._tcp.org.example", "recordType": "SRV", "recordTTL": 60,
                  "targets": ["10 100 5270 a.edge.example.", "20 100 5270 b.edge.example."],
                  "providerSpecific": told("not-a") },
            ]})
        );
        assert_eq!(
            serde_json::to_value(&objects[1].spec).unwrap(),
            serde_json::json!({ "endpoints": [
                { "dnsName": "b.edge.example", "recordType": "AAAA", "recordTTL": 300, "targets": ["2001:db8::2"],
                  "providerSpecific": told("not-b") },
            ]})
        );
        // What the filters of external-dns select by.
        for (object, pool) in [(0, "a"), (1, "b"), (2, "a")] {
            assert_eq!(objects[object].labels["zone"], pool);
            assert_eq!(objects[object].annotations["filter"], pool);
        }
    }

    #[test]
    fn of_pools_that_are_all_unready_the_most_preferred_that_was_published_stays() {
        use Availability::{OutOfService, Serving, Unready};
        let targets = |objects: &[DnsEndpoint]| -> Vec<String> {
            let srv = objects.iter().flat_map(|object| &object.spec.endpoints);
            let srv = srv.filter(|endpoint| endpoint.record_type == "SRV");
            let targets = srv.flat_map(|endpoint| endpoint.targets.clone());
            let hosts = targets.map(|target| target.split(' ').next_back().unwrap().to_owned());
            hosts.collect::<BTreeSet<_>>().into_iter().collect()
        };
        let (a, b) = ("a.edge.example.", "b.edge.example.");
        for (before, after, expected) in [
            ([Serving, Serving], [Unready, Serving], vec![b]),
            ([Serving, Serving], [Unready, Unready], vec![a]),
            ([OutOfService, Serving], [Unready, Unready], vec![b]),
            ([Serving, Serving], [OutOfService, Unready], vec![b]),
            ([Serving, Serving], [OutOfService, OutOfService], vec![]),
            ([OutOfService, OutOfService], [Unready, Unready], vec![]),
        ] {
            let now = two(before, &[]);
            let then = two(after, &now);
            assert_eq!(targets(&then), expected, "{before:?} → {after:?}");
            assert_eq!(two(after, &then), then, "again: {after:?}");
        }
    }

    #[test]
    fn names_of_objects_fit_and_differ() {
        let label = "a".repeat(63);
        let long = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        let longer = format!("{label}.{label}.{label}.{}", "c".repeat(61));
        let (one, other) = (object_name(&long), object_name(&longer));
        assert!(one.len() <= 253 && one != other);
        assert_eq!(object_name("org.example"), "xmpp-edge-org.example");
    }
}
