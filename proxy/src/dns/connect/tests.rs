#![allow(clippy::unwrap_used)]

use hickory_proto::rr::RecordType;
use tokio::net::TcpListener;

use super::*;
use crate::dns::fake::{Fake, FakeReply, a, srv, tlsa_311};

const SERVICE: &str = "_xmpp-server._tcp.partner.example";

fn discover() -> TargetSource {
    TargetSource::Discover {
        except: Arc::new([]),
    }
}

fn partner() -> DomainName {
    DomainName::parse("partner.example").unwrap()
}

fn dialer(fake: &Fake) -> Dialer {
    Dialer::new(Resolver::at(fake.address).unwrap(), Arc::new(|_, _| false))
}

async fn candidates(dialer: &Dialer) -> Candidates {
    dialer
        .candidates(&partner(), &discover(), Direction::Outbound)
        .await
        .ok()
        .unwrap()
}

/// a refused target leads to the next; R-02: so does one where the negotiation failed.
#[tokio::test]
async fn every_target_is_handed_out_until_none_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let closed = TcpListener::bind("127.0.0.2:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let fake = Fake::start(vec![
        (
            SERVICE,
            RecordType::SRV,
            FakeReply::Secure(vec![
                srv(1, 0, closed.port(), "closed.partner.example."),
                srv(2, 0, port, "missing.partner.example."),
                srv(3, 0, port, "open.partner.example."),
            ]),
        ),
        (
            "closed.partner.example",
            RecordType::A,
            FakeReply::Records(vec![a("127.0.0.2")]),
        ),
        (
            "open.partner.example",
            RecordType::A,
            FakeReply::Records(vec![a("127.0.0.1")]),
        ),
    ])
    .await;
    let mut candidates = candidates(&dialer(&fake)).await;
    let refused = candidates.next().await.unwrap().unwrap_err();
    assert_eq!(
        (refused.label(), refused.address()),
        ("TcpRefused", Some(closed))
    );
    assert_eq!(
        candidates.next().await.unwrap().unwrap_err().label(),
        "DnsNotFound"
    );
    let connected = candidates.next().await.unwrap().unwrap();
    assert_eq!(connected.candidate.target, "open.partner.example");
    assert!(connected.stream.nodelay().unwrap());
    assert!(candidates.next().await.is_none());
    let outcomes: Vec<_> = candidates
        .take_steps()
        .iter()
        .map(|s| (s.step, s.outcome))
        .collect();
    assert_eq!(
        outcomes,
        [
            (Step::Dns, "Ok"),
            // Whether DANE is used, of each target with an address.
            (Step::Dns, "Ok"),
            (Step::Tcp, "TcpRefused"),
            (Step::Dns, "DnsNotFound"),
            (Step::Dns, "Ok"),
            (Step::Tcp, "Ok")
        ]
    );
    assert!(candidates.take_steps().is_empty());
}

/// A silent target does not use up the time of the others; one that is only slow has its whole time once
/// these had their chance.
#[tokio::test]
async fn a_silent_target_lets_the_others_try_before_it_has_its_whole_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let names = ["slow", "silent", "refusing"];
    let hosts: Vec<_> = names.map(|name| format!("{name}.partner.example")).into();
    let services = (1..).zip(&hosts);
    let mut records = vec![(
        SERVICE,
        RecordType::SRV,
        FakeReply::Records(
            services
                .map(|(priority, host)| srv(priority, 0, open.port(), &format!("{host}.")))
                .collect(),
        ),
    )];
    for (number, host) in (1..).zip(&hosts) {
        let address = a(&format!("192.0.2.{number}"));
        records.push((host, RecordType::A, FakeReply::Records(vec![address])));
    }
    let fake = Fake::start(records).await;
    let calls = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let whole = Duration::from_secs(2);
    let connect: Connect = {
        let calls = Arc::clone(&calls);
        Arc::new(move |address: SocketAddr| {
            let IpAddr::V4(ip) = address.ip() else {
                unreachable!("there are A records alone")
            };
            calls.lock().push(ip.octets()[3]);
            async move {
                match ip.octets()[3] {
                    // How long a connection takes is what is tried.
                    1 => tokio::time::sleep(whole / 3).await,
                    2 => std::future::pending().await,
                    _ => return Err(io::ErrorKind::ConnectionRefused.into()),
                }
                TcpStream::connect(open).await
            }
            .boxed()
        })
    };
    let dialer = dialer(&fake)
        .with_connect(connect)
        .with_connect_timeout(whole);
    let mut candidates = candidates(&dialer).await;
    let mut labels = Vec::new();
    loop {
        match candidates.next().await {
            Some(Ok(connected)) => break assert_eq!(connected.candidate.target, hosts[0]),
            Some(Err(fault)) => labels.push(fault.label()),
            None => panic!("the slow one was not waited for: {labels:?}"),
        }
    }
    assert_eq!(labels, ["TcpTimeout", "TcpTimeout", "TcpRefused"]);
    assert_eq!(*calls.lock(), [1, 2, 3, 1]);
    assert_eq!(
        candidates.next().await.unwrap().unwrap_err().label(),
        "TcpTimeout"
    );
    assert!(candidates.next().await.is_none());
    assert_eq!(*calls.lock(), [1, 2, 3, 1, 2]);
}

