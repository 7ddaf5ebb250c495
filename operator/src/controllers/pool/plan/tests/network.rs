//! The NetworkPolicy, evaluated: who may connect to what.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use xmpp_edge_crds::edge_config::GatewayMode;

use super::*;

/// The other end of a connection: a pod, or an address outside.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Pod {
        namespace: &'static str,
        name: &'static str,
    },
    Address(&'static str),
}
use Peer::{Address, Pod};

const OPERATOR: Peer = Pod {
    namespace: "xmpp-system",
    name: "xmpp-edge-operator",
};
const MONITORING: Peer = Pod {
    namespace: "monitoring",
    name: "prometheus",
};
const PROSODY: Peer = Pod {
    namespace: "chat",
    name: "prosody",
};
const PARTNER: Peer = Address("198.51.100.7");
const PARTNER6: Peer = Address("2001:db8::7");
const LAN: Peer = Address("10.20.30.40");

/// Whether a selector matches the only label that the tables use.
fn selects(selector: Option<&Value>, key: &str, value: &str) -> bool {
    let Some(labels) = selector.and_then(|selector| selector.get("matchLabels")) else {
        return true;
    };
    labels
        .as_object()
        .unwrap()
        .iter()
        .all(|(label, wanted)| label == key && wanted == value)
}

/// As the API's documentation says: a pod selector without a namespace selector means the policy's
/// own namespace.
fn matches(rule: &Value, peer: Peer) -> bool {
    match (peer, rule.get("ipBlock")) {
        (Address(address), Some(block)) => {
            let address: IpAddr = address.parse().unwrap();
            let within = |network: &Value| {
                let network: IpNet = network.as_str().unwrap().parse().unwrap();
                network.contains(&address)
            };
            let except = block.get("except").and_then(Value::as_array);
            within(&block["cidr"]) && !except.is_some_and(|all| all.iter().any(within))
        }
        (Pod { namespace, name }, None) => {
            let there = match rule.get("namespaceSelector") {
                Some(selector) => selects(Some(selector), "kubernetes.io/metadata.name", namespace),
                None => namespace == "org",
            };
            there && selects(rule.get("podSelector"), "app.kubernetes.io/name", name)
        }
        _ => false,
    }
}

fn allowed(policy: &Value, way: &str, peers: &str, peer: Peer, port: (&str, u64)) -> bool {
    let rules = policy["spec"][way].as_array().unwrap();
    rules.iter().any(|rule| {
        let peers = rule.get(peers).and_then(Value::as_array);
        let from = peers.is_none_or(|all| all.iter().any(|rule| matches(rule, peer)));
        let ports = rule["ports"].as_array().unwrap();
        from && ports.iter().any(|rule| {
            rule["protocol"] == port.0 && rule.get("port").is_none_or(|number| *number == port.1)
        })
    })
}

fn check(more: &str, table: &[(&str, Peer, (&str, u64), bool)]) {
    let plan = planned(more);
    let policy = manifest(&plan, ChildKind::NetworkPolicy, "hq");
    for (way, peer, port, expected) in table {
        let (way, peers) = if *way == "in" {
            ("ingress", "from")
        } else {
            ("egress", "to")
        };
        let found = allowed(&policy, way, peers, *peer, *port);
        assert_eq!(found, *expected, "{more:?}: {way} {peer:?} {port:?}");
    }
}

#[test]
fn by_default_partners_reach_the_public_listeners_and_only_the_operator_the_admin_port() {
    check(
        "",
        &[
            ("in", PARTNER, ("TCP", 5269), true),
            ("in", PARTNER6, ("TCP", 5270), true),
            ("in", PROSODY, ("TCP", 23456), true),
            ("in", PARTNER, ("UDP", 5269), false),
            ("in", PARTNER, ("TCP", 9090), false),
            ("in", PROSODY, ("TCP", 9090), false),
            ("in", MONITORING, ("TCP", 9090), false),
            ("in", OPERATOR, ("TCP", 9090), true),
            (
                "in",
                Pod {
                    namespace: "org",
                    name: "xmpp-edge-operator",
                },
                ("TCP", 9090),
                false,
            ),
            ("in", PARTNER, ("TCP", 22), false),
            // The DNS view is off.
            ("in", PROSODY, ("UDP", 53), false),
        ],
    );
}

