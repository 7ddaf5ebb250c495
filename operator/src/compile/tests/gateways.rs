//! Gateways and their sidecars: what they mean, and what is told of them.

use xmpp_edge_crds::edge_config::{GatewayMode, SidecarServers};

use super::*;

/// A pool whose one gateway is as said.
fn behind(name: &str, gateway: &str) -> String {
    pool(name, "org.example", "").replace("address: 'inside.example:5269'", gateway)
}

#[test]
fn a_gateway_of_mode_sidecar_says_who_may_open_trunks_and_needs_no_address() {
    let digits = "4f5b2a8c".repeat(8);
    let gateway = format!(
        "name: chat, mode: Sidecar, sidecar: {{server: Clustered, keys: [{{name: a, spkiSha256: 'sha256:{digits}'}}]}}"
    );
    let compiled = run(&behind("hq", &gateway), &Configs::new());
    let config = &compiled.configs["hq"];
    assert_eq!(config.version, xmpp_edge_crds::edge_config::WITHOUT_SIP);
    let found = &config.gateways[0];
    assert_eq!((found.mode, &found.address), (GatewayMode::Sidecar, &None));
    assert_eq!(found.name.as_deref(), Some("chat"));
    assert!(found.methods.allows_plaintext());
    let sidecar = found.sidecar.as_ref().unwrap();
    assert_eq!(sidecar.server, SidecarServers::Clustered);
    assert_eq!(sidecar.keys[0].spki_sha256, digits);
    // Loopback is no place where plaintext has to be told.
    assert_eq!(
        accepted(&compiled, "hq"),
        (true, Reason::Accepted, String::new())
    );
    // Documents of pools without sidecars are as older proxies read them.
    let plain = run(&pool("hq", "org.example", ""), &Configs::new());
    let config = &plain.configs["hq"];
    assert_eq!(
        config.version,
        xmpp_edge_crds::edge_config::WITHOUT_SIDECARS
    );
    assert!(config.gateways[0].sidecar.is_none() && config.gateways[0].name.is_none());
}

#[test]
fn what_is_wrong_with_a_sidecar_is_told_with_its_place() {
    for (sidecar, expected) in [
        (
            "serverAddress: prosody",
            "spec.gateways[0].sidecar.serverAddress: \"prosody\" is not host:port",
        ),
        (
            "edges: ['a b:1']",
            "spec.gateways[0].sidecar.edges[0]: \"a b:1\" is not host:port",
        ),
        (
            "keys: [{name: a, spkiSha256: 'xy5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c'}]",
            "spec.gateways[0].sidecar.keys[0].spkiSha256: \"xy",
        ),
        (
            "trust: {caConfigMapRef: {name: spire, key: a}}",
            "spec.gateways[0].sidecar.trust.caConfigMapRef: there is no ConfigMap \"spire\"",
        ),
    ] {
        let gateway = format!("mode: Sidecar, sidecar: {{{sidecar}}}");
        let (status, _, said) = accepted(&run(&behind("hq", &gateway), &Configs::new()), "hq");
        assert!(!status && said.contains(expected), "{said}");
    }
    let far = "mode: Sidecar, sidecar: {serverAddress: 'prosody.chat.svc.cluster.local:5269'}";
    let (status, _, said) = accepted(&run(&behind("hq", far), &Configs::new()), "hq");
    assert!(status && said.contains("run them beside it"), "{said}");
}

#[test]
fn pools_that_say_different_things_of_a_gateway_s_sidecars_are_told() {
    let direct = "address: 'inside.example:5269'";
    for (one, other, expected) in [
        ("mode: Sidecar", "mode: Sidecar", None),
        // Moved pool by pool.
        ("mode: Sidecar", direct, None),
        (
            "mode: Sidecar, name: a",
            "mode: Sidecar",
            Some("another name"),
        ),
        (
            "mode: Sidecar",
            "address: 'a:1', sidecar: {server: Clustered}",
            Some("another sidecar.server"),
        ),
        (
            "mode: Sidecar, sidecar: {keys: [{name: a, spkiSha256: '4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c4f5b2a8c'}]}",
            "mode: Sidecar",
            Some("another sidecar.keys"),
        ),
        (
            "mode: Sidecar, sidecar: {serverAddress: '[::1]:5299'}",
            "mode: Sidecar",
            Some("another sidecar.serverAddress"),
        ),
        (
            "mode: Sidecar, negotiation: {tlsNegotiation: Required}",
            "mode: Sidecar",
            Some("another negotiation"),
        ),
        (
            "mode: Sidecar, trust: {publicRoots: true}",
            "mode: Sidecar",
            Some("another trust"),
        ),
    ] {
        let yaml = behind("dr", one) + &behind("hq", other);
        let compiled = run(&yaml, &Configs::new());
        let mut told = compiled.diagnostics.iter();
        let told = told.find(|it| it.reason == Reason::GatewaysDiffer);
        let told = told.map(|it| (it.object.name.as_str(), it.message.as_str()));
        assert_eq!(
            told.is_some(),
            expected.is_some(),
            "{one} {other}: {told:?}"
        );
        if let (Some((name, said)), Some(expected)) = (told, expected) {
            assert_eq!(name, "hq");
            assert!(said.contains(expected), "{said}");
        }
    }
}

