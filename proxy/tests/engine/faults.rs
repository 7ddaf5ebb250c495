//! A fault is as small as it can be: of any sequence of good stanzas and of stanzas with any fault, each
//! good one arrives once and is never answered with an error, and each bad one is answered once, whatever
//! the next hop confirms by. Seeds that failed are kept in `faults.seeds`.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::{
    prelude::*,
    test_runner::{FileFailurePersistence, TestRunner},
};
use tokio::runtime::Runtime;

use crate::peers::{Confirms, Lab, Plan, Stream};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/faults.seeds");
/// The least that `maxStanzaBytes` may be.
const MOST_BYTES: u32 = 10_000;

/// Whose stanzas they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Inwards,
    Outwards,
}

/// One stanza: all right, or with a fault in its content, in its start tag or in an address.
#[derive(Clone, Debug)]
enum Sent {
    Good(usize),
    Content(usize),
    Tag(usize),
    Address(usize),
}

fn many(count: usize, make: impl Fn(usize) -> String) -> String {
    (0..count).map(make).collect()
}

/// Contents that nothing is wrong with, some of them near a limit.
fn good_contents() -> Vec<String> {
    vec![
        "<body>hello</body>".to_owned(),
        format!("<body>{}</body>", "x".repeat(8_000)),
        "<body>&lt;message/&gt; é 🐎</body><![CDATA[</message>]]>".to_owned(),
        "<a>".repeat(60) + &"</a>".repeat(60),
        format!("<x {}/>", many(64, |n| format!(" a{n}=''"))),
        many(100, |n| format!("<x xmlns='urn:x:{n}'/>")),
        String::new(),
    ]
}

/// Contents over a limit, or with names that not every server reads.
fn bad_contents() -> Vec<String> {
    vec![
        format!("<body>{}</body>", "x".repeat(12_000)),
        format!("<x a='{}'/>", "/>".repeat(6_000)),
        format!("<![CDATA[{}]]>", "</message>".repeat(1_200)),
        "<a>".repeat(70) + &"</a>".repeat(70),
        format!("<x {}/>", many(65, |n| format!(" a{n}='>'"))),
        format!("<x {}/>", many(65, |n| format!(" xmlns:a{n}='u'"))),
        many(1_025, |_| "<x xmlns='u'/>".to_owned()),
        format!("<{}/>", "n".repeat(300)),
        format!("<x {}='1'/>", "n".repeat(300)),
        format!("<x xmlns='{}'/>", "u".repeat(300)),
        "<x xmlns='urn:a b'><y/></x>".to_owned(),
        "<größe>x</größe>".to_owned(),
    ]
}

/// What may stand in a start tag and makes it faulty.
fn bad_attributes() -> Vec<String> {
    vec![
        many(65, |n| format!(" a{n}='>'")),
        many(65, |n| format!(" xmlns:a{n}='u'")),
        format!(" {}=''", "n".repeat(300)),
        format!(" xmlns:a='{}'", "u".repeat(300)),
        " xmlns:a='u v'".to_owned(),
        " größe='1'".to_owned(),
        format!(" a='{}'", "x".repeat(12_000)),
    ]
}

/// Resources that no address may have.
const BAD_RESOURCES: [&str; 3] = ["a&#xA;b", "\u{e000}", "\u{2069}"];

fn stanza() -> impl Strategy<Value = Sent> {
    prop_oneof![
        3 => (0..good_contents().len()).prop_map(Sent::Good),
        2 => (0..bad_contents().len()).prop_map(Sent::Content),
        1 => (0..bad_attributes().len()).prop_map(Sent::Tag),
        1 => (0..BAD_RESOURCES.len()).prop_map(Sent::Address),
    ]
}

impl Sent {
    fn is_good(&self) -> bool {
        matches!(self, Self::Good(_))
    }

    fn text(&self, way: Way, id: &str) -> String {
        let (from, to) = match way {
            Way::Inwards => ("rob@partner.example/x", "alice@org.example"),
            Way::Outwards => ("alice@org.example/x", "rob@partner.example"),
        };
        let (mut to, mut more, mut content) = (to.to_owned(), String::new(), String::new());
        match self {
            Self::Good(at) => content = good_contents().swap_remove(*at),
            Self::Content(at) => content = bad_contents().swap_remove(*at),
            Self::Tag(at) => more = bad_attributes().swap_remove(*at),
            Self::Address(at) => to += &format!("/{}", BAD_RESOURCES[*at]),
        }
        format!("<message{more} from='{from}' to='{to}' type='chat' id='{id}'>{content}</message>")
    }
}

/// One run of the property, against one engine.
struct Trial {
    lab: Lab,
    way: Way,
    next: AtomicUsize,
}

