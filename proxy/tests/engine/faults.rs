//! A fault is as small as it can be: of any sequence of good stanzas and of stanzas with any fault, of every
//! kind and of several pairs, each good one arrives once and is never answered with an error, and each bad one
//! is answered once where anybody can be, whatever the next hop confirms by, and however it ends its streams
//! over what it does not take. Seeds that failed are kept in `faults.seeds`.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::{
    prelude::*,
    test_runner::{FileFailurePersistence, TestRunner},
};
use tokio::runtime::Runtime;

use crate::peers::{CULPRIT, Confirms, EndsOver, Lab, Plan, Stream};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/faults.seeds");
/// The least that `maxStanzaBytes` may be.
const MOST_BYTES: u32 = 10_000;

/// Whose stanzas they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Inwards,
    Outwards,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Message,
    Iq,
    Presence,
}

/// What may be wrong with one, with which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    Content(usize),
    Tag(usize),
    Resource(usize),
    /// No `to`, or one that leads to nobody here.
    To(usize),
    /// No `from` that could be answered.
    From(usize),
    Namespace(usize),
    /// The next hop ends its stream over it.
    Culprit,
}

/// One stanza.
#[derive(Clone, Copy, Debug)]
struct Sent {
    kind: Kind,
    /// Of the second pair of the stream.
    of_second: bool,
    good: usize,
    flaw: Flaw,
}

/// What becomes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Answered,
    /// It goes on, and is answered when the next hop has ended its streams over it.
    Ends,
    Dropped,
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
/// Of `to`, each an attribute or none.
const BAD_RECEIVERS: [&str; 6] = [
    "",
    " to=''",
    " to='alice@org..example'",
    " to='alice@'",
    " to='alice@[::1]'",
    " to='alice@elsewhere.example/x'",
];
/// Of `from`, the same: none of them says whom to answer.
const BAD_SENDERS: [&str; 5] = [
    "",
    " from=''",
    " from='rob@partner..example'",
    " from='rob@'",
    " from='a@b@partner.example'",
];
const BAD_NAMESPACES: [&str; 4] = [
    " xmlns='jabber:client'",
    " xmlns=''",
    " xmlns='urn:x'",
    " xmlns='jabber:server:dialback'",
];

fn flaw() -> impl Strategy<Value = Flaw> {
    prop_oneof![
        6 => Just(Flaw::None),
        3 => (0..bad_contents().len()).prop_map(Flaw::Content),
        2 => (0..bad_attributes().len()).prop_map(Flaw::Tag),
        1 => (0..BAD_RESOURCES.len()).prop_map(Flaw::Resource),
        2 => (0..BAD_RECEIVERS.len()).prop_map(Flaw::To),
        1 => (0..BAD_SENDERS.len()).prop_map(Flaw::From),
        2 => (0..BAD_NAMESPACES.len()).prop_map(Flaw::Namespace),
    ]
}

fn stanza(flaw: impl Strategy<Value = Flaw>) -> impl Strategy<Value = Sent> {
    let kind = prop_oneof![
        3 => Just(Kind::Message),
        1 => Just(Kind::Iq),
        1 => Just(Kind::Presence),
    ];
    let good = 0..good_contents().len();
    (kind, any::<bool>(), good, flaw).prop_map(|(kind, of_second, good, flaw)| Sent {
        kind: if flaw == Flaw::Culprit {
            Kind::Message
        } else {
            kind
        },
        of_second,
        good,
        flaw,
    })
}

impl Sent {
    fn message(good: usize, flaw: Flaw) -> Self {
        Self {
            kind: Kind::Message,
            of_second: false,
            good,
            flaw,
        }
    }

    fn fate(&self, way: Way) -> Fate {
        match (self.flaw, self.kind) {
            (Flaw::None, _) => Fate::Passes,
            (Flaw::Culprit, _) => Fate::Ends,
            (Flaw::From(_), _) => Fate::Dropped,
            // A partner's presence is never answered.
            (_, Kind::Presence) if way == Way::Inwards => Fate::Dropped,
            _ => Fate::Answered,
        }
    }

