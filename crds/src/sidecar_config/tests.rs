#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::negotiation::{Method, NegotiationError, Requirement};

const GOLDEN: &str = include_str!("golden.json");

/// Everything that a document can say.
fn everything() -> SidecarDocument {
    let mut document = SidecarDocument::new(
        "chat",
        "org.example",
        vec!["org.example".to_owned(), "rooms.org.example".to_owned()],
    );
    document.server.mode = SidecarServers::Clustered;
    document.server.address = "[::1]:5299".to_owned();
    document.server.trust_public_roots = true;
    document.other_gateways = vec![
        OtherGatewayDocument {
            domains: vec!["lab.example".to_owned()],
            address: Some("ejabberd.lab.svc.cluster.local:5269".to_owned()),
        },
        OtherGatewayDocument {
            domains: vec!["closed.example".to_owned()],
            address: None,
        },
    ];
    document.edges = vec![
        "hq-trunk.chat.svc.cluster.local:23456".to_owned(),
        "203.0.113.7:23456".to_owned(),
    ];
    document.limits.queue_timeout_seconds = 10;
    document
}

fn parse(value: &Value) -> Result<SidecarConfig, SidecarConfigError> {
    SidecarConfig::parse(value.to_string().as_bytes(), "sidecar.json")
}

#[test]
fn the_document_is_written_as_the_golden_file_has_it() {
    let written = everything().to_json();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/sidecar_config/golden.json"
        );
        std::fs::write(path, &written).unwrap();
        return;
    }
    assert_eq!(written, GOLDEN);
}

#[test]
fn what_is_written_is_read_as_it_was_meant() {
    let config = SidecarConfig::parse(GOLDEN.as_bytes(), "sidecar.json").unwrap();
    let own: Vec<_> = config.own_domains().map(DomainName::as_str).collect();
    assert_eq!(
        own,
        [
            "org.example",
            "rooms.org.example",
            "lab.example",
            "closed.example"
        ]
    );
    assert_eq!(config.server.mode, SidecarServers::Clustered);
    assert_eq!(config.server.address.to_string(), "[::1]:5299");
    assert!(config.server.methods.contains(Method::SaslOverTls));
    assert!(config.server.methods.allows_dialback());
    assert_eq!(config.other_gateways[1].address, None);
    assert_eq!(config.edges.len(), 2);
    assert_eq!(config.limits.queue_timeout_seconds, 10);
}

#[test]
fn the_smallest_document_has_the_server_as_packaged_beside_it() {
    let config = parse(&json!({
        "version": { "major": 1, "minor": 0 },
        "namespace": "chat",
        "name": "org.example",
        "domains": ["org.example"],
        "server": {},
    }))
    .unwrap();
    assert_eq!(config.server.address.to_string(), "127.0.0.1:5269");
    assert_eq!(config.server.negotiation.sasl, Requirement::Optional);
    assert_eq!(config.limits.queue_total_bytes, 64 << 20);
    assert!(config.edges.is_empty());
}

#[test]
fn an_edge_without_a_port_is_at_the_internal_listener() {
    let mut document = everything();
    document.edges = vec!["edge.org.example".to_owned(), "2001:db8::1".to_owned()];
    let config = parse(&serde_json::to_value(document).unwrap()).unwrap();
    let edges: Vec<_> = config.edges.iter().map(ToString::to_string).collect();
    assert_eq!(edges, ["edge.org.example:23456", "[2001:db8::1]:23456"]);
}

