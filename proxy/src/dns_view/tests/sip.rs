//! What a SIP server inside is told.

use xmpp_edge_crds::edge_config::GatewayMode;

use super::*;

/// The server of `org.example` speaks SIP, by TLS alone.
fn with_sip() -> EdgeConfig {
    let mut config = config();
    let gateway = &mut config.gateways[0];
    gateway.mode = GatewayMode::Sip;
    gateway.sip = serde_json::from_value(serde_json::json!({
        "transport": "Tls", "edgeName": "a.ns.xmpp-edge.internal", "maxMessageBytes": 8192, "typing": true,
    }))
    .unwrap();
    config.edges[0].sip = 5061;
    config
}

/// NAPTR records as a zone file has them.
fn naptr(message: &Message) -> Vec<String> {
    let records = message.answers.iter();
    let records = records.filter_map(|record| match &record.data {
        RData::NAPTR(naptr) => Some(naptr.to_string()),
        _ => None,
    });
    records.collect()
}

#[tokio::test]
async fn a_domain_whose_server_speaks_sip_offers_no_xmpp() {
    let served = serve(Rules::of_edge(&with_sip()), Vec::new()).await;
    let answer = served.ask("_xmpp-server._tcp.org.example.", SRV, Over::Udp);
    assert_eq!(texts(&answer.await), ["0 0 0 ."]);
}

#[tokio::test]
async fn a_sip_server_is_led_to_edges_for_partners_and_elsewhere_for_all_else() {
    let upstream = Fake::start(vec![("org.example", A, FakeReply::Records(Vec::new()))]).await;
    let mut config = with_sip();
    let served = serve(Rules::of_edge(&config), vec![upstream.address]).await;
    let edge = ["10 100 5061 a.edges.internal."].as_slice();
    let nowhere = ["0 0 0 ."].as_slice();
    for (name, kind, expected) in [
        ("_sips._tcp.partner.example.", SRV, edge),
        ("_SIPS._TCP.Partner.Example.", SRV, edge),
        ("_sips._tcp.x.agency.example.", SRV, edge),
        // Nobody listens without TLS, and nobody speaks UDP: the domain's own address is not tried.
        ("_sip._tcp.partner.example.", SRV, nowhere),
        ("_sip._udp.partner.example.", SRV, nowhere),
        ("_sips._tcp.partner.example.", TXT, &[]),
        ("a.edges.internal.", A, &["10.1.0.1"]),
    ] {
        let answer = served.ask(name, kind, Over::Udp).await;
        assert_eq!(texts(&answer), expected, "{name} {kind}");
        assert!(!upstream.was_asked(name.trim_end_matches('.'), kind));
    }
    let asked = served.ask("partner.example.", RecordType::NAPTR, Over::Udp);
    let by_tls = "10 0 \"s\" \"SIPS+D2T\" \"\" _sips._tcp.partner.example.";
    assert_eq!(naptr(&asked.await), [by_tls]);
    // Own domains, strangers, those that are left out; other types of a partner's domain.
    for (name, kind) in [
        ("_sips._tcp.org.example", SRV),
        ("_sips._tcp.third.agency.example", SRV),
        ("_sips._tcp.stranger.example", SRV),
        ("_sip._udp.left.example", SRV),
        ("stranger.example", RecordType::NAPTR),
        ("partner.example", MX),
    ] {
        served.ask(&format!("{name}."), kind, Over::Udp).await;
        assert!(upstream.was_asked(name, kind), "{name} {kind}");
    }
    config.edges[1].sip = 15061;
    config.edges[0].sip_tcp = 5060;
    served.view.swap(Rules::of_edge(&config));
    let srv = async |name: &str| texts(&served.ask(name, SRV, Over::Udp).await);
    let both = [
        "10 100 5061 a.edges.internal.",
        "20 100 15061 b.edges.internal.",
    ];
    assert_eq!(srv("_sips._tcp.partner.example.").await, both);
    let by_tcp = ["10 100 5060 a.edges.internal."];
    assert_eq!(srv("_sip._tcp.partner.example.").await, by_tcp);
    let asked = served.ask("partner.example.", RecordType::NAPTR, Over::Udp);
    let records = naptr(&asked.await);
    assert_eq!(records[0], by_tls);
    assert_eq!(
        records[1],
        "20 0 \"s\" \"SIP+D2T\" \"\" _sip._tcp.partner.example."
    );
    config.edges[0].withdrawn = true;
    served.view.swap(Rules::of_edge(&config));
    assert_eq!(srv("_sips._tcp.partner.example.").await, both[1..]);
}

#[tokio::test]
async fn without_a_sip_server_all_of_sip_is_forwarded_and_before_there_is_a_configuration_nothing()
{
    let upstream = Fake::start(vec![("org.example", A, FakeReply::Records(Vec::new()))]).await;
    let served = serve(Rules::of_edge(&config()), vec![upstream.address]).await;
    for (name, kind) in [
        ("_sips._tcp.partner.example", SRV),
        ("partner.example", RecordType::NAPTR),
    ] {
        served.ask(&format!("{name}."), kind, Over::Udp).await;
        assert!(upstream.was_asked(name, kind), "{name} {kind}");
        served.view.swap(Rules::unknown());
        let answer = served.ask(&format!("{name}."), kind, Over::Udp).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        served.view.swap(Rules::of_edge(&config()));
    }
}