    fn text(&self, way: Way, id: &str) -> String {
        let own = ["org.example", "org2.example"][usize::from(self.of_second)];
        let (from, to) = match way {
            Way::Inwards => ("rob@partner.example/x".to_owned(), format!("alice@{own}")),
            Way::Outwards => {
                let partner = ["partner.example", "partner2.example"];
                let partner = partner[usize::from(self.of_second)];
                ("alice@org.example/x".to_owned(), format!("rob@{partner}"))
            }
        };
        let (name, type_, mut content) = match self.kind {
            Kind::Message => ("message", "chat", good_contents().swap_remove(self.good)),
            Kind::Iq => ("iq", "get", "<time xmlns='urn:xmpp:time'/>".to_owned()),
            Kind::Presence => ("presence", "subscribe", String::new()),
        };
        let (mut from, mut to) = (format!(" from='{from}'"), format!(" to='{to}'"));
        let mut more = String::new();
        match self.flaw {
            Flaw::None => {}
            Flaw::Content(at) => content += &bad_contents().swap_remove(at),
            Flaw::Tag(at) => more = bad_attributes().swap_remove(at),
            Flaw::Resource(at) => to = format!("{}/{}'", &to[..to.len() - 1], BAD_RESOURCES[at]),
            Flaw::To(at) => to = BAD_RECEIVERS[at].to_owned(),
            Flaw::From(at) => from = BAD_SENDERS[at].to_owned(),
            Flaw::Namespace(at) => more = BAD_NAMESPACES[at].to_owned(),
            Flaw::Culprit => content = CULPRIT.to_owned(),
        }
        format!("<{name}{more}{from}{to} type='{type_}' id='{id}'>{content}</{name}>")
    }
}

/// How often what the next hop had handled may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeats {
    /// It had confirmed it.
    Never,
    /// It cannot confirm in time what it reads just before it ends a stream.
    AtEnds,
}

/// One run of the property, against one engine.
struct Trial {
    lab: Lab,
    way: Way,
    repeats: Repeats,
    next: AtomicUsize,
}

impl Trial {
    async fn stream(&self) -> Stream {
        let mut stream = match self.way {
            Way::Inwards => {
                let stream = self.lab.partner_stream().await;
                stream.further("partner.example", "org2.example").await
            }
            Way::Outwards => {
                let stream = self
                    .lab
                    .inside_stream("org.example", "partner.example")
                    .await;
                stream.further("org.example", "partner2.example").await
            }
        };
        stream.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
        stream.hears("<enabled").await;
        stream
    }

