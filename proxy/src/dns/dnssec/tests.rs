//! The decision table, the anchors' file, and how little an unsigned domain costs. Real signatures
//! are the business of the tests from outside, with a real name server.
#![allow(clippy::unwrap_used)]

use hickory_proto::{
    dnssec::{
        Algorithm,
        rdata::{DNSSECRData, NSEC, RRSIG, SigInput},
    },
    op::{OpCode, ResponseCode},
    rr::{
        RData, SerialNumber,
        rdata::{CNAME, SOA},
    },
};

use super::{standing::IsBogus, *};
use crate::dns::{
    cache::LEAST_AGE,
    fake::{Fake, FakeReply, a, srv},
};

const A: RecordType = RecordType::A;
const SRV: RecordType = RecordType::SRV;

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

fn record(owner: &str, data: RData, proof: Proof) -> Record {
    let mut record = Record::from_rdata(name(owner), 60, data);
    record.proof = proof;
    record
}

fn host(owner: &str, proof: Proof) -> Record {
    record(owner, a("192.0.2.1"), proof)
}

fn alias(owner: &str, target: &str, proof: Proof) -> Record {
    record(owner, RData::CNAME(CNAME(name(target))), proof)
}

fn absence(proof: Proof) -> Record {
    let soa = SOA::new(name("z"), name("z"), 1, 60, 60, 60, 60);
    record("z", RData::SOA(soa), proof)
}

fn signature(owner: &str, covered: RecordType) -> RData {
    signature_of(name(owner).num_labels(), covered)
}

/// Below `partner.example`, by a name of so many labels.
fn signature_of(num_labels: u8, covered: RecordType) -> RData {
    RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(
        SigInput {
            type_covered: covered,
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels,
            original_ttl: 60,
            sig_expiration: SerialNumber::new(u32::MAX / 2),
            sig_inception: SerialNumber::new(0),
            key_tag: 1,
            signer_name: name("partner.example"),
        },
        vec![0; 64],
    )))
}

/// RFC 7673 section 3.1: the chain of aliases counts as a whole, and no better than its worst link.
#[test]
fn an_answer_is_as_secure_as_its_worst_link() {
    use Proof::{Bogus, Indeterminate, Insecure, Secure};
    type Expected = Result<(Dnssec, usize), IsBogus>;
    let secure = |records| Ok((Dnssec::Secure, records));
    let unsigned = |records| Ok((Dnssec::Unsigned, records));
    let table: Vec<(&str, Vec<Record>, Vec<Record>, Expected)> = vec![
        ("secure", vec![host("x", Secure)], vec![], secure(1)),
        ("insecure", vec![host("x", Insecure)], vec![], unsigned(1)),
        (
            "indeterminate",
            vec![host("x", Indeterminate)],
            vec![],
            unsigned(1),
        ),
        ("bogus", vec![host("x", Bogus)], vec![], Err(IsBogus)),
        (
            "one of two is bogus",
            vec![host("x", Secure), host("x", Bogus)],
            vec![],
            Err(IsBogus),
        ),
        (
            "secure alias",
            vec![alias("x", "y", Secure), host("y", Secure)],
            vec![],
            secure(1),
        ),
        (
            "insecure alias",
            vec![alias("x", "y", Insecure), host("y", Secure)],
            vec![],
            unsigned(1),
        ),
        (
            "bogus end",
            vec![alias("x", "y", Secure), host("y", Bogus)],
            vec![],
            Err(IsBogus),
        ),
        ("proven absence", vec![], vec![absence(Secure)], secure(0)),
        (
            "insecure absence",
            vec![],
            vec![absence(Insecure)],
            unsigned(0),
        ),
        ("bogus absence", vec![], vec![absence(Bogus)], Err(IsBogus)),
        ("nothing at all", vec![], vec![], unsigned(0)),
        (
            "somebody else's, well signed",
            vec![host("evil", Secure)],
            vec![],
            unsigned(0),
        ),
    ];
    for (what, answers, authorities, expected) in table {
        let mut message = Message::response(1, OpCode::Query);
        message.answers = answers;
        message.authorities = authorities;
        let got = standing::of(&message, &name("x"), A).map(|(dnssec, found)| {
            let records = match found {
                Followed::Records(records) => records.len(),
                Followed::Alias(_) | Followed::Nothing => 0,
            };
            (dnssec, records)
        });
        assert_eq!(got, expected, "{what}");
    }
}

