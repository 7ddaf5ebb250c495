//! SIP servers inside: found by SRV, or where they are said to be.

use xmpp_edge_crds::edge_config::{SipServers, SipService, SipTransport};

use super::*;

const SERVICE: &str = "_sips._tcp.sip.example";

fn named(transport: SipTransport) -> TargetSource {
    TargetSource::Sip(SipServers::Named(SipService {
        host: DomainName::parse("sip.example").unwrap(),
        transport,
    }))
}

/// Every address refuses; which were dialled, in their order.
async fn dialled(
    fake: &Fake,
    source: &TargetSource,
) -> Result<(Vec<String>, String), (DnsError, AttemptStep)> {
    let dialled = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let own = Arc::clone(&dialled);
    let connect: Connect = Arc::new(move |address: SocketAddr| {
        own.lock().push(address.to_string());
        async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) }.boxed()
    });
    let dialer = dialer(fake).with_connect(connect);
    let whose = partner();
    let found = dialer.candidates(&whose, source, None, Direction::Inbound);
    let mut candidates = found.await?;
    let said = candidates.take_steps()[0].text.clone();
    while candidates.next().await.is_some() {}
    let dialled = dialled.lock().clone();
    Ok((dialled, said))
}

#[tokio::test]
async fn servers_are_tried_by_priority_with_those_of_no_weight_last() {
    let zone = |name, address| (name, RecordType::A, FakeReply::Records(vec![a(address)]));
    let records = FakeReply::Records(vec![
        srv(20, 9, 5061, "backup.sip.example."),
        srv(10, 0, 5062, "idle.sip.example."),
        srv(10, 60, 5063, "busy.sip.example."),
        srv(30, 0, 5064, "missing.sip.example."),
    ]);
    let fake = Fake::start(vec![
        (SERVICE, RecordType::SRV, records.clone()),
        ("_sip._tcp.sip.example", RecordType::SRV, records),
        zone("busy.sip.example", "192.0.2.1"),
        zone("idle.sip.example", "192.0.2.2"),
        zone("backup.sip.example", "192.0.2.3"),
        zone("sip.example", "192.0.2.9"),
    ])
    .await;
    for transport in [SipTransport::Tls, SipTransport::Tcp] {
        let (dialled, said) = dialled(&fake, &named(transport)).await.ok().unwrap();
        assert_eq!(
            dialled,
            ["192.0.2.1:5063", "192.0.2.2:5062", "192.0.2.3:5061"]
        );
        let service = match transport {
            SipTransport::Tls => SERVICE,
            SipTransport::Tcp => "_sip._tcp.sip.example",
        };
        assert!(said.starts_with(&format!("{service}: ")), "{said}");
        assert!(said.contains("10 60 5063 busy.sip.example"), "{said}");
    }
    assert!(
        !fake
            .asked
            .lock()
            .iter()
            .any(|(name, _)| name.contains("xmpp"))
    );
}

#[tokio::test]
async fn without_records_it_is_the_host_and_with_a_port_no_record_is_asked_for() {
    let addresses = FakeReply::Records(vec![a("192.0.2.9")]);
    let fake = Fake::start(vec![("sip.example", RecordType::A, addresses)]).await;
    for (transport, port) in [(SipTransport::Tls, 5061), (SipTransport::Tcp, 5060)] {
        let (dialled, said) = dialled(&fake, &named(transport)).await.ok().unwrap();
        assert_eq!(dialled, [format!("192.0.2.9:{port}")]);
        assert!(said.starts_with("no SRV record _sip"), "{said}");
    }
    fake.asked.lock().clear();
    let there = HostPort::parse("sip.example:7001", None).unwrap();
    let there = TargetSource::Sip(SipServers::At(there, SipTransport::Tls));
    let (dialled, _) = dialled(&fake, &there).await.ok().unwrap();
    assert_eq!(dialled, ["192.0.2.9:7001"]);
    assert!(!fake.was_asked(SERVICE, RecordType::SRV));
}

#[tokio::test]
async fn a_target_of_a_dot_is_no_server_and_what_failed_is_asked_anew() {
    let fake = Fake::start(vec![
        (
            SERVICE,
            RecordType::SRV,
            FakeReply::Records(vec![srv(0, 0, 0, ".")]),
        ),
        (
            "sip.example",
            RecordType::A,
            FakeReply::Records(vec![a("192.0.2.9")]),
        ),
    ])
    .await;
    let (fault, step) = dialled(&fake, &named(SipTransport::Tls)).await.unwrap_err();
    assert_eq!(fault.label(), "ServiceNotOffered");
    assert_eq!((step.step, step.outcome), (Step::Dns, "ServiceNotOffered"));
    assert!(step.text.starts_with(SERVICE), "{}", step.text);
    assert!(!fake.was_asked("sip.example", RecordType::A));
    let resolver = Resolver::at(fake.address)
        .unwrap()
        .forgetting_after(std::time::Duration::ZERO);
    let dialer = Dialer::new(resolver, Arc::new(|_, _| false));
    let asked = || {
        fake.asked
            .lock()
            .iter()
            .filter(|it| **it == (SERVICE.to_owned(), RecordType::SRV))
            .count()
    };
    let source = named(SipTransport::Tls);
    let before = asked();
    for _ in 0..2 {
        let found = dialer
            .candidates(&partner(), &source, None, Direction::Inbound)
            .await;
        assert!(found.is_err());
    }
    assert!(asked() >= before + 2, "an answer of no use is not kept");
}