#[test]
fn a_pool_that_cannot_be_read_differs_in_nothing_that_only_its_spec_says() {
    let own = "mode: Sidecar, sidecar: {serverAddress: '[::1]:5299'}";
    let yaml = behind("dr", own) + &behind("hq", own);
    let last = run(&yaml, &Configs::new()).configs;
    let broken = behind("dr", own) + &behind("hq", own).replace("site: hq-site", "site: 7");
    let compiled = run(&broken, &last);
    assert_eq!(compiled.configs.len(), 2);
    let reasons = compiled.diagnostics.iter().map(|it| it.reason);
    let reasons: Vec<Reason> = reasons.collect();
    assert!(reasons.contains(&Reason::Invalid), "{reasons:?}");
    assert!(!reasons.contains(&Reason::GatewaysDiffer), "{reasons:?}");
}

#[test]
fn gateways_of_several_pools_that_are_called_alike_and_have_other_domains_are_told() {
    let of = |name: &str, domain: &str| {
        let address = "address: 'inside.example:5269'";
        pool(name, domain, "").replace(address, "mode: Sidecar, name: chat")
    };
    let yaml = of("dr", "b.example") + &of("hq", "a.example");
    let compiled = run(&yaml, &Configs::new());
    let mut told = compiled.diagnostics.iter();
    let told = told.find(|it| it.reason == Reason::GatewaysDiffer);
    let told = told.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
    assert_eq!(told.object.name, "hq");
    for part in [
        "EdgePool \"dr\"",
        "another domains",
        "chat",
        "spec.gateways[].name",
    ] {
        assert!(told.message.contains(part), "{}", told.message);
    }
}

#[test]
fn a_partner_below_an_own_domain_is_not_accepted_where_a_server_is_behind_a_sidecar() {
    for (gateway, is_accepted) in [
        ("mode: Sidecar", false),
        ("address: 'a:1', sidecar: {}", true),
    ] {
        let yaml = behind("hq", gateway) + &partner("p", "lab.org.example", "");
        let (status, reason, said) = accepted(&run(&yaml, &Configs::new()), "p");
        assert_eq!(status, is_accepted, "{said}");
        if !is_accepted {
            assert_eq!(reason, Reason::BelowOwnDomain);
            assert!(said.contains("reached by a sidecar"), "{said}");
        }
    }
}

#[test]
fn sip_48_a_gateway_of_mode_sip_says_how_its_server_is_spoken_to() {
    use xmpp_edge_crds::edge_config::{
        EndOfSubscription, GatewaySip, SipDialect, SipTransport, VERSION,
    };
    let compiled = run(
        &behind("hq", "mode: Sip, address: 'sip.example:5061'"),
        &Configs::new(),
    );
    let lync = "mode: Sip, address: 'sip.example:5061', sip: {dialect: Lync}";
    let spoken = &run(&behind("hq", lync), &Configs::new()).configs["hq"];
    let dialect = spoken.gateways[0].sip.as_ref().map(|sip| sip.dialect);
    assert_eq!(dialect, Some(SipDialect::Lync));
    let config = &compiled.configs["hq"];
    assert_eq!(config.version, VERSION);
    assert_eq!((config.listeners.sip, config.listeners.sip_tcp), (5061, 0));
    let expected = GatewaySip {
        transport: SipTransport::Tls,
        dialect: SipDialect::Simple,
        server_names: Vec::new(),
        edge_name: "hq.default.xmpp-edge.internal".parse().unwrap(),
        own_certificate: false,
        max_message_bytes: 8192,
        typing: true,
        presence_expires_seconds: 1800,
        end_of_subscription: EndOfSubscription::Keep,
    };
    assert_eq!(config.gateways[0].sip.as_ref(), Some(&expected));
    // Where SIP servers of every pool find it.
    assert_eq!((config.edges[0].sip, config.edges[0].sip_tcp), (5061, 0));
    assert_eq!(
        accepted(&compiled, "hq"),
        (true, Reason::Accepted, String::new())
    );
    // Ports are open where something may come.
    let plain = run(&pool("hq", "org.example", ""), &Configs::new());
    let listeners = &plain.configs["hq"].listeners;
    assert_eq!((listeners.sip, listeners.sip_tcp), (0, 0));
}

