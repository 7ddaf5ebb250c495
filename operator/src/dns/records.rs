//! Which records a pool wants, as text of a zone file: what status shows, and what backends publish.

use std::net::IpAddr;

use xmpp_edge_crds::kinds::PoolSpec;

/// The full text of each record of one pool: SRV for every own domain (RFC 6120 section 3.2.1,
/// XEP-0368), and the addresses that are known. A pool that is disabled or suspended has none.
#[must_use]
pub fn of_pool(spec: &PoolSpec) -> Vec<String> {
    if !spec.route.enabled || spec.suspended {
        return Vec::new();
    }
    let ttl = spec.record_ttl_seconds();
    let fqdn = &spec.access_edge.fqdn;
    let (priority, weight) = (spec.route.priority, spec.route.weight);
    let mut records = Vec::new();
    for domain in &spec.domains {
        let mut srv = |service: &str, port: u16| {
            records.push(format!(
                "{service}._tcp.{domain}. {ttl} IN SRV {priority} {weight} {port} {fqdn}."
            ));
        };
        srv("_xmpp-server", spec.listeners.s2s);
        if spec.listeners.direct_tls != 0 {
            srv("_xmpps-server", spec.listeners.direct_tls);
        }
    }
    for address in spec.access_edge.addresses.iter().flatten() {
        match address.parse() {
            Ok(IpAddr::V4(ip)) => records.push(format!("{fqdn}. {ttl} IN A {ip}")),
            Ok(IpAddr::V6(ip)) => records.push(format!("{fqdn}. {ttl} IN AAAA {ip}")),
            // The schema refuses what is no address.
            Err(_) => {}
        }
    }
    records
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(more: serde_json::Value) -> PoolSpec {
        let mut spec = serde_json::json!({
            "site": "hq", "domains": ["org.example"],
            "accessEdge": { "fqdn": "edge.example", "addresses": ["192.0.2.1", "2001:db8::1"] },
            "gateways": [{ "domains": ["org.example"], "address": "a:1" }],
            "certificate": { "selfSigned": {} },
        });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn records_are_complete_lines_of_a_zone_file() {
        assert_eq!(
            of_pool(&spec(
                serde_json::json!({ "dns": { "externalDns": { "ttlSeconds": 5 } } })
            )),
            [
                "_xmpp-server._tcp.org.example. 5 IN SRV 10 100 5269 edge.example.",
                "_xmpps-server._tcp.org.example. 5 IN SRV 10 100 5270 edge.example.",
                "edge.example. 5 IN A 192.0.2.1",
                "edge.example. 5 IN AAAA 2001:db8::1",
            ]
        );
    }

    #[test]
    fn a_pool_out_of_service_wants_no_records() {
        for more in [
            serde_json::json!({ "suspended": true }),
            serde_json::json!({ "route": { "enabled": false } }),
        ] {
            assert!(of_pool(&spec(more)).is_empty());
        }
        let plain = of_pool(&spec(
            serde_json::json!({ "listeners": { "directTls": 0 } }),
        ));
        assert!(!plain.iter().any(|record| record.contains("_xmpps")));
    }
}