#[test]
fn pods_reach_dns_the_gateway_and_partners_but_no_private_network() {
    check(
        "",
        &[
            ("out", PARTNER, ("TCP", 5269), true),
            ("out", PARTNER6, ("TCP", 443), true),
            ("out", PARTNER, ("UDP", 5269), false),
            ("out", LAN, ("TCP", 5269), false),
            ("out", Address("169.254.169.254"), ("TCP", 80), false),
            ("out", Address("fe80::1"), ("TCP", 5269), false),
            ("out", Address("fd00::1"), ("TCP", 5269), false),
            // DNS: pods of the cluster and resolvers of the node, nobody else.
            ("out", LAN, ("UDP", 53), false),
            ("out", LAN, ("TCP", 53), false),
            ("out", MONITORING, ("TCP", 53), true),
            ("out", MONITORING, ("UDP", 5353), true),
            ("out", Address("169.254.20.10"), ("UDP", 53), true),
            // By a Service's name: its port, of no other in the namespace.
            ("out", PROSODY, ("TCP", 5269), true),
            ("out", PROSODY, ("TCP", 5582), false),
            ("out", PROSODY, ("UDP", 5269), false),
            ("out", MONITORING, ("TCP", 9090), false),
        ],
    );
}

#[test]
fn what_the_spec_allows_is_allowed_and_nothing_beside_it() {
    check(
        "  listeners: {directTls: 0, dns: 5353}
  networkPolicy:
    adminFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
    internalFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: chat}}}]
    partnerEgressExcept: [198.51.100.0/24, '::/0']
",
        &[
            ("in", PARTNER, ("TCP", 5269), true),
            ("in", PARTNER, ("TCP", 5270), false),
            ("in", PROSODY, ("TCP", 23456), true),
            ("in", PROSODY, ("UDP", 5353), true),
            ("in", PROSODY, ("TCP", 5353), true),
            ("in", MONITORING, ("TCP", 23456), false),
            ("in", MONITORING, ("TCP", 9090), true),
            ("in", OPERATOR, ("TCP", 9090), true),
            ("in", PARTNER, ("TCP", 9090), false),
            ("out", PARTNER, ("TCP", 5269), false),
            ("out", PARTNER6, ("TCP", 5269), false),
            ("out", LAN, ("TCP", 5269), true),
        ],
    );
    check(
        "  networkPolicy: {partnerEgressExcept: []}\n",
        &[
            ("out", LAN, ("TCP", 5269), true),
            ("out", PARTNER6, ("TCP", 5269), true),
        ],
    );
}

/// Where the policy is enforced, `proxyFqdn` alone would be dialled in vain.
#[test]
fn a_partner_that_an_administrator_names_is_reached_in_a_private_network() {
    const THERE: Peer = Pod {
        namespace: "demo-partner",
        name: "prosody",
    };
    let denied = "  networkPolicy: {partnerEgressExcept: [198.51.100.0/24]}\n";
    let proxy = "  settings: {egressProxy: {address: 'proxy.example:1080'}}\n";
    for (more, suspended, peer, port, expected) in [
        ("", false, LAN, 5269, true),
        ("", false, LAN, 5270, false),
        ("", false, THERE, 5270, true),
        ("", false, THERE, 5269, false),
        ("", false, MONITORING, 5269, false),
        ("", true, LAN, 5269, false),
        ("", true, THERE, 5270, false),
        (denied, false, PARTNER, 5269, true),
        (denied, false, PARTNER, 5270, false),
        (proxy, false, LAN, 5269, false),
    ] {
        let pool = pool(&format!("{SELF_SIGNED}{more}"));
        let hosts = [
            "10.20.30.40",
            "p.demo-partner.svc.cluster.local:5270",
            "xmpp.example",
            "198.51.100.7",
        ];
        let partners = hosts.iter().enumerate().map(|(number, host)| {
            let partner = serde_json::json!({
                "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
                "metadata": {"name": format!("p{number}")},
                "spec": {"domain": format!("p{number}.example"), "proxyFqdn": host, "suspended": suspended, "partnerType": "Federated"},
            });
            serde_json::from_value(partner).unwrap()
        });
        let plan = plan(&pool, &config_with(&pool, partners.collect()), &facts());
        let policy = manifest(&plan, ChildKind::NetworkPolicy, "hq");
        let found = allowed(&policy, "egress", "to", peer, ("TCP", port));
        assert_eq!(found, expected, "{more:?} {suspended} {peer:?} {port}");
    }
}