#[test]
fn sip_48_each_rule_of_a_gateway_of_mode_sip_has_its_message() {
    let clear =
        "mode: Sip, address: 'sip.example:5060', sip: {transport: Tcp, allowPlaintext: true";
    for (gateway, expected) in [
        ("mode: Sip", "mode Sip needs the server's address"),
        (
            "address: 'x.example:1', sip: {typing: false}",
            "sip is for mode Sip",
        ),
        (
            "mode: Sip, address: 'x.example:1', negotiation: {tlsNegotiation: Required}",
            "negotiation is for XMPP servers",
        ),
        (
            "mode: Sip, address: 'x.example:1', confirmByPing: false",
            "confirmByPing and sidecar are for XMPP servers",
        ),
        (
            "mode: Sip, address: 'x.example:1', sip: {transport: Tcp}",
            "transport Tcp sends messages and presence in the clear",
        ),
        (&format!("{clear}}}"), "needs listeners.sip"),
        (
            "mode: Sip, address: 'sip.example:0'",
            "write host:port, or with mode Sip host alone",
        ),
        (
            "address: sip.example",
            "write host:port: a host alone is for mode Sip",
        ),
        (
            &format!("{clear}}}, trust: {{publicRoots: true}}"),
            "transport Tcp has none: remove trust",
        ),
        (
            "mode: Sip, address: 'x.example:1', sip: {serverNames: ['a b']}",
            "spec.gateways[0].sip.serverNames[0]: \"a b\" is not a domain name",
        ),
        (
            "mode: Sip, address: 'x.example:1', sip: {edgeName: org.example}",
            "edgeName is a host of the edge, not a domain of users",
        ),
        (
            "mode: Sip, address: 'x.example:1', sip: {edgeName: edge.org.example}",
            "may not sign for edge.org.example, below own domain org.example: set sip.certificateSecretRef",
        ),
        (
            "mode: Sip, address: 'x.example:1', sip: {edgeName: org.example, certificateSecretRef: {name: s}}",
            "edgeName is a host of the edge, not a domain of users",
        ),
        (
            &format!("{clear}, certificateSecretRef: {{name: s}}}}"),
            "with transport Tcp the edge shows no certificate",
        ),
    ] {
        let compiled = run(&behind("hq", gateway), &Configs::new());
        let (is_accepted, reason, message) = accepted(&compiled, "hq");
        assert!(
            !is_accepted && message.contains(expected),
            "{gateway}: {reason:?} {message}"
        );
    }
    // A name alone is for DNS to lead on, an address has a port of its own.
    for (given, expected) in [
        ("sip.example", "sip.example"),
        ("'192.0.2.1'", "192.0.2.1:5061"),
        ("'[2001:db8::1]'", "[2001:db8::1]:5061"),
        ("'sip.example:7001'", "sip.example:7001"),
    ] {
        let compiled = run(
            &behind("hq", &format!("mode: Sip, address: {given}")),
            &Configs::new(),
        );
        assert!(accepted(&compiled, "hq").0, "{given}");
        let address = compiled.configs["hq"].gateways[0].address.as_ref();
        assert_eq!(address.map(ToString::to_string).as_deref(), Some(expected));
    }
    // What somebody else signs may be below an own domain.
    let given = "mode: Sip, address: 'x.example:1', sip: {edgeName: edge.org.example, certificateSecretRef: {name: theirs}}";
    let compiled = run(&behind("hq", given), &Configs::new());
    assert!(accepted(&compiled, "hq").0);
    let sip = compiled.configs["hq"].gateways[0].sip.as_ref().unwrap();
    assert!(sip.own_certificate);
    assert_eq!(sip.edge_name.as_str(), "edge.org.example");
    let several = behind("hq", "mode: Sip, address: 'x.example:1'")
        .replace("spec: {site:", "spec: {replicas: 2, site:");
    let mut world = world(&several);
    world.single_process = false;
    let compiled = compile(&world, &Configs::new());
    let (is_accepted, _, message) = accepted(&compiled, "hq");
    assert!(
        !is_accepted && message.contains("set replicas: 1"),
        "{message}"
    );
}