impl Trial {
    async fn stream(&self) -> Stream {
        let mut stream = match self.way {
            Way::Inwards => self.lab.partner_stream().await,
            Way::Outwards => {
                self.lab
                    .inside_stream("org.example", "partner.example")
                    .await
            }
        };
        stream.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
        stream.hears("<enabled").await;
        stream
    }

    async fn holds(&self, stanzas: &[Sent], piece: usize, all_acknowledged: bool) {
        let mut stream = self.stream().await;
        let (mut good, mut bad, mut bytes) = (Vec::new(), Vec::new(), String::new());
        for stanza in stanzas {
            let id = format!("n{}", self.next.fetch_add(1, Ordering::SeqCst));
            bytes += &stanza.text(self.way, &id);
            let ids = if stanza.is_good() {
                &mut good
            } else {
                &mut bad
            };
            ids.push(id);
        }
        let mut rest = bytes.as_str();
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rest.ceil_char_boundary(piece.min(rest.len())));
            stream.say(part).await;
            rest = more;
        }
        let (next_hop, senders) = match self.way {
            Way::Inwards => (&self.lab.gateway, &self.lab.partner),
            Way::Outwards => (&self.lab.partner, &self.lab.gateway),
        };
        next_hop.comes(good.iter()).await;
        senders.comes(bad.iter()).await;
        if all_acknowledged {
            stream.acknowledged(stanzas.len()).await;
        }
        for id in &good {
            assert_eq!(next_hop.came(id), (1, 0), "{id} arrives once: {stanzas:?}");
            assert_eq!(senders.came(id), (0, 0), "{id} is answered: {stanzas:?}");
        }
        for id in &bad {
            assert_eq!(next_hop.came(id), (0, 0), "{id} goes on: {stanzas:?}");
            assert_eq!(
                senders.came(id),
                (0, 1),
                "{id} is answered once: {stanzas:?}"
            );
        }
        stream.close().await;
    }
}

/// `number` is the lab's own.
fn property(number: u8, way: Way, confirms: Confirms, pings: bool) {
    let runtime = Runtime::new().expect("a runtime");
    let (gateway, partner) = match way {
        Way::Inwards => (confirms, Confirms::Acks),
        Way::Outwards => (Confirms::Acks, confirms),
    };
    let plan = Plan {
        gateway_confirms: gateway,
        partner_confirms: partner,
        max_stanza_bytes: MOST_BYTES,
        ..Plan::default()
    };
    let trial = runtime.block_on(async {
        let lab = Lab::start(number, plan).await;
        if pings {
            match way {
                Way::Inwards => {
                    let own = lab.inside_stream("org.example", "partner.example").await;
                    lab.gateway
                        .answers_pings(own, "org.example", "partner.example");
                }
                Way::Outwards => {
                    let own = lab.partner_stream().await;
                    lab.partner
                        .answers_pings(own, "partner.example", "org.example");
                }
            }
        }
        Trial {
            lab,
            way,
            next: AtomicUsize::new(0),
        }
    });
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 16,
        max_shrink_iters: 32,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    });
    let sequences = (
        prop::collection::vec(stanza(), 1..14),
        prop_oneof![Just(1_000_000_usize), 200..3_000_usize],
    );
    let outcome = runner.run(&sequences, |(stanzas, piece)| {
        runtime.block_on(trial.holds(&stanzas, piece, confirms == Confirms::Acks));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    // Whatever the next hop confirms by, all that its sender gave is acknowledged in the end.
    let last = [Sent::Good(0), Sent::Content(3), Sent::Tag(0), Sent::Good(1)];
    runtime.block_on(trial.holds(&last, usize::MAX, true));
    runtime.block_on(trial.lab.stop());
}

#[test]
fn a_fault_costs_itself_where_the_gateway_acknowledges() {
    property(80, Way::Inwards, Confirms::Acks, false);
}

#[test]
fn a_fault_costs_itself_where_the_gateway_answers_verifications() {
    property(81, Way::Inwards, Confirms::Verify, false);
}

#[test]
fn a_fault_costs_itself_where_the_gateway_answers_pings() {
    property(82, Way::Inwards, Confirms::Nothing, true);
}

#[test]
fn a_fault_costs_itself_where_the_gateway_confirms_nothing() {
    property(83, Way::Inwards, Confirms::Nothing, false);
}

#[test]
fn a_fault_costs_itself_where_the_partner_acknowledges() {
    property(84, Way::Outwards, Confirms::Acks, false);
}

#[test]
fn a_fault_costs_itself_where_the_partner_answers_pings() {
    property(85, Way::Outwards, Confirms::Nothing, true);
}

#[test]
fn a_fault_costs_itself_where_the_partner_confirms_nothing() {
    property(86, Way::Outwards, Confirms::Nothing, false);
}