#[test]
fn one_minor_version_apart_is_read_either_way_and_no_other() {
    let of = |major: u32, minor: u32| {
        let mut document = serde_json::to_value(everything()).unwrap();
        document["version"] = json!({ "major": major, "minor": minor });
        document["unheardOf"] = json!({ "what": ["the future", "brings"] });
        parse(&document)
    };
    assert!(of(1, 0).is_ok());
    assert!(of(1, 1).is_ok(), "of an operator that was upgraded first");
    assert_eq!(
        of(1, 2).unwrap_err().to_string(),
        "sidecar.json: has version 1.2, this sidecar reads 1.0 and one minor version before and after: \
         bring operator and sidecar to versions beside each other"
    );
    assert!(of(2, 0).is_err());
    // Of one that looks otherwise the version is told, and not what else it lacks.
    let other = json!({ "version": { "major": 2, "minor": 0 } });
    let fault = parse(&other).unwrap_err().fault;
    assert!(matches!(fault, SidecarConfigFault::Version(_)), "{fault}");
}

#[test]
fn every_refusal_names_file_field_and_remedy() {
    let cases: &[(&str, Value, &str)] = &[
        (
            "/domains",
            json!([]),
            "domains: is empty: a sidecar speaks for one domain or more",
        ),
        (
            "/domains/1",
            json!("a b.example"),
            "domains[1]: \"a b.example\" is not a domain name",
        ),
        (
            "/domains/1",
            json!("10.0.0.1"),
            "domains[1]: \"10.0.0.1\" is an IP address",
        ),
        (
            "/domains/1",
            json!("org.example"),
            "domains[1]: org.example is listed twice",
        ),
        (
            "/domains/0",
            json!("a.xmpp-edge.internal"),
            "domains[0]: a.xmpp-edge.internal is at or below",
        ),
        (
            "/domains/0",
            json!("d".repeat(301)),
            "domains[0]: is longer than 300 octets",
        ),
        (
            "/otherGateways/0/domains/0",
            json!("org.example"),
            "otherGateways[0].domains[0]: org.example is listed twice",
        ),
        (
            "/otherGateways/0/domains",
            json!([]),
            "otherGateways[0].domains: is empty",
        ),
        (
            "/otherGateways/0/address",
            json!("ejabberd"),
            "otherGateways[0].address: \"ejabberd\" is not host:port",
        ),
        (
            "/server/address",
            json!("127.0.0.1"),
            "server.address: \"127.0.0.1\" is not host:port",
        ),
        (
            "/server/address",
            json!("127.0.0.1:0"),
            "server.address: \"127.0.0.1:0\" is not host:port",
        ),
        (
            "/server/negotiation/tls",
            json!("NotSupported"),
            "server.negotiation: saslNegotiation needs TLS",
        ),
        (
            "/server/mode",
            json!("Cluster"),
            "is not a sidecar's configuration (unknown variant `Cluster`, expected `Single` or `Clustered` at line 1 column",
        ),
        (
            "/edges/1",
            json!("hq trunk"),
            "edges[1]: \"hq trunk\" is not host:port",
        ),
        (
            "/edges",
            json!(vec!["a.example"; 65]),
            "edges: has 65 entries, at most 64 are taken",
        ),
        ("/name", json!("Org_Example"), "name: is no name"),
        ("/namespace", json!(""), "namespace: is no name"),
        (
            "/limits/queueTimeoutSeconds",
            json!(26),
            "limits.queueTimeoutSeconds: is 26, must be 1 to 25",
        ),
        (
            "/limits/maxStanzaBytes",
            json!(2_000_000),
            "limits.maxStanzaBytes: is 2000000, which is above queueBytes (1048576)",
        ),
        (
            "/limits/queueTotalBytes",
            json!(20_000),
            "limits.queueBytes: is 1048576, which is above queueTotalBytes (20000)",
        ),
        (
            "/limits/queueBytes",
            json!(-1),
            "is not a sidecar's configuration (invalid value: integer `-1`, expected u64 at line 1 column",
        ),
    ];
    for (at, value, expected) in cases {
        let mut document: Value = serde_json::from_str(GOLDEN).unwrap();
        *document.pointer_mut(at).unwrap() = value.clone();
        let said = parse(&document).unwrap_err().to_string();
        let expected = format!("sidecar.json: {expected}");
        assert!(said.starts_with(&expected), "{at}: {said}");
        let remedy = said.contains("copy") || said.contains("correct the EdgePool");
        assert!(remedy, "{at}: {said}");
    }
}