#[test]
fn s20_with_an_egress_proxy_pods_reach_it_and_no_partner() {
    check(
        "  settings: {egressProxy: {address: '10.20.30.40:1080'}}\n",
        &[
            ("out", LAN, ("TCP", 1080), true),
            ("out", LAN, ("TCP", 5269), false),
            ("out", PARTNER, ("TCP", 1080), false),
            ("out", PARTNER, ("TCP", 5269), false),
            ("out", PARTNER6, ("TCP", 5269), false),
            ("out", PROSODY, ("TCP", 5269), true),
            ("out", MONITORING, ("UDP", 53), true),
        ],
    );
}

#[test]
fn gateways_and_the_database_are_reached_wherever_they_are() {
    // (gateway, allowed, denied)
    let database = Pod {
        namespace: "databases",
        name: "postgres",
    };
    for (address, peer, port, expected) in [
        ("10.20.30.40:5269", LAN, 5269, true),
        ("10.20.30.40:5269", LAN, 5270, false),
        ("'[fd00::9]:5269'", Address("fd00::9"), 5269, true),
        ("chat.internal.example:7777", LAN, 7777, true),
        ("chat.internal.example:7777", LAN, 5269, false),
        (
            "prosody:5269",
            Pod {
                namespace: "org",
                name: "prosody",
            },
            5269,
            true,
        ),
        ("prosody.chat:5269", PROSODY, 5269, true),
        ("prosody.chat.svc.cluster.local:5269", PROSODY, 5269, true),
        ("prosody.chat.svc.cluster.local:5269", PROSODY, 15269, false),
        ("prosody-0.prosody.chat.svc:5269", PROSODY, 5269, true),
        ("prosody.chat.svc.cluster.local:5269", database, 5269, false),
        // What a name may stand for is no node's own.
        (
            "chat.internal.example:5269",
            Address("169.254.169.254"),
            5269,
            false,
        ),
        ("chat.internal.example:5269", PROSODY, 5269, true),
        // A SIP server's records may name any port.
        ("sip.internal.example", LAN, 5071, true),
        ("sip.internal.example", PROSODY, 5071, true),
        (
            "sip.internal.example",
            Address("169.254.169.254"),
            5071,
            false,
        ),
        ("kamailio.chat.svc.cluster.local", PROSODY, 5071, true),
        ("kamailio.chat.svc.cluster.local", database, 5071, false),
        ("10.20.30.40", LAN, 5061, true),
        ("10.20.30.40", LAN, 5071, false),
    ] {
        let mut pool = pool(SELF_SIGNED);
        let address = address.trim_matches('\'');
        if !address.contains(':') {
            pool.spec.gateways[0].mode = GatewayMode::Sip;
            pool.spec.replicas = Some(1);
        }
        pool.spec.gateways[0].address = Some(address.to_owned());
        let plan = plan(&pool, &config(&pool), &facts());
        let policy = manifest(&plan, ChildKind::NetworkPolicy, "hq");
        let found = allowed(&policy, "egress", "to", peer, ("TCP", port));
        assert_eq!(found, expected, "{address} {peer:?} {port}");
    }
    let pool = pool(&format!(
        "{SELF_SIGNED}  contacts: {{postgres: {{secretRef: {{name: database}}}}}}\n"
    ));
    for (known, peer, port, expected) in [
        (Some("postgres.databases.svc:5432"), database, 5432, true),
        (Some("postgres.databases.svc:5432"), database, 15432, false),
        (Some("10.20.30.40:6432"), LAN, 6432, true),
        (Some("10.20.30.40:6432"), LAN, 5432, false),
        (None, LAN, 5432, true),
    ] {
        let facts = Facts {
            database: known
                .map(|text| super::super::HostPort::parse(text, None).unwrap())
                .into_iter()
                .collect(),
            ..facts()
        };
        let plan = plan(&pool, &config(&pool), &facts);
        let policy = manifest(&plan, ChildKind::NetworkPolicy, "hq");
        let found = allowed(&policy, "egress", "to", peer, ("TCP", port));
        assert_eq!(found, expected, "{known:?} {peer:?} {port}");
    }
}