    async fn holds(&self, stanzas: &[Sent], piece: usize, all_acknowledged: bool) {
        let mut stream = self.stream().await;
        let (mut ids, mut bytes) = (Vec::new(), String::new());
        for stanza in stanzas {
            let id = format!("n{}", self.next.fetch_add(1, Ordering::SeqCst));
            bytes += &stanza.text(self.way, &id);
            ids.push((id, stanza.fate(self.way)));
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
        let of = |wanted: &[Fate]| {
            let of = ids.iter().filter(|(_, fate)| wanted.contains(fate));
            of.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        next_hop.comes(of(&[Fate::Passes]).iter()).await;
        senders
            .comes(of(&[Fate::Answered, Fate::Ends]).iter())
            .await;
        if all_acknowledged {
            stream.acknowledged(stanzas.len()).await;
        }
        let ends = ids.iter().any(|(_, fate)| *fate == Fate::Ends);
        for (id, fate) in &ids {
            let (came, errors) = next_hop.came(id);
            let told = format!("{id} {fate:?} came {came} times: {stanzas:?}");
            assert_eq!(errors, 0, "{told}");
            let most = match (fate, self.repeats) {
                (Fate::Ends, _) => 1..=3,
                (Fate::Passes, Repeats::AtEnds) if ends => 1..=3,
                (Fate::Passes, _) => 1..=1,
                (Fate::Answered | Fate::Dropped, _) => 0..=0,
            };
            assert!(most.contains(&came), "{told}");
            let answers = usize::from(matches!(fate, Fate::Answered | Fate::Ends));
            assert_eq!(senders.came(id), (0, answers), "answers; {told}");
        }
        stream.close().await;
    }
}

/// The lab of a property, whose next hop confirms so, and ends streams so over what it does not take.
struct Hop {
    way: Way,
    confirms: Confirms,
    pings: bool,
    ends: EndsOver,
}

impl Hop {
    /// One that takes everything.
    fn patient(way: Way, confirms: Confirms, pings: bool) -> Self {
        Self {
            way,
            confirms,
            pings,
            ends: EndsOver::Never,
        }
    }

    /// `number` is the lab's own.
    async fn trial(&self, number: u8) -> Trial {
        let (way, confirms, ends) = (self.way, self.confirms, self.ends);
        let (gateway, partner) = match way {
            Way::Inwards => ((confirms, ends), (Confirms::Acks, EndsOver::Never)),
            Way::Outwards => ((Confirms::Acks, EndsOver::Never), (confirms, ends)),
        };
        let plan = Plan {
            gateway_confirms: gateway.0,
            gateway_ends: gateway.1,
            partner_confirms: partner.0,
            partner_ends: partner.1,
            max_stanza_bytes: MOST_BYTES,
            ..Plan::default()
        };
        let lab = Lab::start(number, plan).await;
        if self.pings {
            let partners = ["partner.example", "partner2.example"];
            match way {
                Way::Inwards => {
                    let own = lab.inside_stream("org.example", "partner.example").await;
                    let second = lab.inside_stream("org2.example", "partner.example").await;
                    lab.gateway.answers_pings(vec![
                        ("org.example", "partner.example", own),
                        ("org2.example", "partner.example", second),
                    ]);
                }
                Way::Outwards => {
                    let mut streams = Vec::new();
                    for partner in partners {
                        let own = lab.connect_partner().await;
                        let own = own.authenticate(partner, "org.example").await;
                        streams.push((partner, "org.example", own));
                    }
                    lab.partner.answers_pings(streams);
                }
            }
        }
        Trial {
            lab,
            way,
            repeats: match confirms {
                Confirms::Acks => Repeats::Never,
                Confirms::Verify | Confirms::Nothing => Repeats::AtEnds,
            },
            next: AtomicUsize::new(0),
        }
    }

    /// So many sequences of such stanzas, and `last`, of which all is acknowledged.
    fn holds(
        &self,
        number: u8,
        (cases, longest): (u32, usize),
        stanzas: impl Strategy<Value = Sent>,
        last: &[Sent],
    ) {
        let runtime = Runtime::new().expect("a runtime");
        let trial = runtime.block_on(self.trial(number));
        let mut runner = TestRunner::new(ProptestConfig {
            cases,
            max_shrink_iters: 32,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
            source_file: Some(file!()),
            ..ProptestConfig::default()
        });
        let sequences = (
            // Of more in a row without a word the server itself is to blame.
            prop::collection::vec(stanzas, 1..longest).prop_filter("few culprits", |stanzas| {
                let culprits = stanzas.iter().filter(|own| own.flaw == Flaw::Culprit);
                culprits.count() <= 3
            }),
            prop_oneof![Just(1_000_000_usize), 200..3_000_usize],
        );
        let outcome = runner.run(&sequences, |(stanzas, piece)| {
            let acknowledged = self.confirms == Confirms::Acks;
            runtime.block_on(trial.holds(&stanzas, piece, acknowledged));
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
        // Whatever the next hop confirms by, all that its sender gave is acknowledged in the end.
        runtime.block_on(trial.holds(last, usize::MAX, true));
        runtime.block_on(trial.lab.stop());
    }
}

/// Stanzas with any fault, to a next hop that takes what it gets.
fn property(number: u8, way: Way, confirms: Confirms, pings: bool) {
    let flaws = [
        Flaw::None,
        Flaw::Content(3),
        Flaw::Tag(0),
        Flaw::To(2),
        Flaw::From(0),
        Flaw::None,
    ];
    let last = flaws.map(|flaw| Sent::message(1, flaw));
    let hop = Hop::patient(way, confirms, pings);
    hop.holds(number, (24, 14), stanza(flaw()), &last);
}

/// Stanzas of which the next hop does not take all, and ends its streams so.
fn property_of_ends(number: u8, way: Way, (confirms, pings): (Confirms, bool), ends: EndsOver) {
    let flaw = prop_oneof![
        6 => Just(Flaw::None),
        1 => Just(Flaw::Culprit),
        1 => Just(Flaw::To(0)),
    ];
    let flaws = [Flaw::None, Flaw::Culprit, Flaw::None, Flaw::None];
    let last = flaws.map(|flaw| Sent::message(0, flaw));
    let hop = Hop {
        way,
        confirms,
        pings,
        ends,
    };
    hop.holds(number, (6, 9), stanza(flaw), &last);
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

const SAYING: EndsOver = EndsOver::Saying("not-well-formed");

#[test]
fn what_a_partner_with_acks_ends_streams_over_costs_itself_where_it_says_so() {
    property_of_ends(87, Way::Outwards, (Confirms::Acks, false), SAYING);
}

#[test]
fn what_a_partner_with_acks_closes_streams_over_costs_itself() {
    property_of_ends(
        88,
        Way::Outwards,
        (Confirms::Acks, false),
        EndsOver::Closing,
    );
}

#[test]
fn what_a_gateway_with_acks_hangs_up_over_costs_itself() {
    property_of_ends(
        89,
        Way::Inwards,
        (Confirms::Acks, false),
        EndsOver::HangingUp,
    );
}

#[test]
fn what_a_gateway_that_answers_verifications_closes_streams_over_costs_itself() {
    property_of_ends(
        90,
        Way::Inwards,
        (Confirms::Verify, false),
        EndsOver::Closing,
    );
}

#[test]
fn what_a_partner_that_answers_pings_ends_streams_over_costs_itself() {
    property_of_ends(91, Way::Outwards, (Confirms::Nothing, true), SAYING);
}
