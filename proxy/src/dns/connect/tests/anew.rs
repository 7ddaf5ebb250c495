//! What is asked anew after a failure, and what one domain may cost.

use super::*;

fn count(fake: &Fake, name: &str, kind: RecordType) -> usize {
    let asked = fake.asked.lock();
    let of = asked.iter();
    of.filter(|asked| asked.0 == name && asked.1 == kind)
        .count()
}

/// A dialer that believes no answer for longer than one attempt.
fn forgetful(fake: &Fake) -> Dialer {
    let resolver = Resolver::at(fake.address).unwrap();
    let resolver = resolver.forgetting_after(Duration::ZERO);
    Dialer::new(resolver, Arc::new(|_, _| false))
}

/// s13: also where an attempt fails before anything is dialled.
#[tokio::test]
async fn s13_what_leads_to_no_target_at_all_is_asked_anew() {
    for (what, record) in [
        ("nothing offered", srv(0, 0, 0, ".")),
        ("port 0", srv(0, 0, 0, "x.partner.example.")),
    ] {
        let table = vec![(SERVICE, RecordType::SRV, FakeReply::Records(vec![record]))];
        let fake = Fake::start(table).await;
        let dialer = forgetful(&fake);
        let mut before = 0;
        for _ in 0..2 {
            let result = dialer
                .candidates(&partner(), &discover(), None, Direction::Outbound)
                .await;
            assert!(result.is_err(), "{what}");
            let now = count(&fake, SERVICE, RecordType::SRV);
            assert!(now > before, "{what}: asked anew");
            before = now;
        }
    }
}

/// s13: also where time is over before every target was tried, as with an old address that is silent; with what says
/// whether DANE counts.
#[tokio::test]
async fn s13_an_attempt_that_is_given_up_has_its_answers_asked_anew() {
    let host = "x.partner.example";
    let tlsa = "_5269._tcp.x.partner.example";
    let fake = Fake::start(vec![
        (
            SERVICE,
            RecordType::SRV,
            FakeReply::Secure(vec![srv(0, 0, 5269, "x.partner.example.")]),
        ),
        (host, RecordType::A, FakeReply::Secure(vec![a("192.0.2.1")])),
        (
            tlsa,
            RecordType::TLSA,
            FakeReply::Secure(vec![tlsa_311([7; 32])]),
        ),
    ])
    .await;
    let (tell, mut dialled) = mpsc::unbounded_channel();
    let silent: Connect = Arc::new(move |address| {
        tell.send(address).unwrap();
        std::future::pending().boxed()
    });
    let dialer = forgetful(&fake).with_connect(silent);
    let asked = || {
        [
            (SERVICE, RecordType::SRV),
            (host, RecordType::A),
            (tlsa, RecordType::TLSA),
        ]
        .map(|(name, kind)| count(&fake, name, kind))
    };
    let mut before = [0; 3];
    for _ in 0..2 {
        let mut candidates = candidates(&dialer).await;
        tokio::select! {
            next = candidates.next() => panic!("{next:?}"),
            Some(_) = dialled.recv() => {}
        }
        drop(candidates);
        let now = asked();
        for (now, before) in now.iter().zip(before) {
            assert!(*now > before, "{now:?} after {before:?}");
        }
        before = now;
    }
}

/// An answer may be 64 KiB, and forbidden addresses are not dialled: neither makes a domain dear.
#[tokio::test]
async fn one_domain_costs_bounded_questions_and_memory_whatever_its_zone_says() {
    const TARGETS: u16 = 32;
    let names: Vec<String> = (0..TARGETS)
        .map(|number| format!("t{number}.partner.example"))
        .collect();
    let targets = (0..TARGETS).zip(&names);
    let records = targets
        .map(|(number, name)| srv(number, 0, 5269, &format!("{name}.")))
        .collect();
    let many = |subnet: usize| -> Vec<_> {
        let hosts = (0..1_000).map(|host| (host / 250, host % 250 + 1));
        hosts
            .map(|(third, fourth)| a(&format!("10.{subnet}.{third}.{fourth}")))
            .collect()
    };
    let mut table = vec![(SERVICE, RecordType::SRV, FakeReply::Secure(records))];
    for (subnet, name) in names.iter().enumerate() {
        let reply = FakeReply::TcpOnly(many(subnet));
        table.push((name.as_str(), RecordType::A, reply));
    }
    let fake = Fake::start(table).await;
    let resolver = Resolver::at(fake.address).unwrap();
    let dialer = Dialer::new(
        resolver.clone(),
        Arc::new(|address, except| is_guarded(address.ip(), except)),
    );
    let source = TargetSource::Discover {
        except: ["10.0.0.0/8".parse().unwrap()].into(),
    };
    let mut candidates = dialer
        .candidates(&partner(), &source, None, Direction::Outbound)
        .await
        .ok()
        .unwrap();
    let mut faults = 0;
    while let Some(result) = candidates.next().await {
        let fault = result.unwrap_err();
        assert_eq!(fault.label(), "AddressForbidden", "{fault}");
        faults += 1;
    }
    assert_eq!(faults, MAX_LOOKED_UP);
    let steps = candidates.take_steps();
    let last = steps.last().unwrap();
    assert_eq!(last.outcome, "TooManyAddresses");
    assert!(last.text.contains("8 more targets"), "{}", last.text);
    assert!(!fake.was_asked("t31.partner.example", RecordType::A));
    // 24 times 1,000 records would be more than 5 MiB.
    let weight = resolver.weight();
    assert!(weight < 2 * 1024 * 1024, "{weight}");
}
