use super::*;
use crate::trunk::{
    nonza::{Activity, EdgeFacts, PairCount, TrunkAck},
    tests::{batch, pair, router},
};
use crate::{negotiation::Side, routing::acknowledgement::AckToken};

const TIMEOUT: Duration = Duration::from_secs(20);

fn version(text: &str) -> ProductVersion {
    text.parse().expect("valid")
}

fn enable(own: &str) -> Enable {
    Enable {
        instance: "prosody-0".parse().expect("valid"),
        start: Some(7),
        version: version(own),
        queue: 1 << 20,
        claim: None,
        server: ServerState::Up,
    }
}

fn enabled(own: &str) -> Enabled {
    Enabled {
        pool: "hq".parse().expect("valid"),
        pod: "hq-0".parse().expect("valid"),
        version: version(own),
        queue: 1 << 20,
        facts: EdgeFacts {
            priority: 10,
            weight: 100,
            is_withdrawn: false,
            replicas: 1,
        },
        activity: Activity {
            is_active: true,
            claim: None,
        },
    }
}

fn sidecar(now: Instant) -> Trunk<()> {
    Trunk::sidecar(enable("1.1.0"), TIMEOUT, Arc::default(), now)
}

fn edge(now: Instant) -> Trunk<()> {
    Trunk::edge(version("1.1.0"), TIMEOUT, Arc::default(), now)
}

/// An edge on whose trunk stanzas flow.
fn open(now: Instant) -> Trunk<()> {
    let mut own = edge(now);
    let event = own.nonza(Nonza::Enable(enable("1.1.0")), now);
    assert!(matches!(event, Ok(Some(TrunkEvent::Enable(_)))));
    own.welcome(enabled("1.1.0"));
    assert!(own.may_send());
    written(&mut own);
    own
}

