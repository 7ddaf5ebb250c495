#![allow(clippy::unwrap_used)]

mod sidecar;
mod sip;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::EdgeConfig;

use super::*;
use crate::dns::{
    exchange::{Over, exchange},
    fake::{Fake, FakeReply, a},
};

use RecordType::{A, AAAA, MX, SRV, TXT};

/// Two pools, one gateway by name and one by address, one exact partner, one wildcard, one left out.
fn config() -> EdgeConfig {
    let negotiation =
        serde_json::json!({ "tls": "Required", "sasl": "Optional", "dialback": true });
    let methods = serde_json::json!(["SaslOverTls", "TlsDialback"]);
    let partner = |name: &str, domains: &[&str], suspended: bool, left_out: bool| {
        serde_json::json!({
            "name": name, "domains": domains, "partnerType": "Federated",
            "negotiation": negotiation, "methods": methods, "suspended": suspended,
            "enableKeepAlive": true, "connectionLimit": 20, "leftOut": left_out,
        })
    };
    let gateway = |domain: &str, address: &str| {
        serde_json::json!({
            "domains": [domain], "mode": "Direct", "address": address,
            "negotiation": negotiation, "methods": methods,
        })
    };
    let edge = |pool: &str, priority: u16, addresses: &[&str]| {
        serde_json::json!({
            "pool": pool, "target": format!("{pool}.edges.internal"), "addresses": addresses,
            "port": 23456, "priority": priority, "weight": 100, "domains": ["org.example"],
        })
    };
    serde_json::from_value(serde_json::json!({
        "version": { "major": 1, "minor": 0 }, "generation": 1, "namespace": "ns", "pool": "a",
        "site": "s", "fqdn": "edge.org.example",
        "domains": ["org.example", "v6.org.example"],
        "namespaceDomains": ["org.example", "v6.org.example", "third.agency.example"],
        "listeners": { "s2s": 5269, "directTls": 5270, "internal": 23456, "admin": 9090, "dns": 53 },
        "gateways": [gateway("org.example", "10.0.0.9:5269"), gateway("v6.org.example", "xmpp.inside.example:5299")],
        "partners": [
            partner("p", &["partner.example"], false, false),
            partner("q", &["*.agency.example"], true, false),
            partner("r", &["left.example"], false, true),
        ],
        "access": { "policies": [], "homeSites": {} },
        "settings": {},
        "edges": [edge("a", 10, &["10.1.0.1", "fd00::1"]), edge("b", 20, &["10.2.0.1"])],
        "contacts": "Embedded",
    }))
    .unwrap()
}

struct Served {
    address: SocketAddr,
    view: Arc<View>,
    _stop: tokio_util::sync::DropGuard,
}

async fn serve(rules: Rules, upstreams: Vec<SocketAddr>) -> Served {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let view = View::new(rules, move || upstreams.clone());
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&view).serve(udp, tcp, stop.clone()));
    Served {
        address,
        view,
        _stop: stop.drop_guard(),
    }
}

impl Served {
    async fn ask(&self, name: &str, kind: RecordType, over: Over) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        query.metadata.recursion_desired = true;
        self.send(&query, over).await
    }

    async fn send(&self, query: &Message, over: Over) -> Message {
        let bytes = query.to_vec().unwrap();
        let answer = exchange(self.address, &bytes, over, Duration::from_secs(10))
            .await
            .unwrap();
        let message = Message::from_vec(&answer).unwrap();
        assert_eq!(message.metadata.id, query.metadata.id);
        message
    }
}

/// Each record as text, in order.
fn texts(message: &Message) -> Vec<String> {
    assert!(message.answers.iter().all(|record| record.ttl == TTL));
    message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::SRV(srv) => format!(
                "{} {} {} {}",
                srv.priority, srv.weight, srv.port, srv.target
            ),
            RData::A(a) => a.0.to_string(),
            RData::AAAA(aaaa) => aaaa.0.to_string(),
            other => format!("{other:?}"),
        })
        .collect()
}

/// behaviour.md section 4, the DNS view.
#[tokio::test]
async fn every_name_leads_where_the_design_says() {
    let served = serve(Rules::of_edge(&config()), Vec::new()).await;
    let edges = [
        "10 100 23456 a.edges.internal.",
        "20 100 23456 b.edges.internal.",
    ]
    .as_slice();
    let nowhere = ["0 0 0 ."].as_slice();
    let by_address = "v4-10-0-0-9.address.xmpp-edge.internal.";
    let srv_by_address = format!("0 0 5269 {by_address}");
    let cases: &[(&str, RecordType, &[&str])] = &[
        ("_xmpp-server._tcp.partner.example.", SRV, edges),
        ("_XMPP-Server._TCP.Partner.Example.", SRV, edges),
        ("_xmpps-server._tcp.partner.example.", SRV, nowhere),
        ("_xmpp-server._tcp.x.agency.example.", SRV, edges),
        ("_xmpp-server._tcp.y.x.agency.example.", SRV, edges),
        ("_xmpp-server._tcp.agency.example.", SRV, nowhere),
        // An own domain of another pool, which a wildcard would cover.
        ("_xmpp-server._tcp.third.agency.example.", SRV, nowhere),
        ("_xmpp-server._tcp.left.example.", SRV, nowhere),
        ("_xmpp-server._tcp.stranger.example.", SRV, nowhere),
        ("_xmpps-server._tcp.stranger.example.", SRV, nowhere),
        ("_xmpp-server._tcp.org.example.", SRV, &[&srv_by_address]),
        ("_xmpps-server._tcp.org.example.", SRV, nowhere),
        (by_address, A, &["10.0.0.9"]),
        (by_address, AAAA, &[]),
        (
            "_xmpp-server._tcp.v6.org.example.",
            SRV,
            &["0 0 5299 xmpp.inside.example."],
        ),
        ("a.edges.internal.", A, &["10.1.0.1"]),
        ("a.edges.internal.", AAAA, &["fd00::1"]),
        ("b.edges.internal.", AAAA, &[]),
        ("_xmpp-server._tcp.partner.example.", TXT, &[]),
    ];
    for over in [Over::Udp, Over::Tcp] {
        for (name, kind, expected) in cases {
            let answer = served.ask(name, *kind, over).await;
            assert_eq!(
                answer.metadata.response_code,
                ResponseCode::NoError,
                "{name} {kind}"
            );
            assert_eq!(texts(&answer), *expected, "{name} {kind} {over:?}");
            assert_eq!(
                answer.authorities.is_empty(),
                !expected.is_empty(),
                "{name} {kind}"
            );
        }
    }
}

