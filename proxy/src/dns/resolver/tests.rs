#![allow(clippy::unwrap_used)]

use super::*;
use crate::dns::fake::{Fake, FakeReply, a, cname, record, srv, tlsa_311};

const SRV: RecordType = RecordType::SRV;
const STARTTLS: &str = "_xmpp-server._tcp.partner.example";
const DIRECT: &str = "_xmpps-server._tcp.partner.example";

fn partner() -> DomainName {
    DomainName::parse("partner.example").unwrap()
}

type Table = Vec<(&'static str, RecordType, FakeReply)>;

async fn services(table: Table) -> Result<Services, DnsError> {
    let fake = Fake::start(table).await;
    Resolver::at(fake.address)
        .unwrap()
        .services(&partner())
        .await
}

/// what the two services say together.
#[tokio::test]
async fn the_two_services_together_say_where_to_go() {
    use FakeReply::{Code, Records, TcpOnly};
    let here = |port| srv(1, 1, port, "x.partner.example.");
    let none = || srv(0, 0, 0, ".");
    let servfail = || Code(ResponseCode::ServFail);
    type Expected = Result<(&'static [(u16, bool)], bool), &'static str>;
    let cases: Vec<(&str, Table, Expected)> = vec![
        ("neither", vec![], Ok((&[(5269, false)], true))),
        (
            "one",
            vec![(STARTTLS, SRV, Records(vec![here(1)]))],
            Ok((&[(1, false)], false)),
        ),
        (
            "both",
            vec![
                (STARTTLS, SRV, Records(vec![here(1)])),
                (DIRECT, SRV, Records(vec![here(2)])),
            ],
            Ok((&[(2, true), (1, false)], false)),
        ),
        (
            "direct alone",
            vec![(DIRECT, SRV, Records(vec![here(2)]))],
            Ok((&[(2, true)], false)),
        ),
        (
            "refused",
            vec![(STARTTLS, SRV, Records(vec![none()]))],
            Err("ServiceNotOffered"),
        ),
        (
            "both refused",
            vec![
                (STARTTLS, SRV, Records(vec![none()])),
                (DIRECT, SRV, Records(vec![none()])),
            ],
            Err("ServiceNotOffered"),
        ),
        (
            "direct refused",
            vec![
                (STARTTLS, SRV, Records(vec![here(1)])),
                (DIRECT, SRV, Records(vec![none()])),
            ],
            Ok((&[(1, false)], false)),
        ),
        (
            "STARTTLS refused",
            vec![
                (STARTTLS, SRV, Records(vec![none()])),
                (DIRECT, SRV, Records(vec![here(2)])),
            ],
            Ok((&[(2, true)], false)),
        ),
        (
            "direct refused, nothing else",
            vec![(DIRECT, SRV, Records(vec![none()]))],
            Ok((&[(5269, false)], true)),
        ),
        (
            "failure is not absence",
            vec![(STARTTLS, SRV, servfail())],
            Err("DnsServFail"),
        ),
        (
            "refusal is not absence",
            vec![(STARTTLS, SRV, Code(ResponseCode::Refused))],
            Err("DnsRefused"),
        ),
        (
            "failure of direct alone",
            vec![
                (DIRECT, SRV, servfail()),
                (STARTTLS, SRV, Records(vec![here(1)])),
            ],
            Ok((&[(1, false)], false)),
        ),
        (
            "over TCP",
            vec![(STARTTLS, SRV, TcpOnly(vec![here(1)]))],
            Ok((&[(1, false)], false)),
        ),
        (
            "port 0",
            vec![(STARTTLS, SRV, Records(vec![here(0)]))],
            Err("DnsUnusable"),
        ),
    ];
    for (what, table, expected) in cases {
        let result = services(table).await;
        let shape = result.as_ref().map_err(DnsError::label).map(|found| {
            let records = found.records.iter();
            (
                records.map(|s| (s.port, s.direct_tls)).collect::<Vec<_>>(),
                found.fallback,
            )
        });
        let expected = expected.map(|(records, fallback)| (records.to_vec(), fallback));
        assert_eq!(shape, expected, "{what}: {result:?}");
    }
}

#[tokio::test]
async fn one_address_family_is_enough_and_none_is_told() {
    let fake = Fake::start(vec![
        (
            "x.partner.example",
            RecordType::A,
            FakeReply::Records(vec![a("192.0.2.1")]),
        ),
        (
            "text.partner.example",
            RecordType::TXT,
            FakeReply::Records(Vec::new()),
        ),
    ])
    .await;
    let resolver = Resolver::at(fake.address).unwrap();
    let ask = async |name| resolver.addresses(&DomainName::parse(name).unwrap()).await;
    assert_eq!(
        ask("x.partner.example").await,
        Ok(vec!["192.0.2.1".parse().unwrap()])
    );
    let text = ask("text.partner.example").await.unwrap_err().to_string();
    assert!(text.contains("no A or AAAA record"), "{text}");
    assert_eq!(
        ask("no.partner.example").await.unwrap_err().label(),
        "DnsNotFound"
    );
}

/// behaviour.md section 3: of a resolver's own word only that of a validating one on loopback
/// counts; and RFC 7673 section 3.2: TLSA follows secure addresses alone.
#[tokio::test]
async fn tlsa_counts_only_with_the_validators_word() {
    let target = DomainName::parse("x.partner.example").unwrap();
    let host = "x.partner.example";
    let name = "_5269._tcp.x.partner.example";
    let records = || vec![tlsa_311([7; 32])];
    let ip = || vec![a("192.0.2.1")];
    let secure = || FakeReply::Secure(ip());
    for (address, reply, expected) in [
        (secure(), FakeReply::Secure(records()), Ok("DANE counts")),
        (
            secure(),
            FakeReply::Secure(Vec::new()),
            Ok("no TLSA record"),
        ),
        (
            secure(),
            FakeReply::Code(ResponseCode::ServFail),
            Err("DnsServFail"),
        ),
        (
            FakeReply::Records(ip()),
            FakeReply::Secure(records()),
            Ok("the addresses are not secure"),
        ),
    ] {
        let table = vec![
            (host, RecordType::A, address),
            (name, RecordType::TLSA, reply),
        ];
        let fake = Fake::start(table).await;
        let resolver = Resolver::at(fake.address).unwrap();
        match (resolver.dane(&target, 5269).await, expected) {
            (Ok(dane), Ok(text)) => assert!(dane.to_string().contains(text), "{dane}"),
            (found, expected) => assert_eq!(
                found.map(|_| "").map_err(|fault| fault.label()),
                expected.map(|_| "DANE")
            ),
        }
    }
}

#[tokio::test]
async fn srv_is_secure_only_where_all_its_answers_are() {
    let record = || vec![srv(1, 1, 5269, "x.partner.example.")];
    for (starttls, direct, expected) in [
        (FakeReply::Secure(record()), None, true),
        (FakeReply::Records(record()), None, false),
        (
            FakeReply::Secure(record()),
            Some(FakeReply::Records(record())),
            false,
        ),
        (
            FakeReply::Secure(record()),
            Some(FakeReply::Secure(record())),
            true,
        ),
    ] {
        let mut table = vec![(STARTTLS, SRV, starttls)];
        table.extend(direct.map(|direct| (DIRECT, SRV, direct)));
        assert_eq!(services(table).await.unwrap().dnssec.is_secure(), expected);
    }
}

/// s2: an alias of the SRV owner's name leads to the records, however many there are of either, and
/// wherever the resolver stops.
#[tokio::test]
async fn s2_srv_records_behind_aliases_are_the_answer() {
    let middle = "_xmpp-server._tcp.middle.example";
    let end = "_xmpp-server._tcp.hoster.example";
    let (first, second) = (
        srv(0, 0, 5269, "a.hoster.example."),
        srv(5, 0, 5270, "b.hoster.example."),
    );
    let alias = |from: &str, to: &str| record(from, cname(to));
    let cases: Vec<(&str, Table, &[u16])> = vec![
        (
            "one alias, one record",
            vec![(
                STARTTLS,
                SRV,
                FakeReply::Chain(vec![alias(STARTTLS, end), record(end, first.clone())]),
            )],
            &[5269],
        ),
        (
            "one alias, two records",
            vec![(
                STARTTLS,
                SRV,
                FakeReply::Chain(vec![
                    alias(STARTTLS, end),
                    record(end, first.clone()),
                    record(end, second.clone()),
                ]),
            )],
            &[5269, 5270],
        ),
        (
            "two aliases",
            vec![(
                STARTTLS,
                SRV,
                FakeReply::Chain(vec![
                    alias(STARTTLS, middle),
                    alias(middle, end),
                    record(end, first.clone()),
                ]),
            )],
            &[5269],
        ),
        (
            "an alias alone: the resolver leaves the other zone to us",
            vec![
                (
                    STARTTLS,
                    SRV,
                    FakeReply::Chain(vec![alias(STARTTLS, middle)]),
                ),
                (middle, SRV, FakeReply::Chain(vec![alias(middle, end)])),
                (end, SRV, FakeReply::Records(vec![first.clone()])),
            ],
            &[5269],
        ),
        (
            "direct TLS",
            vec![(
                DIRECT,
                SRV,
                FakeReply::Chain(vec![alias(DIRECT, end), record(end, first.clone())]),
            )],
            &[5269],
        ),
        (
            "a target whose servers refuse other questions",
            vec![
                (
                    STARTTLS,
                    SRV,
                    FakeReply::Chain(vec![alias(STARTTLS, end), record(end, first.clone())]),
                ),
                (
                    "a.hoster.example",
                    SRV,
                    FakeReply::Code(ResponseCode::Refused),
                ),
            ],
            &[5269],
        ),
        (
            "a target whose servers fail at other questions",
            vec![
                (
                    STARTTLS,
                    SRV,
                    FakeReply::Chain(vec![alias(STARTTLS, end), record(end, first.clone())]),
                ),
                (
                    "a.hoster.example",
                    SRV,
                    FakeReply::Code(ResponseCode::ServFail),
                ),
            ],
            &[5269],
        ),
        (
            "a resolver without EDNS",
            vec![(
                STARTTLS,
                SRV,
                FakeReply::WithoutEdns(vec![alias(STARTTLS, end), record(end, first.clone())]),
            )],
            &[5269],
        ),
        (
            "to nothing",
            vec![(STARTTLS, SRV, FakeReply::Chain(vec![alias(STARTTLS, end)]))],
            &[],
        ),
        (
            "in a circle",
            vec![(
                STARTTLS,
                SRV,
                FakeReply::Chain(vec![alias(STARTTLS, middle), alias(middle, STARTTLS)]),
            )],
            &[],
        ),
    ];
    for (what, table, expected) in cases {
        let found = services(table).await;
        if let ("in a circle", Err(_)) = (what, &found) {
            continue;
        }
        let found = found.unwrap();
        let mut ports: Vec<_> = found.records.iter().map(|record| record.port).collect();
        ports.sort_unstable();
        assert_eq!(found.fallback, expected.is_empty(), "{what}: {found:?}");
        if !found.fallback {
            assert_eq!(ports, expected, "{what}");
        }
    }
}

/// s13: what failed is asked anew.
#[tokio::test]
async fn s13_what_is_forgotten_is_asked_anew() {
    let fake = Fake::start(vec![
        (
            STARTTLS,
            SRV,
            FakeReply::Records(vec![srv(0, 0, 5269, "x.partner.example.")]),
        ),
        (
            "x.partner.example",
            RecordType::A,
            FakeReply::Records(vec![a("192.0.2.1")]),
        ),
    ])
    .await;
    let resolver = Resolver::at(fake.address).unwrap();
    let resolver = resolver.forgetting_after(Duration::ZERO);
    let host = DomainName::parse("x.partner.example").unwrap();
    let count = |name: &str, kind: RecordType| {
        let asked = fake.asked.lock();
        let of = asked
            .iter()
            .filter(|asked| asked.0 == name && asked.1 == kind);
        of.count()
    };
    let look = async || {
        resolver.services(&partner()).await.unwrap();
        resolver.addresses(&host).await.unwrap();
        (
            count(STARTTLS, SRV),
            count("x.partner.example", RecordType::A),
        )
    };
    let first = look().await;
    assert_eq!(look().await, first, "kept for its time");
    resolver.forget(&partner(), &[(host.clone(), 5269)]);
    let second = look().await;
    assert!(
        second.0 > first.0 && second.1 > first.1,
        "{first:?} {second:?}"
    );
    resolver.forget_all();
    let third = look().await;
    assert!(
        third.0 > second.0 && third.1 > second.1,
        "{second:?} {third:?}"
    );
}

/// s19: other name servers are asked once the file names them, and none yet is no end.
#[tokio::test]
async fn s19_the_system_s_name_servers_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let mut file = Watched::new(&path);
    let resolver = Resolver::by_file(&mut file);
    assert!(resolver.upstreams().is_empty());
    let fault = resolver.services(&partner()).await.unwrap_err();
    assert_eq!(fault.label(), "DnsNoResolver");

    let stop = CancellationToken::new();
    let following = {
        let (resolver, path, stop) = (resolver.clone(), path.clone(), stop.clone());
        tokio::spawn(async move { resolver.follow_file(&path, stop).await })
    };
    let asks = async |address: &str| {
        let address = SocketAddr::new(address.parse().unwrap(), 53);
        while resolver.upstreams() != [address] {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let within = Duration::from_secs(60);
    std::fs::write(&path, "search .\nnameserver 192.0.2.1\n").unwrap();
    tokio::time::timeout(within, asks("192.0.2.1"))
        .await
        .unwrap();
    // Replaced whole, as DHCP clients do.
    let next = directory.path().join("next");
    std::fs::write(&next, "nameserver 192.0.2.22\noptions edns0 trust-ad\n").unwrap();
    std::fs::rename(&next, &path).unwrap();
    tokio::time::timeout(within, asks("192.0.2.22"))
        .await
        .unwrap();
    // Emptied or gone: what was taken stays.
    std::fs::write(&path, "").unwrap();
    resolver.look_at(&mut file, false);
    std::fs::remove_file(&path).unwrap();
    resolver.look_at(&mut file, false);
    assert_eq!(
        resolver.upstreams(),
        [SocketAddr::new("192.0.2.22".parse().unwrap(), 53)]
    );
    stop.cancel();
    following.await.unwrap();
}

/// A failure of `_xmpps-server` is not its absence: `.` for the other says nothing of it.
#[tokio::test]
async fn s13_a_failure_beside_a_root_target_is_not_for_good() {
    let table = vec![
        (STARTTLS, SRV, FakeReply::Records(vec![srv(0, 0, 0, ".")])),
        (DIRECT, SRV, FakeReply::Code(ResponseCode::ServFail)),
    ];
    let fault = services(table).await.unwrap_err();
    assert!(!fault.is_definite(), "{fault}");
}

/// The target of an SRV record has SRV records of its own, as under a wildcard: they are another name's.
#[tokio::test]
async fn s2_srv_records_of_a_target_are_not_those_of_the_domain() {
    let table = vec![
        (
            STARTTLS,
            SRV,
            FakeReply::Chain(vec![
                record(&format!("{STARTTLS}."), cname("x.hoster.example.")),
                record("x.hoster.example.", srv(0, 0, 5269, "t.hoster.example.")),
            ]),
        ),
        (
            "x.hoster.example",
            SRV,
            FakeReply::Records(vec![srv(0, 0, 5269, "t.hoster.example.")]),
        ),
        (
            "t.hoster.example",
            SRV,
            FakeReply::Records(vec![srv(0, 0, 9999, "wrong.hoster.example.")]),
        ),
    ];
    let found = services(table).await.unwrap();
    let targets: Vec<_> = found
        .records
        .iter()
        .map(|service| (service.target.as_str(), service.port))
        .collect();
    assert_eq!(targets, [("t.hoster.example", 5269)]);
}

/// Resolvers, and what stands before them, that answer EDNS with an error, or nothing over UDP.
#[tokio::test]
async fn s19_addresses_are_found_without_edns_and_by_tcp_alone() {
    let host = DomainName::parse("x.partner.example").unwrap();
    for reply in [
        FakeReply::WithoutEdns(vec![record("x.partner.example.", a("192.0.2.7"))]),
        FakeReply::SilentUdp(vec![a("192.0.2.7")]),
    ] {
        let fake = Fake::start(vec![("x.partner.example", RecordType::A, reply)]).await;
        let resolver = Resolver::at(fake.address).unwrap();
        let found = resolver.addresses(&host).await.unwrap();
        assert_eq!(found, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    }
}

/// The same of what is asked for signatures, and the next question goes by TCP at once.
#[tokio::test]
async fn s19_srv_records_are_found_by_tcp_alone() {
    let silent = |port| FakeReply::SilentUdp(vec![srv(1, 1, port, "x.partner.example.")]);
    let table = vec![(STARTTLS, SRV, silent(1)), (DIRECT, SRV, silent(2))];
    let found = services(table).await.unwrap();
    assert_eq!(found.records.len(), 2);
}
