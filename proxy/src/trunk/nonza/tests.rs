use proptest::prelude::*;

use super::*;
use crate::{
    negotiation::OwnHeader,
    trunk::NAMESPACE,
    xml::{Element, Item, Limits, Scanner, StreamHeader},
};

/// One element as a trunk's scanner gives it.
fn element(bytes: &[u8]) -> Element {
    let header = OwnHeader {
        from: None,
        to: None,
        id: None,
        version: true,
    };
    let mut scanner = Scanner::new(Limits::default());
    let header: std::sync::Arc<StreamHeader> = match scanner.next(header.text().as_bytes()) {
        Ok(Some(Item::Header { header, .. })) => header,
        other => panic!("{other:?}"),
    };
    match scanner.next(bytes) {
        Ok(Some(Item::Other(other))) if other.bytes.len() == bytes.len() => {
            Element::parse(other.bytes, &header).expect("the scanner has checked it")
        }
        other => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

fn read(markup: &str) -> Result<Nonza, NonzaError> {
    Nonza::read(&element(markup.as_bytes()))
}

fn of_trunk(name: &str, rest: &str) -> Result<Nonza, NonzaError> {
    read(&format!("<{name} xmlns='{NAMESPACE}' {rest}"))
}

fn written(nonza: &Nonza) -> String {
    let mut out = Vec::new();
    nonza.write(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// The design's examples, as they stand there.
#[test]
fn what_the_design_shows_is_read_and_written() {
    let enable = "<enable xmlns='urn:xmpp-edge:trunk:0' instance='prosody-0' start='7' version='1.1.0' \
                  queue='1048576' claim='2026-11-28T10:00:00Z' server='up'/>";
    let enabled = "<enabled xmlns='urn:xmpp-edge:trunk:0' pool='hq' pod='hq-6c9d-x2x4z' version='1.1.0' \
                   queue='1048576' priority='10' weight='100' replicas='2' active='true' \
                   claim='2026-11-28T10:00:00Z'/>";
    let others = [
        "<pair xmlns='urn:xmpp-edge:trunk:0' i='7' from='org.example' to='partner.example'/>",
        "<a xmlns='urn:xmpp-edge:trunk:0'><p i='7' h='128'/><p i='9' h='2'/></a>",
        "<r xmlns='urn:xmpp-edge:trunk:0' n='4'/>",
        "<a xmlns='urn:xmpp-edge:trunk:0' n='4'/>",
        "<end xmlns='urn:xmpp-edge:trunk:0' i='7'/>",
        "<drain xmlns='urn:xmpp-edge:trunk:0'/>",
        "<edge xmlns='urn:xmpp-edge:trunk:0' priority='20' withdrawn='true'/>",
        "<server xmlns='urn:xmpp-edge:trunk:0' up='false' text='it&apos;s &lt;gone&gt;'/>",
        "<server xmlns='urn:xmpp-edge:trunk:0' up='true'/>",
        "<claim xmlns='urn:xmpp-edge:trunk:0' since='2026-11-28T10:00:00Z'/>",
        "<claim xmlns='urn:xmpp-edge:trunk:0'/>",
    ];
    for markup in [enable, enabled].into_iter().chain(others) {
        let nonza = read(markup).unwrap_or_else(|error| panic!("{markup}: {error}"));
        assert_eq!(written(&nonza), markup);
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let cases = [
        ("pair", "i='1' from='a.example'/>", "<pair/> has no 'to'"),
        (
            "pair",
            "i='1' from='a.example' to='not a domain'/>",
            "'to' of <pair/> is wrong: a domain name is wanted",
        ),
        (
            "pair",
            "i='1' from='user@a.example' to='b.example'/>",
            "'from' of <pair/> is wrong: a domain name is wanted",
        ),
        (
            "pair",
            "i='+1' from='a.example' to='b.example'/>",
            "'i' of <pair/> is wrong: a whole number below 4294967296 is wanted",
        ),
        ("a", "><p i='1'/></a>", "<p/> has no 'h'"),
        (
            "a",
            "><p i='1' h='4294967296'/></a>",
            "'h' of <p/> is wrong: a whole number below 4294967296 is wanted",
        ),
        (
            "a",
            "n='-1'/>",
            "'n' of <a/> is wrong: a whole number below 4294967296 is wanted",
        ),
        ("a", "><q/></a>", "<a/> contains what it may not contain"),
        (
            "a",
            "><p i='1' h='1'><b/></p></a>",
            "<p/> contains what it may not contain",
        ),
        ("r", "/>", "<r/> has no 'n'"),
        (
            "drain",
            ">now</drain>",
            "<drain/> contains what it may not contain",
        ),
        (
            "edge",
            "priority='65536'/>",
            "'priority' of <edge/> is wrong: a whole number below 65536 is wanted",
        ),
        (
            "edge",
            "active='yes'/>",
            "'active' of <edge/> is wrong: 'true' or 'false' is wanted",
        ),
        (
            "claim",
            "since='yesterday'/>",
            "'since' of <claim/> is wrong: a time as 2026-11-28T10:00:00Z is wanted",
        ),
        (
            "enable",
            "instance='a b' version='1.1.0' queue='1' server='up'/>",
            "'instance' of <enable/> is wrong: 1 to 253 printable ASCII characters without space is wanted",
        ),
        (
            "enable",
            "instance='a' version='1.1' queue='1' server='up'/>",
            "'version' of <enable/> is wrong: a version as 1.1.0 is wanted",
        ),
        (
            "enable",
            "instance='a' version='1.1.0' queue='0' server='up'/>",
            "'queue' of <enable/> is wrong: a number of bytes above 0 is wanted",
        ),
        (
            "enabled",
            "pool='hq' pod='p' version='1.1.0' queue='9' priority='1' weight='1' replicas='1'/>",
            "<enabled/> has no 'active'",
        ),
        ("sm", "/>", "<sm/> is not known on a trunk"),
    ];
    for (name, rest, expected) in cases {
        let error = of_trunk(name, rest).expect_err(rest);
        assert_eq!(error.to_string(), expected, "<{name} {rest}");
    }
    let foreign = read("<r xmlns='urn:xmpp:sm:3'/>").expect_err("another namespace");
    assert_eq!(foreign, NonzaError::Unknown("r".to_owned()));
}

#[test]
fn one_ack_counts_a_thousand_pairs_and_no_more() {
    let of = |count: u32| {
        let counts = (0..count).map(|number| PairCount {
            number: PairNumber(u32::MAX - number),
            h: u32::MAX,
        });
        Nonza::Ack(TrunkAck {
            answers: Some(u32::MAX),
            counts: counts.collect(),
        })
    };
    let most = written(&of(1_000));
    assert!(most.len() < 65_536, "{} bytes", most.len());
    assert_eq!(read(&most), Ok(of(1_000)));
    assert_eq!(read(&written(&of(1_001))), Err(NonzaError::TooManyCounts));
}

#[test]
fn only_what_changed_is_told() {
    let old = EdgeFacts {
        priority: 10,
        weight: 100,
        is_withdrawn: false,
        replicas: 2,
    };
    assert_eq!(old.change_to(old), None);
    let new = EdgeFacts {
        is_withdrawn: true,
        ..old
    };
    let change = old.change_to(new).expect("another");
    assert_eq!(
        written(&Nonza::Edge(change)),
        "<edge xmlns='urn:xmpp-edge:trunk:0' withdrawn='true'/>"
    );
    let mut known = old;
    known.apply(change);
    assert_eq!(known, new);
}

fn names() -> impl Strategy<Value = TrunkName> {
    "[!-~]{1,40}".prop_map(|text| text.parse().expect("graphic"))
}

fn times() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_000_000_000).prop_map(|at| Timestamp::from_second(at).expect("in range"))
}

fn activities() -> impl Strategy<Value = Activity> {
    (any::<bool>(), prop::option::of(times()))
        .prop_map(|(is_active, claim)| Activity { is_active, claim })
}

fn nonzas() -> impl Strategy<Value = Nonza> {
    let version =
        (0_u32..9, 0_u32..99, 0_u32..99).prop_map(|(major, minor, patch)| ProductVersion {
            major,
            minor,
            patch,
        });
    let domains = "[a-z]{1,9}\\.example".prop_map(|text| text.parse().expect("a domain"));
    let pairs =
        (any::<u32>(), domains.clone(), domains).prop_map(|(number, from, to)| OpenedPair {
            number: PairNumber(number),
            pair: Pair { from, to },
        });
    let counts = prop::collection::vec(
        (any::<u32>(), any::<u32>()).prop_map(|(number, h)| PairCount {
            number: PairNumber(number),
            h,
        }),
        0..9,
    );
    let changes = (
        any::<Option<u16>>(),
        any::<Option<u16>>(),
        any::<Option<bool>>(),
        any::<Option<u16>>(),
        prop::option::of(activities()),
    )
        .prop_map(
            |(priority, weight, is_withdrawn, replicas, activity)| EdgeChange {
                priority,
                weight,
                is_withdrawn,
                replicas,
                activity,
            },
        );
    let texts = "[ -~\u{a1}-\u{2000}<>&'\"\t\r\n]{0,60}";
    prop_oneof![
        (
            names(),
            any::<Option<u64>>(),
            version.clone(),
            1_u64..,
            prop::option::of(times()),
            any::<bool>()
        )
            .prop_map(
                |(instance, start, version, queue, claim, is_up)| Nonza::Enable(Enable {
                    instance,
                    start,
                    version,
                    queue,
                    claim,
                    server: if is_up {
                        ServerState::Up
                    } else {
                        ServerState::Down {
                            text: String::new(),
                        }
                    },
                })
            ),
        (
            names(),
            names(),
            version,
            1_u64..,
            any::<(u16, u16, bool, u16)>(),
            activities()
        )
            .prop_map(
                |(pool, pod, version, queue, facts, activity)| Nonza::Enabled(Enabled {
                    pool,
                    pod,
                    version,
                    queue,
                    facts: EdgeFacts {
                        priority: facts.0,
                        weight: facts.1,
                        is_withdrawn: facts.2,
                        replicas: facts.3,
                    },
                    activity,
                })
            ),
        pairs.prop_map(Nonza::Pair),
        (any::<Option<u32>>(), counts)
            .prop_map(|(answers, counts)| Nonza::Ack(TrunkAck { answers, counts })),
        any::<u32>().prop_map(Nonza::Request),
        any::<u32>().prop_map(|number| Nonza::End(PairNumber(number))),
        Just(Nonza::Drain),
        changes.prop_map(Nonza::Edge),
        texts.prop_map(|text| Nonza::Server(ServerState::Down { text })),
        texts
            .prop_filter("words", |text| !text.is_empty())
            .prop_map(|text| Nonza::Server(ServerState::Refuses { text })),
        Just(Nonza::Server(ServerState::Up)),
        prop::option::of(times()).prop_map(Nonza::Claim),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(nonza in nonzas()) {
        prop_assert_eq!(read(&written(&nonza)), Ok(nonza));
    }
}