#[tokio::test]
async fn new_rules_count_at_once() {
    let mut before = config();
    before.partners.clear();
    let served = serve(Rules::of_edge(&before), Vec::new()).await;
    let name = "_xmpp-server._tcp.partner.example.";
    assert_eq!(texts(&served.ask(name, SRV, Over::Udp).await), ["0 0 0 ."]);
    served.view.swap(Rules::of_edge(&config()));
    assert_eq!(texts(&served.ask(name, SRV, Over::Udp).await).len(), 2);
}

#[tokio::test]
async fn a_withdrawn_pool_is_passed_by_unless_all_are() {
    let mut config = config();
    config.edges[0].withdrawn = true;
    let served = serve(Rules::of_edge(&config), Vec::new()).await;
    let name = "_xmpp-server._tcp.partner.example.";
    let other = ["20 100 23456 b.edges.internal."];
    assert_eq!(texts(&served.ask(name, SRV, Over::Udp).await), other);
    let address = served.ask("a.edges.internal.", A, Over::Udp).await;
    assert_eq!(texts(&address), ["10.1.0.1"]);
    config.edges[1].withdrawn = true;
    served.view.swap(Rules::of_edge(&config));
    assert_eq!(texts(&served.ask(name, SRV, Over::Udp).await).len(), 2);
}

#[tokio::test]
async fn all_else_is_the_upstreams_answer() {
    let upstream = Fake::start(vec![
        ("host.example", A, FakeReply::Records(vec![a("192.0.2.7")])),
        ("host.example", MX, FakeReply::TcpOnly(vec![a("192.0.2.8")])),
    ])
    .await;
    let closed = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    // The first upstream is dead: the second is asked.
    let served = serve(Rules::of_edge(&config()), vec![closed, upstream.address]).await;
    for over in [Over::Udp, Over::Tcp] {
        let answer = served.ask("host.example.", A, over).await;
        assert_eq!(answer.answers[0].data, a("192.0.2.7"), "{over:?}");
        let missing = served.ask("missing.example.", A, over).await;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    }
    // Truncated is told as it is; over TCP the whole is there.
    assert!(
        served
            .ask("host.example.", MX, Over::Udp)
            .await
            .metadata
            .truncation
    );
    assert_eq!(
        served
            .ask("host.example.", MX, Over::Tcp)
            .await
            .answers
            .len(),
        1
    );
    assert!(!upstream.was_asked("_xmpp-server._tcp.partner.example", SRV));
}

#[tokio::test]
async fn without_an_upstream_that_answers_it_is_servfail() {
    let closed = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let served = serve(Rules::of_edge(&config()), vec![closed]).await;
    let answer = served.ask("host.example.", A, Over::Udp).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_truncated_and_whole_over_tcp() {
    let mut config = config();
    let edge = config.edges[0].clone();
    config.edges = (0..40)
        .map(|n| {
            let mut edge = edge.clone();
            edge.target = format!("e{n}.edges.internal").parse().unwrap();
            edge
        })
        .collect();
    let served = serve(Rules::of_edge(&config), Vec::new()).await;
    let mut query = Message::query();
    let name = Name::from_ascii("_xmpp-server._tcp.partner.example.").unwrap();
    query.add_query(Query::query(name, SRV));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    query.set_edns(edns);
    let short = served.send(&query, Over::Udp).await;
    assert!(short.metadata.truncation && short.to_vec().unwrap().len() <= 1232);
    assert_eq!(served.send(&query, Over::Tcp).await.answers.len(), 40);
}

#[tokio::test]
async fn what_is_no_question_gets_an_error_or_nothing() {
    let served = serve(Rules::of_edge(&config()), Vec::new()).await;
    let mut update = Message::new(7, hickory_proto::op::MessageType::Query, OpCode::Update);
    update.add_query(Query::query(Name::from_ascii("a.example.").unwrap(), A));
    let answer = served.send(&update, Over::Udp).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
    let empty = Message::query();
    let answer = served.send(&empty, Over::Udp).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    // Neither junk nor an answer stops it or is answered.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&[0; 3], served.address).await.unwrap();
    let reply = Message::response(9, OpCode::Query).to_vec().unwrap();
    socket.send_to(&reply, served.address).await.unwrap();
    let answer = served
        .ask("_xmpp-server._tcp.partner.example.", SRV, Over::Udp)
        .await;
    assert_eq!(answer.answers.len(), 2);
    assert!(socket.try_recv(&mut [0; 100]).is_err());
}