fn written(own: &mut Trunk<()>) -> String {
    let mut bytes = Vec::new();
    while !own.buffer.is_empty() {
        let front = own.buffer.front().to_vec();
        own.buffer.wrote(front.len());
        bytes.extend(front);
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn opened(number: u32, to: usize) -> OpenedPair {
    OpenedPair {
        number: PairNumber(number),
        pair: pair(to),
    }
}

/// B-16, B-17: what a hostile peer, or one of another time, may say first.
#[test]
fn nothing_is_said_on_a_trunk_before_both_have_said_what_they_are() {
    let now = Instant::now();
    let far = "the peer's version is 1.3.0, ours 1.1.0: they may be one minor version apart";
    let cases: [(Trunk<()>, Nonza, &str); 7] = [
        (
            edge(now),
            Nonza::Pair(opened(0, 0)),
            "<pair/> is not expected now",
        ),
        (
            edge(now),
            Nonza::Enabled(enabled("1.1.0")),
            "<enabled/> is not expected now",
        ),
        (edge(now), Nonza::Request(1), "<r/> is not expected now"),
        (edge(now), Nonza::Enable(enable("1.3.0")), far),
        (sidecar(now), Nonza::Enabled(enabled("1.3.0")), far),
        (
            sidecar(now),
            Nonza::Enable(enable("1.1.0")),
            "<enable/> is not expected now",
        ),
        (sidecar(now), Nonza::Drain, "<drain/> is not expected now"),
    ];
    for (mut own, nonza, expected) in cases {
        let fault = own.nonza(nonza, now).expect_err(expected);
        assert_eq!(fault.to_string(), expected);
    }
    for minor in ["1.0.7", "1.2.0"] {
        let mut own = sidecar(now);
        let event = own.nonza(Nonza::Enabled(enabled(minor)), now);
        assert!(matches!(event, Ok(Some(TrunkEvent::Enabled(_)))), "{minor}");
        assert!(own.may_send());
    }
    let mut own = edge(now);
    assert_eq!(
        own.stanza("a.example", "b.example"),
        Err(TrunkFault::StanzaWithoutPair)
    );
    assert_eq!(own.deadline(now), now + GREETING);
    assert_eq!(own.tick(now + GREETING), Err(TrunkFault::GreetingTimeout));
}

/// B-16.
#[test]
fn what_only_the_other_end_may_say_ends_the_trunk() {
    let now = Instant::now();
    let count = Nonza::Ack(TrunkAck {
        answers: None,
        counts: vec![PairCount {
            number: PairNumber(0),
            h: 0,
        }],
    });
    let answer = Nonza::Ack(TrunkAck {
        answers: Some(7),
        counts: Vec::new(),
    });
    let cases = [
        (Nonza::Enable(enable("1.1.0")), "UnexpectedElement"),
        (Nonza::Enabled(enabled("1.1.0")), "UnexpectedElement"),
        (Nonza::Edge(EdgeChange::default()), "UnexpectedElement"),
        (count, "UnknownPair"),
        (answer, "UnexpectedElement"),
        (Nonza::End(PairNumber(3)), "UnknownPair"),
    ];
    for (nonza, label) in cases {
        let shown = format!("{nonza:?}");
        let fault = open(now).nonza(nonza, now).expect_err(&shown);
        assert_eq!(fault.label(), label, "{shown}");
    }
    let stray = open(now).stanza("org.example", "x0.example");
    assert_eq!(stray, Err(TrunkFault::StanzaWithoutPair));
}

/// B-12: nothing is waited for between a pair and its stanza, nor between pairs.
#[test]
fn a_thousand_pairs_are_written_before_the_first_answer() {
    let now = Instant::now();
    let (router, _dials) = router();
    let mut own = open(now);
    for number in 0..1_000 {
        let route = router.route(Side::Partner, &pair(number));
        assert!(
            own.buffer_mut()
                .send(&route, batch(number, 0, 1, None), now)
                .is_none()
        );
    }
    let text = written(&mut own);
    let mut rest = text.as_str();
    for number in 0..1_000 {
        let opens = format!("i='{number}' from='org.example' to='x{number}.example'/><message ");
        let at = rest.find(&opens).unwrap_or_else(|| panic!("no {opens}"));
        rest = &rest[at + opens.len()..];
    }
    assert_eq!(own.buffer().custody().stanzas, 1_000);
}

#[test]
fn what_was_settled_is_told_within_ten_milliseconds_and_an_r_is_answered_at_once() {
    let now = Instant::now();
    let mut own = open(now);
    own.open(opened(7, 1), ()).expect("new");
    for number in 0..2 {
        let taken = own.stanza("org.example", "x1.example");
        let expected = TrunkStanza::Taken {
            pair: PairNumber(7),
            number,
        };
        assert_eq!(taken, Ok(expected));
    }
    let settle = |own: &Trunk<()>, first| {
        let pair = own.pair(PairNumber(7)).expect("open");
        AckToken {
            ledger: Arc::clone(pair.tracker()),
            first,
            count: 1,
        }
        .settle();
    };
    settle(&own, 0);
    own.tick(now).expect("alive");
    assert_eq!(written(&mut own), "");
    let due = own.deadline(now);
    assert_eq!(due, now + Duration::from_millis(10));
    own.tick(due).expect("alive");
    let ack = "<a xmlns='urn:xmpp-edge:trunk:0'><p i='7' h='1'/></a>";
    assert_eq!(written(&mut own), ack);
    own.nonza(Nonza::Request(4), due).expect("a request");
    own.tick(due).expect("alive");
    assert_eq!(
        written(&mut own),
        "<a xmlns='urn:xmpp-edge:trunk:0' n='4'/>"
    );
    let early = own.nonza(Nonza::End(PairNumber(7)), due);
    assert_eq!(early.expect_err("one is owed").label(), "EndedTooEarly");
    settle(&own, 1);
    own.drain(due);
    own.tick(due).expect("alive");
    assert_eq!(
        written(&mut own),
        "<drain xmlns='urn:xmpp-edge:trunk:0'/>\
         <a xmlns='urn:xmpp-edge:trunk:0'><p i='7' h='2'/></a></stream:stream>"
    );
    assert_eq!(
        own.stanza("org.example", "x1.example"),
        Ok(TrunkStanza::NotTaken)
    );
    assert_eq!(own.closed(), Some(TrunkEnd::InOrder));
    assert!(own.is_done());
}

#[test]
fn a_silent_peer_is_asked_and_given_up() {
    let now = Instant::now();
    let mut own = open(now);
    let asks = own.deadline(now);
    own.tick(asks).expect("it is asked");
    assert_eq!(
        written(&mut own),
        "<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>"
    );
    let gives_up = own.deadline(asks);
    assert!(gives_up <= now + Duration::from_secs(10));
    let mut other = open(now);
    assert_eq!(own.tick(gives_up), Err(TrunkFault::Silent));
    // The same with an answer in between.
    other.tick(asks).expect("it is asked");
    let answer = TrunkAck {
        answers: Some(1),
        counts: Vec::new(),
    };
    other.heard(gives_up);
    other
        .nonza(Nonza::Ack(answer), gives_up)
        .expect("an answer");
    other.tick(gives_up).expect("alive");
}

/// B-26: whoever still settles, and whoever waits for it, says nothing that the other cannot answer.
#[test]
fn nothing_is_asked_or_answered_once_either_side_has_closed() {
    let now = Instant::now();
    let settles = |own: &Trunk<()>| {
        let pair = own.pair(PairNumber(7)).expect("open");
        AckToken {
            ledger: Arc::clone(pair.tracker()),
            first: 0,
            count: 1,
        }
        .settle();
    };
    let later = now + Duration::from_secs(12);
    // The peer has closed, and this side has something to settle.
    let mut own = open(now);
    own.open(opened(7, 1), ()).expect("new");
    own.stanza("org.example", "x1.example").expect("taken");
    own.nonza(Nonza::Drain, now).expect("once");
    assert_eq!(own.closed(), None);
    assert!(!own.listens());
    own.tick(later).expect("alive, as far as is known");
    assert_eq!(written(&mut own), "");
    assert!(own.deadline(later) > later);
    settles(&own);
    own.tick(later).expect("in time");
    let end = "<a xmlns='urn:xmpp-edge:trunk:0'><p i='7' h='1'/></a></stream:stream>";
    assert_eq!(written(&mut own), end);
    // This side has closed, and the peer has not: both drained at once.
    let mut own = open(now);
    own.drain(now);
    own.nonza(Nonza::Drain, now).expect("once");
    own.tick(now).expect("in time");
    assert!(written(&mut own).ends_with("</stream:stream>"));
    own.nonza(Nonza::Request(3), now).expect("it crossed");
    own.tick(later).expect("the peer settles");
    assert_eq!(written(&mut own), "");
    assert!(own.deadline(later) > later);
    let over = now + TIMEOUT + Duration::from_secs(5);
    assert_eq!(own.tick(over), Err(TrunkFault::DrainTimeout));
}

#[test]
fn a_side_that_drains_closes_once_what_it_sent_is_acknowledged() {
    let now = Instant::now();
    let (router, _dials) = router();
    let route = router.route(Side::Partner, &pair(0));
    let mut own = open(now);
    let sent = own.buffer_mut().send(&route, batch(0, 0, 1, None), now);
    assert!(sent.is_none());
    written(&mut own);
    own.drain(now);
    own.tick(now).expect("in time");
    assert_eq!(written(&mut own), "<drain xmlns='urn:xmpp-edge:trunk:0'/>");
    let asks = own.deadline(now);
    own.tick(asks).expect("alive");
    assert_eq!(
        written(&mut own),
        "<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>"
    );
    let mut silent = open(now);
    let sent = silent.buffer_mut().send(&route, batch(0, 1, 1, None), now);
    assert!(sent.is_none());
    written(&mut silent);
    silent.drain(now);
    silent.tick(asks).expect("asked");
    let gives_up = silent.deadline(asks);
    assert!(gives_up <= now + Duration::from_secs(10));
    assert_eq!(silent.tick(gives_up), Err(TrunkFault::Silent));
    let counts = vec![PairCount {
        number: PairNumber(0),
        h: 1,
    }];
    let ack = TrunkAck {
        answers: Some(1),
        counts,
    };
    own.nonza(Nonza::Ack(ack), asks).expect("right");
    own.tick(asks).expect("alive");
    assert_eq!(written(&mut own), "</stream:stream>");
}

/// B-27: what is given back holds up no end, and is not acknowledged.
#[test]
fn a_trunk_ends_in_order_over_what_is_given_back() {
    let now = Instant::now();
    let mut own = open(now);
    own.open(opened(7, 1), ()).expect("new");
    for _ in 0..3 {
        own.stanza("org.example", "x1.example").expect("taken");
    }
    let token = |own: &Trunk<()>, first| AckToken {
        ledger: Arc::clone(own.pair(PairNumber(7)).expect("open").tracker()),
        first,
        count: 1,
    };
    token(&own, 0).settle();
    token(&own, 1).give_back();
    own.drain(now);
    own.tick(now).expect("in time");
    let text = written(&mut own);
    assert!(text.contains("<p i='7' h='1'/>"), "{text}");
    assert!(
        !text.contains("</stream:stream>"),
        "one is still on its way"
    );
    token(&own, 2).settle();
    own.tick(now).expect("in time");
    assert_eq!(written(&mut own), "</stream:stream>");
}

#[test]
fn a_stream_that_ends_without_drain_is_out_of_order() {
    let now = Instant::now();
    assert_eq!(open(now).closed(), Some(TrunkEnd::OutOfOrder));
    assert_eq!(edge(now).closed(), Some(TrunkEnd::OutOfOrder));
    let mut own = open(now);
    own.nonza(Nonza::Drain, now).expect("once");
    assert!(!own.may_send());
    let after = own.stanza("org.example", "x0.example");
    assert_eq!(after, Err(TrunkFault::AfterDrain));
    assert_eq!(own.closed(), None, "its own acks come first");
    own.tick(now).expect("in time");
    assert!(own.is_done());
}