#[test]
fn a_server_whose_authority_is_given_is_not_taken_by_dialback() {
    let mut document = everything();
    document.server.trust_ca = Some("PEM".to_owned());
    let config = parse(&serde_json::to_value(&document).unwrap()).unwrap();
    assert!(!config.server.methods.allows_dialback());
    document.server.negotiation.sasl = Requirement::NotSupported;
    let fault = parse(&serde_json::to_value(&document).unwrap())
        .unwrap_err()
        .fault;
    let expected = FieldFault::Negotiation(NegotiationError::DialbackProvesNoKey);
    assert_eq!(fault, fault_of("server.negotiation", expected));
}

/// It goes into the log as it stands there.
#[test]
fn a_word_that_steers_a_line_is_quoted_without_what_does() {
    let mut document: Value = serde_json::from_str(GOLDEN).unwrap();
    document["server"]["negotiation"]["tls"] = json!("a\u{202e}b\u{1b}c");
    let said = parse(&document).unwrap_err().to_string();
    assert!(said.contains("`a b c`"), "{said}");
}

#[test]
fn what_is_no_document_is_told_as_such() {
    let cut = &GOLDEN.as_bytes()[..GOLDEN.len() / 2];
    let of = |json: &[u8]| SidecarConfig::parse(json, "/etc/x/sidecar.json").unwrap_err();
    for json in [b"".as_slice(), b"[]", b"null", b"\xff\xfe", cut] {
        let said = of(json).to_string();
        let expected = "/etc/x/sidecar.json: is not a sidecar's configuration (";
        assert!(said.starts_with(expected), "{said}");
    }
    // Which of two would count is no question that anybody should have to ask.
    let twice = GOLDEN.replacen("\"name\"", "\"name\": \"other\", \"name\"", 1);
    assert!(of(twice.as_bytes()).to_string().contains("duplicate field"));
    let large = vec![b' '; MAX_BYTES + 1];
    assert!(matches!(
        of(&large).fault,
        SidecarConfigFault::TooLarge { .. }
    ));
}

#[test]
fn a_namespace_of_a_thousand_own_domains_is_taken_and_one_more_is_not() {
    let of = |count: usize| {
        let mut document = everything();
        document.other_gateways.clear();
        document.domains = (0..count).map(|n| format!("d{n}.example")).collect();
        parse(&serde_json::to_value(document).unwrap())
    };
    assert_eq!(of(MAX_DOMAINS).unwrap().domains.len(), MAX_DOMAINS);
    let fault = of(MAX_DOMAINS + 1).unwrap_err().fault;
    assert_eq!(
        fault,
        fault_of(
            "domains",
            FieldFault::TooMany {
                found: MAX_DOMAINS + 1,
                most: MAX_DOMAINS
            }
        )
    );
}

/// Any JSON, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,400}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{0,8}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Where anything stands in a value.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                places(field, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn whatever_stands_anywhere_is_read_or_refused_in_one_bounded_line(
        place in any::<prop::sample::Index>(),
        value in any_json(),
    ) {
        let mut document: Value = serde_json::from_str(GOLDEN).unwrap();
        let mut found = Vec::new();
        places(&document, "", &mut found);
        let at: &String = place.get(&found);
        *document.pointer_mut(at).unwrap() = value;
        match parse(&document) {
            Ok(config) => {
                prop_assert!(!config.domains.is_empty());
                prop_assert!(config.server.methods.iter().next().is_some());
                prop_assert!(config.edges.len() <= MAX_EDGES);
            }
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.starts_with("sidecar.json: "), "{said}");
                prop_assert!(said.chars().count() <= 2_500, "{said}");
                prop_assert!(!said.contains('\n'), "{said:?}");
            }
        }
    }
}
