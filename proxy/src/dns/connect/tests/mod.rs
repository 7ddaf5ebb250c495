#![allow(clippy::unwrap_used)]

use std::{io, net::IpAddr};

use futures::future::BoxFuture;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use super::*;
use crate::dns::fake::{Fake, FakeReply, a, srv, tlsa_311};

mod anew;
mod sip;

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
        .candidates(&partner(), &discover(), None, Direction::Outbound)
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

/// Connections that are opened when the test says so.
struct Controlled {
    /// Who is dialled, with what its attempt waits for.
    dialled: mpsc::UnboundedReceiver<(u8, oneshot::Sender<Told>)>,
    listener: TcpListener,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Connects,
    Refuses,
}

impl Controlled {
    /// Targets 192.0.2.1 to 192.0.2.`targets`; `delay` before the next starts beside a silent one.
    async fn candidates(targets: u8, delay: Duration) -> (Self, Candidates) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let (tell, dialled) = mpsc::unbounded_channel();
        let connect: Connect = Arc::new(move |address: SocketAddr| {
            let IpAddr::V4(ip) = address.ip() else {
                unreachable!("the targets have IPv4")
            };
            let (say, hear) = oneshot::channel();
            tell.send((ip.octets()[3], say)).unwrap();
            let attempt: BoxFuture<'static, _> = async move {
                match hear.await {
                    Ok(Told::Connects) => TcpStream::connect(open).await,
                    Ok(Told::Refuses) => Err(io::ErrorKind::ConnectionRefused.into()),
                    Err(_) => std::future::pending().await,
                }
            }
            .boxed();
            attempt
        });
        let dialer = Dialer::new(
            Resolver::at("127.0.0.1:9".parse().unwrap()).unwrap(),
            Arc::new(|_, _| false),
        )
        .with_connect(connect)
        .with_connect_timeout(Duration::from_secs(3600))
        .with_ask_again(Duration::from_secs(3600))
        .with_target_delay(delay);
        let search = Search {
            dialer,
            domain: partner(),
            speech: Speech::Xmpp,
            direction: Direction::Outbound,
            dane: false,
            except: None,
            egress: None,
            dialled: AtomicUsize::new(0),
        };
        let targets = (1..=targets).map(|number| Target {
            host: Host::Ip([192, 0, 2, number].into()),
            port: 5269,
            direct_tls: false,
            priority: 0,
        });
        let candidates = Candidates::new(search, targets.collect(), Vec::new());
        (Self { dialled, listener }, candidates)
    }
}

fn number_of(name: &str) -> u8 {
    name.rsplit('.').next().unwrap().parse().unwrap()
}

