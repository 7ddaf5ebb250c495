#![allow(clippy::unwrap_used)]

use super::*;
use crate::dns::fake::{Fake, Reply, a, srv, tlsa_311};

const SRV: RecordType = RecordType::SRV;
const STARTTLS: &str = "_xmpp-server._tcp.partner.example";
const DIRECT: &str = "_xmpps-server._tcp.partner.example";

fn partner() -> DomainName {
    DomainName::parse("partner.example").unwrap()
}

type Table = Vec<(&'static str, RecordType, Reply)>;

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
    use Reply::{Code, Records, TcpOnly};
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
            Reply::Records(vec![a("192.0.2.1")]),
        ),
        (
            "text.partner.example",
            RecordType::TXT,
            Reply::Records(Vec::new()),
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
    let secure = || Reply::Secure(ip());
    for (address, reply, expected) in [
        (secure(), Reply::Secure(records()), Ok("DANE counts")),
        (secure(), Reply::Secure(Vec::new()), Ok("no TLSA record")),
        (
            secure(),
            Reply::Code(ResponseCode::ServFail),
            Err("DnsServFail"),
        ),
        (
            Reply::Records(ip()),
            Reply::Secure(records()),
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
        (Reply::Secure(record()), None, true),
        (Reply::Records(record()), None, false),
        (
            Reply::Secure(record()),
            Some(Reply::Records(record())),
            false,
        ),
        (Reply::Secure(record()), Some(Reply::Secure(record())), true),
    ] {
        let mut table = vec![(STARTTLS, SRV, starttls)];
        table.extend(direct.map(|direct| (DIRECT, SRV, direct)));
        assert_eq!(services(table).await.unwrap().dnssec.is_secure(), expected);
    }
}