#[test]
fn k7_resolvers_are_reached_where_they_are_and_nobody_else_for_dns() {
    const RESOLVER: Peer = Address("10.96.0.10");
    const OTHER: Peer = Address("10.53.0.53");
    let with_template = |template: &str| format!("{SELF_SIGNED}  podTemplate: {{{template}}}\n");
    let server = "dnsConfig: {nameservers: [10.53.0.53]}";
    for (template, peer, port, expected) in [
        ("", RESOLVER, 53, true),
        ("", MONITORING, 5353, true),
        ("", OTHER, 53, false),
        (server, OTHER, 53, true),
        (server, RESOLVER, 53, true),
        (
            "dnsPolicy: None, dnsConfig: {nameservers: [10.53.0.53]}",
            OTHER,
            53,
            true,
        ),
        (
            "dnsPolicy: None, dnsConfig: {nameservers: [10.53.0.53]}",
            RESOLVER,
            53,
            false,
        ),
        // The node alone knows its resolvers.
        ("dnsPolicy: Default", OTHER, 53, true),
    ] {
        let pool = pool(&with_template(template));
        let facts = Facts {
            resolvers: vec!["10.96.0.10".parse().unwrap()],
            ..facts()
        };
        let plan = plan(&pool, &config(&pool), &facts);
        let policy = manifest(&plan, ChildKind::NetworkPolicy, "hq");
        for protocol in ["UDP", "TCP"] {
            let found = allowed(&policy, "egress", "to", peer, (protocol, port));
            assert_eq!(found, expected, "{template:?} {peer:?} {protocol} {port}");
        }
    }
}

#[test]
fn rules_of_the_spec_are_added_to_what_pods_may_reach() {
    check(
        "  networkPolicy:
    egress: [{to: [{ipBlock: {cidr: 10.20.30.0/24}}], ports: [{protocol: TCP, port: 15269}]}]
",
        &[
            ("out", LAN, ("TCP", 15269), true),
            ("out", LAN, ("TCP", 15270), false),
            ("out", PARTNER, ("TCP", 5269), true),
        ],
    );
}

#[test]
fn where_sidecars_alone_come_from_inside_nobody_else_does() {
    use xmpp_edge_crds::{
        edge_config::GatewayMode,
        kinds::pool::{PoolSidecar, PoolSidecarKey},
    };
    let key = PoolSidecarKey {
        name: "host".to_owned(),
        spki_sha256: "ab".repeat(32),
    };
    let given = |namespace: Option<&str>, keys: &[PoolSidecarKey]| PoolSidecar {
        namespace: namespace.map(str::to_owned),
        keys: keys.to_vec(),
        ..PoolSidecar::default()
    };
    let trunk = ("TCP", 23456);
    for (mode, sidecar, from_chat, from_monitoring) in [
        (GatewayMode::Direct, None, true, true),
        (GatewayMode::Sidecar, None, false, false),
        (
            GatewayMode::Sidecar,
            Some(given(Some("chat"), &[])),
            true,
            false,
        ),
        (
            GatewayMode::Sidecar,
            Some(given(Some("chat"), &[key])),
            true,
            true,
        ),
    ] {
        let mut pool = pool(SELF_SIGNED);
        let gateway = &mut pool.spec.gateways[0];
        (gateway.mode, gateway.sidecar) = (mode, sidecar);
        let plan = plan(&pool, &config(&pool), &facts());
        let policy = manifest(&plan, ChildKind::NetworkPolicy, "hq");
        let of = |peer| allowed(&policy, "ingress", "from", peer, trunk);
        assert_eq!(
            (of(PROSODY), of(MONITORING)),
            (from_chat, from_monitoring),
            "{:?}",
            pool.spec.gateways[0]
        );
    }
}