/// RFC 2782: only the best priority counts while nothing has failed.
#[tokio::test]
async fn a_connected_address_is_known_again_among_the_preferred_targets() {
    let fake = Fake::start(vec![
        (
            SERVICE,
            RecordType::SRV,
            FakeReply::Secure(vec![
                srv(9, 0, 5269, "backup.partner.example."),
                srv(1, 0, 5269, "one.partner.example."),
                srv(1, 0, 5270, "two.partner.example."),
            ]),
        ),
        (
            "one.partner.example",
            RecordType::A,
            FakeReply::Records(vec![a("192.0.2.1"), a("192.0.2.2")]),
        ),
        (
            "two.partner.example",
            RecordType::A,
            FakeReply::Secure(vec![a("192.0.2.3")]),
        ),
        (
            "backup.partner.example",
            RecordType::A,
            FakeReply::Records(vec![a("192.0.2.9")]),
        ),
        (
            "_5270._tcp.two.partner.example",
            RecordType::TLSA,
            FakeReply::Secure(vec![tlsa_311([7; 32])]),
        ),
    ])
    .await;
    let mut candidates = candidates(&dialer(&fake)).await;
    let preferred = [
        ("one.partner.example".to_owned(), 5269),
        ("two.partner.example".to_owned(), 5270),
    ];
    assert_eq!(candidates.preferred(), preferred);
    for (address, target) in [
        ("192.0.2.2:5269", Some("one.partner.example")),
        ("192.0.2.3:5270", Some("two.partner.example")),
        // Another port of the same host is another server.
        ("192.0.2.3:5269", None),
        ("192.0.2.9:5269", None),
        ("192.0.2.77:5269", None),
    ] {
        let found = candidates.at(address.parse().unwrap()).await;
        let found = found.map(|found| (found.target, found.tlsa.is_some()));
        let secure = target == Some("two.partner.example");
        assert_eq!(
            found,
            target.map(|target| (target.to_owned(), secure)),
            "{address}"
        );
    }
}

#[tokio::test]
async fn a_forbidden_address_is_not_dialled_unless_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fake = Fake::start(vec![
        (
            SERVICE,
            RecordType::SRV,
            FakeReply::Records(vec![srv(1, 0, port, "x.partner.example.")]),
        ),
        (
            "x.partner.example",
            RecordType::A,
            FakeReply::Records(vec![a("127.0.0.1")]),
        ),
    ])
    .await;
    let dialer = Dialer::new(
        Resolver::at(fake.address).unwrap(),
        Arc::new(|address, except| is_guarded(address.ip(), except)),
    );
    let mut discovered = candidates(&dialer).await;
    let fault = discovered.next().await.unwrap().unwrap_err();
    assert_eq!(fault.label(), "AddressForbidden");
    assert!(discovered.next().await.is_none());
    // no SRV question at all.
    fake.asked.lock().clear();
    let route =
        TargetSource::Fixed(HostPort::parse(&format!("x.partner.example:{port}"), None).unwrap());
    let mut fixed = dialer
        .candidates(&partner(), &route, Direction::Outbound)
        .await
        .ok()
        .unwrap();
    assert!(fixed.next().await.unwrap().is_ok());
    assert!(!fake.was_asked(SERVICE, RecordType::SRV));
}