/// One silent target does not use up the time of the others, and keeps its own.
#[tokio::test]
async fn s11_the_next_target_starts_beside_a_silent_one_and_the_first_to_connect_wins() {
    let (mut lab, mut candidates) = Controlled::candidates(3, Duration::from_millis(1)).await;
    let (first, silent, rest) = {
        let next = candidates.next();
        tokio::pin!(next);
        let mut dialled = Vec::new();
        while dialled.len() < 3 {
            tokio::select! {
                Some(one) = lab.dialled.recv() => dialled.push(one),
                _ = &mut next => panic!("nobody connects"),
            }
        }
        let mut dialled = dialled.into_iter();
        let (first, silent, third) = (
            dialled.next().unwrap(),
            dialled.next().unwrap(),
            dialled.next().unwrap(),
        );
        assert_eq!((first.0, silent.0, third.0), (1, 2, 3));
        third.1.send(Told::Connects).unwrap();
        let won = next.await.unwrap().unwrap();
        (first, silent, won.candidate.target)
    };
    assert_eq!(rest, "192.0.2.3");
    // Their attempts have ended, and come again when the winner is of no use.
    assert!(first.1.is_closed() && silent.1.is_closed());
    {
        let next = candidates.next();
        tokio::pin!(next);
        let (again, say) = tokio::select! {
            Some(one) = lab.dialled.recv() => one,
            _ = &mut next => panic!("nobody connects"),
        };
        assert_eq!(again, 1);
        say.send(Told::Connects).unwrap();
        assert_eq!(next.await.unwrap().unwrap().candidate.target, "192.0.2.1");
    }
    let steps = candidates.take_steps();
    let outcomes: Vec<_> = steps.iter().map(|step| step.outcome).collect();
    assert_eq!(
        outcomes[..3],
        ["TcpSilent", "TcpSilent", "Ok"],
        "{outcomes:?}"
    );
    drop(lab.listener);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the order in which targets connect and refuse: each that connects is handed out once
    /// for each time that it is asked for, each that refuses is told once, none is forgotten.
    #[test]
    fn s11_whatever_comes_first_every_target_is_handed_out_or_told_once(
        plan in proptest::collection::vec(any::<bool>(), 1..7),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut connected, mut refused) = runtime.block_on(async {
            let targets = u8::try_from(plan.len()).unwrap();
            let (mut lab, mut candidates) = Controlled::candidates(targets, Duration::ZERO).await;
            let (mut connected, mut refused) = (Vec::new(), Vec::new());
            let mut order = order.iter();
            let mut dialled: Vec<(u8, oneshot::Sender<Told>)> = Vec::new();
            loop {
                // All that may start are under way before one of them is told its fate.
                let missing = plan.len() - connected.len() - refused.len();
                let next = candidates.next();
                tokio::pin!(next);
                let result = loop {
                    dialled.retain(|(_, say)| !say.is_closed());
                    if dialled.len() == missing && missing > 0 {
                        let index = order.next().unwrap().index(dialled.len());
                        let (number, say) = dialled.swap_remove(index);
                        let connects = plan[usize::from(number) - 1];
                        let told = if connects { Told::Connects } else { Told::Refuses };
                        say.send(told).unwrap();
                        break next.await;
                    }
                    tokio::select! {
                        Some(one) = lab.dialled.recv() => dialled.push(one),
                        result = &mut next => break result,
                    }
                };
                match result {
                    Some(Ok(won)) => connected.push(number_of(&won.candidate.target)),
                    Some(Err(fault)) => {
                        let IpAddr::V4(ip) = fault.address().unwrap().ip() else { unreachable!() };
                        refused.push(ip.octets()[3]);
                    }
                    None => break (connected, refused),
                }
            }
        });
        connected.sort_unstable();
        refused.sort_unstable();
        let of = |kind: bool| -> Vec<u8> {
            (1..).zip(&plan).filter(|(_, own)| **own == kind).map(|(number, _)| number).collect()
        };
        prop_assert_eq!(connected, of(true));
        prop_assert_eq!(refused, of(false));
    }
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
        .candidates(&partner(), &route, None, Direction::Outbound)
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
        .candidates(&partner(), &discover(), None, Direction::Outbound)
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
        ("::ffff:0:10.0.0.5", true),
        ("::ffff:0:198.51.100.7", false),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffa", true),
        ("2001:0:4136:e378:8000:63bf:39cc:9bf8", false),
        ("2001:db8::5efe:10.0.0.5", true),
        ("2001:db8::5efe:198.51.100.7", false),
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
        let is_theirs = [
            "198.51.100.7",
            "64:ff9b::c633:6407",
            "2002:c633:6407::1",
            "::ffff:0:198.51.100.7",
            "2001:0:4136:e378:8000:63bf:39cc:9bf8",
            "2001:db8::5efe:198.51.100.7",
        ]
        .contains(&text);
        if !expected {
            assert_eq!(
                is_guarded(ip, &[own]),
                is_theirs,
                "{text} with a list of one's own"
            );
        }
    }
}

/// RFC 6052 section 2.2: within 64:ff9b:1::/48 a network has a prefix of whatever length, and the IPv4 address stands
/// behind it.
#[test]
fn s_13_nat64_of_a_networks_own_is_judged_by_every_length_of_its_prefix() {
    let own = ["10.0.0.0/8".parse().unwrap()];
    for (text, expected) in [
        // 10.1.2.5 and 198.51.100.7 behind /48, /56, /64 and /96.
        ("64:ff9b:1:a01:2:500::", true),
        ("64:ff9b:1:c633:64:700::", false),
        ("64:ff9b:1:aa0a:1:205::", true),
        ("64:ff9b:1:aac6:33:6407::", false),
        ("64:ff9b:1:aabb:a:102:500:0", true),
        ("64:ff9b:1:aabb:c6:3364:700:0", false),
        ("64:ff9b:1:aabb::a01:205", true),
        ("64:ff9b:1:aabb::c633:6407", false),
        // What stands where zeros are due is nothing that a translator looks at.
        ("64:ff9b:1:a01:2:500:c633:6407", true),
        ("64:ff9b:1:a01:102:500::", true),
        // Loopback and link-local are nobody's, whatever the list says.
        ("64:ff9b:1:7f00:0:100::", true),
        ("64:ff9b:1:a9fe:a9:fe00::", true),
        ("64:ff9b:1::", true),
    ] {
        let ip = text.parse().unwrap();
        assert_eq!(is_guarded(ip, &own), expected, "{text}");
    }
}