#[test]
fn aliases_are_followed_within_an_answer_and_loops_end() {
    let proof = Proof::Secure;
    let aliases = |pairs: &[(&str, &str)]| -> Vec<Record> {
        let pairs = pairs.iter();
        pairs.map(|(from, to)| alias(from, to, proof)).collect()
    };
    let ends = aliases(&[("x", "y"), ("y", "z")]);
    assert_eq!(follow(&ends, &name("X"), A), Followed::Alias(name("z")));
    let loops = aliases(&[("x", "y"), ("y", "x")]);
    assert_eq!(follow(&loops, &name("x"), A), Followed::Nothing);
    assert_eq!(follow(&loops, &name("other"), A), Followed::Nothing);
}

#[test]
fn two_answers_are_no_better_than_the_worse() {
    use Dnssec::{Secure, SecureByResolver, Unanchored, Unsigned};
    for (one, other, secure) in [
        (Secure, Secure, true),
        (Secure, SecureByResolver, true),
        (Secure, Unsigned, false),
        (Unanchored, SecureByResolver, false),
    ] {
        assert_eq!(one.and(other).is_secure(), secure);
        assert_eq!(one.and(other), other.and(one));
    }
}

/// A domain without DNSSEC costs one question more for its SRV records, once in their TTL.
#[tokio::test]
async fn what_comes_without_signatures_is_asked_for_once_and_not_validated() {
    let owner = "_xmpp-server._tcp.partner.example";
    let records = vec![srv(1, 1, 5269, "x.partner.example.")];
    let fake = Fake::start(vec![(owner, SRV, FakeReply::Records(records))]).await;
    let validator = Validator::new(
        vec![fake.address].into(),
        TrustAnchors::default(),
        LEAST_AGE,
    );
    for _ in 0..3 {
        let assessed = validator.if_signed(&name(owner), SRV).await.unwrap();
        assert_eq!(assessed.dnssec, Dnssec::Unsigned);
        assert!(assessed.records.is_empty());
    }
    assert_eq!(*fake.asked.lock(), [(owner.to_owned(), SRV)]);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_secure_and_no_error_where_others_ask_too() {
    let fake = Fake::start(vec![(
        "x.partner.example",
        A,
        FakeReply::Code(ResponseCode::Refused),
    )])
    .await;
    let validator = Validator::new(
        vec![fake.address].into(),
        TrustAnchors::default(),
        LEAST_AGE,
    );
    let assessed = validator.if_signed(&name("x.partner.example"), A).await;
    assert_eq!(assessed.unwrap().dnssec, Dnssec::Unsigned);
    let always = validator.always(&name("x.partner.example"), A).await;
    assert_eq!(always.unwrap_err().label(), "DnsRefused");
}

/// Signatures that nobody of ours vouches for prove nothing, and do no harm either.
#[tokio::test]
async fn signed_without_a_reachable_trust_anchor_is_not_secure() {
    let owner = "x.partner.example";
    let records = vec![a("192.0.2.1"), signature(owner, A)];
    let fake = Fake::start(vec![(owner, A, FakeReply::Records(records))]).await;
    let elsewhere = "elsewhere.example. IN DNSKEY 257 3 13 \
        9wybW41mIYl9ezjcEnng6YC/P+zxJPJEo0Y617Cot5gh7tdz7XowXvhP5KqhHB1E0tdEWBg9OhhRS/XngRjPCA==";
    for (anchors, asked) in [
        (TrustAnchors::default(), true),
        (TrustAnchors::parse(elsewhere).unwrap(), false),
    ] {
        let validator = Validator::new(vec![fake.address].into(), anchors, LEAST_AGE);
        let assessed = validator.if_signed(&name(owner), A).await.unwrap();
        assert_eq!(assessed.dnssec, Dnssec::Unanchored);
        assert_eq!(fake.was_asked("", RecordType::DNSKEY), asked);
        fake.asked.lock().clear();
    }
}

#[test]
fn a_file_of_trust_anchors_is_read_or_says_what_is_wrong() {
    let key = "257 3 13 \
        9wybW41mIYl9ezjcEnng6YC/P+zxJPJEo0Y617Cot5gh7tdz7XowXvhP5KqhHB1E0tdEWBg9OhhRS/XngRjPCA==";
    let text = format!(
        "; ours\n. 3600 IN DNSKEY {key}\ncorp.example. IN DNSKEY {key}\n\nCorp.Example. IN DNSKEY {key}\n"
    );
    let anchors = TrustAnchors::parse(&text).unwrap();
    for (of, expected) in [
        ("x.corp.example", Some("corp.example.")),
        ("corp.example", Some("corp.example.")),
        ("example", Some(".")),
    ] {
        assert_eq!(anchors.above(&name(of)), expected.map(name), "{of}");
    }
    let islands = TrustAnchors::parse(&format!("corp.example. IN DNSKEY {key}\n")).unwrap();
    assert_eq!(islands.above(&name("partner.example")), None);

    for bad in ["", "not a key", ". IN DS 1 13 2 00", ". IN DNSKEY 257 3 13"] {
        assert!(TrustAnchors::parse(bad).is_err(), "{bad:?}");
    }
    let not_for_zones = key.replacen("257", "0", 1);
    assert!(TrustAnchors::parse(&format!(". IN DNSKEY {not_for_zones}\n")).is_err());
    let missing = TrustAnchors::from_file("/nonexistent/anchors").unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/anchors"));
}

/// RFC 4035 section 5.3.4: neither the name nor a closer wildcard may exist.
#[test]
fn a_wildcard_counts_where_nothing_closer_exists() {
    let nsec = |next: &str, types: &[RecordType]| {
        RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(
            name(next),
            types.iter().copied(),
        )))
    };
    let plain = [RecordType::A, RecordType::NSEC];
    let cut = [RecordType::NS, RecordType::NSEC];
    let apex = "partner.example";
    // The question is for x.y.partner.example, the answer from *.partner.example.
    for (from, next, types, proof, expected) in [
        (
            "b.partner.example",
            "z.partner.example",
            &plain,
            Proof::Secure,
            true,
        ),
        ("b.partner.example", apex, &plain, Proof::Secure, true),
        // Something exists below y: a closer encloser.
        (
            "a.y.partner.example",
            "z.partner.example",
            &plain,
            Proof::Secure,
            false,
        ),
        (
            "b.partner.example",
            "z.y.partner.example",
            &plain,
            Proof::Secure,
            false,
        ),
        (
            "y.partner.example",
            "z.partner.example",
            &plain,
            Proof::Secure,
            false,
        ),
        // It is elsewhere, at a cut, of another zone, or not secure.
        (
            "a.partner.example",
            "b.partner.example",
            &plain,
            Proof::Secure,
            false,
        ),
        (
            "y.partner.example",
            "z.partner.example",
            &cut,
            Proof::Secure,
            false,
        ),
        ("a.example", "z.example", &plain, Proof::Secure, false),
        (
            "b.partner.example",
            "z.partner.example",
            &plain,
            Proof::Bogus,
            false,
        ),
    ] {
        let owner = "x.y.partner.example";
        let mut message = Message::response(1, OpCode::Query);
        message.answers = vec![
            host(owner, Proof::Secure),
            record(owner, signature_of(2, A), Proof::Secure),
        ];
        message.authorities = vec![record(from, nsec(next, types), proof)];
        let got = wildcard::is_proven(&message, &name(owner), A);
        assert_eq!(got, expected, "{from} to {next}");
        message.answers[0].proof = Proof::Bogus;
        assert!(!wildcard::is_proven(&message, &name(owner), A));
        message.answers = vec![host(owner, Proof::Secure)];
        assert!(!wildcard::is_proven(&message, &name(owner), A));
    }
}