#[tokio::test]
async fn a_domain_that_offers_no_service_is_not_dialled() {
    let fake = Fake::start(vec![(
        SERVICE,
        RecordType::SRV,
        FakeReply::Records(vec![srv(0, 0, 0, ".")]),
    )])
    .await;
    let result = dialer(&fake)
        .candidates(&partner(), &discover(), Direction::Outbound)
        .await;
    let (fault, step) = result.err().unwrap();
    assert_eq!(fault, DnsError::NotOffered { domain: partner() });
    assert_eq!((step.step, step.outcome), (Step::Dns, "ServiceNotOffered"));
    assert!(!fake.was_asked("partner.example", RecordType::A));
}

/// TLSA after an SRV answer that was not secure proves nothing (RFC 7673 section 3.1).
#[tokio::test]
async fn tlsa_follows_a_secure_srv_answer_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let records = vec![srv(1, 0, port, "x.partner.example.")];
    for (reply, expected) in [
        (FakeReply::Secure(records.clone()), true),
        (FakeReply::Records(records), false),
    ] {
        let tlsa = format!("_{port}._tcp.x.partner.example");
        let fake = Fake::start(vec![
            (SERVICE, RecordType::SRV, reply),
            (
                "x.partner.example",
                RecordType::A,
                FakeReply::Secure(vec![a("127.0.0.1")]),
            ),
            (
                &tlsa,
                RecordType::TLSA,
                FakeReply::Secure(vec![tlsa_311([1; 32])]),
            ),
        ])
        .await;
        let connected = candidates(&dialer(&fake))
            .await
            .next()
            .await
            .unwrap()
            .unwrap();
        assert_eq!(connected.candidate.tlsa.is_some(), expected);
        assert_eq!(fake.was_asked(&tlsa, RecordType::TLSA), expected);
    }
}

#[test]
fn addresses_of_this_machine_and_this_link_are_guarded() {
    for (text, expected) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("0.0.0.0", true),
        ("0.1.2.3", true),
        ("169.254.1.1", true),
        ("255.255.255.255", true),
        ("224.0.0.1", true),
        ("::1", true),
        ("::", true),
        ("fe80::1", true),
        ("ff02::1", true),
        ("::ffff:127.0.0.1", true),
        ("192.0.2.1", false),
        ("10.0.0.1", false),
        ("2001:db8::1", false),
        ("::ffff:192.0.2.1", false),
    ] {
        assert_eq!(is_guarded(text.parse().unwrap(), &[]), expected, "{text}");
    }
}

/// S-13: a partner's DNS does not lead the edge to what stands beside it, in whatever form the
/// address is written.
#[test]
fn s_13_networks_that_are_nobodys_on_the_internet_are_not_dialled() {
    let default = xmpp_edge_crds::edge_config::Settings::default().dial_except;
    for (text, expected) in [
        ("10.0.3.7", true),
        ("172.16.0.1", true),
        ("172.32.0.1", false),
        ("192.168.1.1", true),
        ("100.64.0.1", true),
        ("100.128.0.1", false),
        ("127.0.0.1", true),
        ("169.254.169.254", true),
        ("0.1.2.3", true),
        ("224.0.0.251", true),
        ("255.255.255.255", true),
        ("198.51.100.7", false),
        ("::ffff:10.0.0.5", true),
        ("::10.0.0.5", true),
        ("64:ff9b::a00:5", true),
        ("64:ff9b::a9fe:a9fe", true),
        ("64:ff9b::c633:6407", false),
        ("64:ff9b:1::c633:6407", true),
        ("2002:a00:5::1", true),
        ("2002:c633:6407::1", false),
        ("fd00:ec2::254", true),
        ("fe80::1", true),
        ("ff02::1", true),
        ("::1", true),
        ("2001:db8::1", false),
    ] {
        let ip = text.parse().unwrap();
        assert_eq!(is_guarded(ip, &default), expected, "{text}");
        let own = "198.51.100.0/24".parse().unwrap();
        let is_theirs = ["198.51.100.7", "64:ff9b::c633:6407", "2002:c633:6407::1"].contains(&text);
        if !expected {
            assert_eq!(
                is_guarded(ip, &[own]),
                is_theirs,
                "{text} with a list of one's own"
            );
        }
    }
}
