//! What a pool is published as: its document in force, and what only its object says. While a spec is not
//! accepted or cannot be read, DNS follows what the pods obey. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use xmpp_edge_crds::{edge_config::EdgeConfig, kinds::EdgePool};

use crate::runtime::decoded::{Decoded, UndecodableObject};

/// The pool of an object with names, ports and rank of `config`. Its switches, its addresses and who publishes it are
/// the object's.
#[must_use]
pub fn of(pool: &EdgePool, config: &EdgeConfig) -> EdgePool {
    let mut pool = pool.clone();
    let spec = &mut pool.spec;
    let given: BTreeSet<&str> = spec.domains.iter().map(String::as_str).collect();
    let domains = config.domains.iter().map(|domain| domain.as_str());
    // An accepted spec keeps its order.
    if given != domains.clone().collect() {
        spec.domains = domains.map(str::to_owned).collect();
    }
    spec.access_edge.fqdn = config.fqdn.to_string();
    spec.listeners.s2s = config.listeners.s2s;
    spec.listeners.direct_tls = config.listeners.direct_tls;
    if let Some(own) = config.edges.iter().find(|edge| edge.pool == config.pool) {
        (spec.route.priority, spec.route.weight) = (own.priority, own.weight);
    }
    pool
}

/// The same of any object, as far as external-dns is to publish it; `None` where it is not.
#[must_use]
pub fn for_external_dns(object: &Decoded<EdgePool>, config: &EdgeConfig) -> Option<EdgePool> {
    let pool = match object {
        Decoded::Valid(pool) => of(pool, config),
        Decoded::Undecodable(object) => undecodable(object, config)?,
    };
    let dns = pool.spec.dns.as_ref()?;
    dns.external_dns.is_some().then_some(pool)
}

/// Of a spec that cannot be decoded what concerns DNS is read by itself.
fn undecodable(object: &UndecodableObject, config: &EdgeConfig) -> Option<EdgePool> {
    let raw = |pointer: &str| object.spec.pointer(pointer).cloned();
    let backend = raw("/dns/externalDns").filter(Value::is_object)?;
    let is_withdrawn = config.drain_after_seconds.is_some();
    let mut manifest = json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1",
        "kind": "EdgePool",
        "metadata": object.metadata,
        "spec": {
            "site": config.site,
            "domains": [],
            "accessEdge": { "fqdn": "", "addresses": raw("/accessEdge/addresses") },
            "gateways": [],
            "certificate": {},
            "route": { "enabled": raw("/route/enabled").unwrap_or(json!(!is_withdrawn)) },
            "dns": { "externalDns": backend },
            "suspended": config.suspended,
        },
    });
    let pool = serde_json::from_value(manifest.clone()).or_else(|_| {
        // It may be just one of these that this operator does not know.
        let spec = &mut manifest["spec"];
        spec["accessEdge"]["addresses"] = Value::Null;
        spec["route"]["enabled"] = json!(!is_withdrawn);
        spec["dns"]["externalDns"] = json!({});
        serde_json::from_value(manifest)
    });
    pool.ok().map(|pool| of(&pool, config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::controllers::namespace::snapshot::tests::document;

    fn object(more: &[(&str, Value)]) -> Decoded<EdgePool> {
        let mut manifest = json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": "hq", "uid": "u"},
            "spec": {"site": "hq", "domains": ["other.example"], "accessEdge": {"fqdn": "other.example"},
                "gateways": [{"domains": ["other.example"], "address": "inside.example:5269"}],
                "route": {"priority": 99, "enabled": false}, "listeners": {"s2s": 1, "directTls": 0},
                "certificate": {"selfSigned": {}}, "dns": {"externalDns": {"ttlSeconds": 7}}},
        });
        for (pointer, value) in more {
            *manifest["spec"].pointer_mut(pointer).unwrap() = value.clone();
        }
        serde_json::from_value(manifest).unwrap()
    }

    #[test]
    fn names_ports_and_rank_are_those_in_force_and_switches_those_of_the_object() {
        let config: EdgeConfig = serde_json::from_value(document("hq")).unwrap();
        let unknown = ("/certificate", json!("newer"));
        for (object, ttl, enabled) in [
            (object(&[]), 7, false),
            (object(std::slice::from_ref(&unknown)), 7, false),
            // Of what is new in just this part the document decides.
            (
                object(&[unknown, ("/dns/externalDns/ttlSeconds", json!("1h"))]),
                60,
                true,
            ),
        ] {
            let pool = for_external_dns(&object, &config).unwrap();
            let spec = &pool.spec;
            assert_eq!(spec.domains, ["org.example"]);
            assert_eq!(spec.access_edge.fqdn, "edge.org.example");
            assert_eq!(
                (spec.listeners.s2s, spec.listeners.direct_tls),
                (5269, 5270)
            );
            assert_eq!((spec.route.priority, spec.route.weight), (10, 100));
            assert_eq!(spec.route.enabled, enabled);
            assert_eq!(spec.record_ttl_seconds(), ttl);
            assert_eq!(pool.metadata.uid.as_deref(), Some("u"));
        }
        let none = object(&[("/dns", json!({})), ("/certificate", json!("newer"))]);
        assert!(for_external_dns(&none, &config).is_none());
    }
}