/// s13: what a name is an alias of, and what vouches for it, is asked anew with it.
#[tokio::test]
async fn s13_aliases_and_the_keys_above_a_name_are_forgotten_with_it() {
    let (owner, end) = (
        "_xmpp-server._tcp.partner.example",
        "_xmpp-server._tcp.hoster.example",
    );
    let chain = vec![crate::dns::fake::record(
        owner,
        RData::CNAME(CNAME(name(end))),
    )];
    let records = vec![srv(0, 0, 5269, "x.hoster.example.")];
    let ds = signature("hoster.example", RecordType::DS);
    let fake = Fake::start(vec![
        (owner, SRV, FakeReply::Chain(chain)),
        (end, SRV, FakeReply::Records(records)),
        (
            "hoster.example",
            RecordType::DS,
            FakeReply::Records(vec![ds]),
        ),
    ])
    .await;
    let anchors = TrustAnchors::default();
    let validator = Validator::new(vec![fake.address].into(), anchors, Duration::ZERO);
    let parent = name("hoster.example");
    let look = async || {
        let found = validator.aliased(&name(owner), SRV).await.unwrap();
        assert_eq!(found.len(), 1);
        validator
            .questions
            .ask(&parent, RecordType::DS)
            .await
            .unwrap();
        let asked = fake.asked.lock();
        [(owner, SRV), (end, SRV), ("hoster.example", RecordType::DS)].map(|one| {
            let mut of = asked.iter();
            of.by_ref()
                .filter(|(name, kind)| (name.as_str(), *kind) == one)
                .count()
        })
    };
    assert_eq!(look().await, [1, 1, 1]);
    assert_eq!(look().await, [1, 1, 1], "kept for its time");
    validator.forget(&name(owner), SRV);
    assert_eq!(look().await, [2, 2, 2]);
}

