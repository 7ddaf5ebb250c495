//! What a sidecar's view tells its server: sidecar.md section 4, every row.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xmpp_edge_crds::sidecar_config::{OtherGatewayDocument, SidecarConfig, SidecarDocument};

use super::*;

const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Two own domains; three other servers: by name, by address, and one that nobody inside reaches.
fn config() -> SidecarConfig {
    let own = vec!["org.example".to_owned(), "rooms.org.example".to_owned()];
    let mut document = SidecarDocument::new("chat", "org.example", own);
    document.other_gateways = [
        ("lab.example", Some("ejabberd.lab.example:5299")),
        ("plant.example", Some("10.0.0.9:5269")),
        ("closed.example", None),
    ]
    .map(|(domain, address)| OtherGatewayDocument {
        domains: vec![domain.to_owned()],
        address: address.map(str::to_owned),
    })
    .into();
    SidecarConfig::parse(document.to_json().as_bytes(), "test").unwrap()
}

fn rules() -> Rules {
    Rules::of_sidecar(&config(), &LOOPBACK, 23456)
}

#[tokio::test]
async fn a_server_is_led_to_its_sidecar_for_everybody_but_its_own() {
    let served = serve(rules(), Vec::new()).await;
    let sidecar = ["0 0 23456 sidecar.xmpp-edge.internal."].as_slice();
    let nowhere = ["0 0 0 ."].as_slice();
    let by_address = "v4-10-0-0-9.address.xmpp-edge.internal.";
    let cases: &[(&str, RecordType, &[&str])] = &[
        ("_xmpp-server._tcp.partner.example.", SRV, sidecar),
        ("_XMPP-Server._TCP.Partner.Example.", SRV, sidecar),
        // The edge answers strangers, with its reason.
        ("_xmpp-server._tcp.stranger.example.", SRV, sidecar),
        ("_xmpp-server._tcp.below.org.example.", SRV, sidecar),
        ("_xmpp-server._tcp.org.example.", SRV, nowhere),
        ("_xmpp-server._tcp.rooms.org.example.", SRV, nowhere),
        (
            "_xmpp-server._tcp.lab.example.",
            SRV,
            &["0 0 5299 ejabberd.lab.example."],
        ),
        (
            "_xmpp-server._tcp.plant.example.",
            SRV,
            &["0 0 5269 v4-10-0-0-9.address.xmpp-edge.internal."],
        ),
        ("_xmpp-server._tcp.closed.example.", SRV, nowhere),
        ("_xmpps-server._tcp.partner.example.", SRV, nowhere),
        ("_xmpps-server._tcp.org.example.", SRV, nowhere),
        ("_xmpps-server._tcp.lab.example.", SRV, nowhere),
        ("_xmpp-server._tcp.partner.example.", TXT, &[]),
        ("sidecar.xmpp-edge.internal.", A, &["127.0.0.1"]),
        ("sidecar.xmpp-edge.internal.", AAAA, &["::1"]),
        ("sidecar.xmpp-edge.internal.", MX, &[]),
        (by_address, A, &["10.0.0.9"]),
        (by_address, AAAA, &[]),
    ];
    for over in [Over::Udp, Over::Tcp] {
        for (name, kind, expected) in cases {
            let answer = served.ask(name, *kind, over).await;
            let code = answer.metadata.response_code;
            assert_eq!(code, ResponseCode::NoError, "{name} {kind} {over:?}");
            assert_eq!(texts(&answer), *expected, "{name} {kind} {over:?}");
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_listens_on_ipv4_alone_has_no_ipv6_address() {
    let served = serve(
        Rules::of_sidecar(&config(), &LOOPBACK[..1], 5300),
        Vec::new(),
    )
    .await;
    let name = "_xmpp-server._tcp.partner.example.";
    let expected = ["0 0 5300 sidecar.xmpp-edge.internal."];
    assert_eq!(texts(&served.ask(name, SRV, Over::Udp).await), expected);
    let address = served
        .ask("sidecar.xmpp-edge.internal.", AAAA, Over::Udp)
        .await;
    assert!(address.answers.is_empty() && !address.authorities.is_empty());
}

#[tokio::test]
async fn without_a_configuration_services_are_servfail_and_all_else_is_forwarded() {
    let host = ("host.example", A, FakeReply::Records(vec![a("192.0.2.7")]));
    let upstream = Fake::start(vec![host]).await;
    let served = serve(Rules::unknown(), vec![upstream.address]).await;
    for over in [Over::Udp, Over::Tcp] {
        for name in [
            "_xmpp-server._tcp.partner.example.",
            "_xmpp-server._tcp.org.example.",
            "_xmpps-server._tcp.partner.example.",
        ] {
            let answer = served.ask(name, SRV, over).await;
            let code = answer.metadata.response_code;
            assert_eq!(code, ResponseCode::ServFail, "{name} {over:?}");
        }
        let answer = served.ask("host.example.", A, over).await;
        assert_eq!(answer.answers[0].data, a("192.0.2.7"), "{over:?}");
    }
    assert!(!upstream.was_asked("_xmpp-server._tcp.partner.example", SRV));
    served.view.swap(rules());
    let name = "_xmpp-server._tcp.partner.example.";
    let answer = served.ask(name, SRV, Over::Udp).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn what_a_sidecar_does_not_answer_is_the_upstreams() {
    let upstream = Fake::start(vec![
        (
            "ejabberd.lab.example",
            A,
            FakeReply::Records(vec![a("192.0.2.7")]),
        ),
        ("big.example", MX, FakeReply::TcpOnly(vec![a("192.0.2.8")])),
    ])
    .await;
    let served = serve(rules(), vec![upstream.address]).await;
    let target = served.ask("ejabberd.lab.example.", A, Over::Udp).await;
    assert_eq!(target.answers[0].data, a("192.0.2.7"));
    let short = served.ask("big.example.", MX, Over::Udp).await;
    assert!(short.metadata.truncation);
    let whole = served.ask("big.example.", MX, Over::Tcp).await;
    assert_eq!(whole.answers.len(), 1);
    assert!(!upstream.was_asked("_xmpp-server._tcp.stranger.example", SRV));
}