#[tokio::test]
async fn s13_the_keys_above_an_alias_that_was_answered_whole_are_forgotten_with_it() {
    use crate::dns::fake::record;
    let owner = "_xmpp-server._tcp.partner.example";
    let (between, end) = ("a.relay.example", "b.hoster.example");
    let answer = vec![
        record(owner, RData::CNAME(CNAME(name(between)))),
        record(between, RData::CNAME(CNAME(name(end)))),
        record(end, srv(0, 0, 5269, "x.hoster.example.")),
    ];
    let zones = ["relay.example", "hoster.example"];
    let keys = zones.map(|zone| {
        let ds = FakeReply::Records(vec![signature(zone, RecordType::DS)]);
        (zone, RecordType::DS, ds)
    });
    let mut replies = vec![(owner, SRV, FakeReply::Chain(answer))];
    replies.extend(keys);
    let fake = Fake::start(replies).await;
    let anchors = TrustAnchors::default();
    let validator = Validator::new(vec![fake.address].into(), anchors, Duration::ZERO);
    let look = async || {
        validator.aliased(&name(owner), SRV).await.unwrap();
        for zone in zones {
            let zone = name(zone);
            let asked = validator.questions.ask(&zone, RecordType::DS);
            asked.await.unwrap();
        }
        let asked = fake.asked.lock();
        let of = |zone: &str| {
            let one = |asked: &&(String, RecordType)| {
                (asked.0.as_str(), asked.1) == (zone, RecordType::DS)
            };
            asked.iter().filter(one).count()
        };
        zones.map(of)
    };
    assert_eq!(look().await, [1, 1]);
    validator.forget(&name(owner), SRV);
    assert_eq!(look().await, [2, 2]);
}
