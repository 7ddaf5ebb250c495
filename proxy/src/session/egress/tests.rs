//! Custody, as a model: stanzas go through one route to a series of streams that die, and a next hop
//! that takes, confirms, lies or says nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use xmpp_edge_crds::domain::DomainName;

use super::*;
use crate::{
    route::{
        batch::BatchBuilder,
        custody::Ledger,
        failure::{Failure, FailureKind},
        outlet::Outlet,
        queue::Offered,
    },
    stream::{Pair, Side, acks::Namespace},
};

#[derive(Clone, Copy, Debug)]
enum Way {
    Written,
    Acks,
    /// XEP-0198 that is agreed on only after the first stanzas.
    LateAcks,
    Probe,
}

#[derive(Clone, Debug)]
enum Step {
    /// A read brought so many stanzas.
    Offer(u8),
    /// The stream takes batches out of the queue.
    Take(u8),
    /// The socket takes so many bytes.
    Write(u16),
    /// The next hop confirms a part of what it got, in 256ths.
    Confirm(u8),
    /// It claims more than it can have got.
    Lie(u8),
    /// The stream dies; another is set up.
    Die(Way),
    /// The stream dies and no other can be set up for now.
    Fail,
    /// Time passes in the queue.
    Expire,
    /// The pair becomes forbidden.
    Forbid,
}

fn step() -> impl Strategy<Value = Step> {
    let way = prop_oneof![
        Just(Way::Written),
        Just(Way::Acks),
        Just(Way::LateAcks),
        Just(Way::Probe)
    ];
    prop_oneof![
        6 => (1_u8..6).prop_map(Step::Offer),
        6 => (1_u8..4).prop_map(Step::Take),
        6 => (1_u16..400).prop_map(Step::Write),
        4 => any::<u8>().prop_map(Step::Confirm),
        1 => any::<u8>().prop_map(Step::Lie),
        3 => way.prop_map(Step::Die),
        1 => Just(Step::Fail),
        1 => Just(Step::Expire),
        1 => Just(Step::Forbid),
    ]
}

/// A stream with the next hop at its other end.
struct Hop {
    outlet: Arc<Outlet>,
    egress: Egress,
    way: Way,
    /// What came, whole or not.
    bytes: Vec<u8>,
    /// Stanzas before acks were agreed on, where they were agreed on late.
    before: Option<usize>,
    confirmed: usize,
}

impl Hop {
    fn new(way: Way) -> Self {
        let mut egress = Egress::default();
        match way {
            Way::Acks => egress.confirm_by(acks()),
            Way::Probe => egress.confirm_by(Confirmation::Probe {
                next: 0,
                asked: None,
                last: None,
            }),
            Way::Written | Way::LateAcks => {}
        }
        Self {
            outlet: Arc::default(),
            egress,
            way,
            bytes: Vec::new(),
            before: None,
            confirmed: 0,
        }
    }

    /// Numbers of the stanzas that came whole.
    fn got(&self) -> Vec<u64> {
        let text = std::str::from_utf8(&self.bytes).expect("ASCII");
        let whole = text.rfind('>').map_or("", |end| &text[..=end]);
        whole
            .split_inclusive('>')
            .map(|stanza| {
                let digits = stanza.trim_matches(|c: char| !c.is_ascii_digit());
                digits.parse().expect("a number")
            })
            .collect()
    }
}

fn acks() -> Confirmation {
    Confirmation::Acks {
        acks: Acks::new(Namespace::Sm3),
        asked: None,
        again: None,
    }
}

struct World {
    route: Arc<Route>,
    total: Total,
    ledger: Arc<Ledger>,
    offered: u64,
    hop: Hop,
    now: Instant,
    /// How often each stanza arrived, streams before the one at hand.
    arrived: BTreeMap<u64, u32>,
    newest: Option<u64>,
    answered: BTreeMap<u64, u32>,
    failure: Failure,
}

impl World {
    fn new() -> Self {
        let domain = |name| DomainName::parse(name).expect("valid");
        let pair = Pair {
            from: domain("partner.example"),
            to: domain("org.example"),
        };
        let world = Self {
            route: Arc::new(Route::new(pair, Side::Gateway)),
            total: Total::default(),
            ledger: Arc::new(Ledger::new(Arc::default())),
            offered: 0,
            hop: Hop::new(Way::Acks),
            now: Instant::now(),
            arrived: BTreeMap::new(),
            newest: None,
            answered: BTreeMap::new(),
            failure: Failure::new(FailureKind::TimedOut, "model"),
        };
        assert!(world.route.bind(&world.hop.outlet));
        world
    }

    fn step(&mut self, step: &Step) {
        self.now += Duration::from_millis(10);
        match step {
            Step::Offer(count) => {
                let mut builder = BatchBuilder::default();
                for _ in 0..*count {
                    let number = self.offered;
                    self.offered += 1;
                    builder.add(number, 8, |out| {
                        out.extend(format!("<{number}>").bytes());
                    });
                }
                let batch = builder.take(Some(&self.ledger), self.now).expect("some");
                match self.route.offer(batch, &self.total, self.now) {
                    Offered::Queued { .. } => {}
                    Offered::Dial { .. } => self.connect(Way::Acks),
                    Offered::Resting { batch, .. } => self.answer(batch),
                }
            }
            Step::Take(count) => {
                for _ in 0..*count {
                    if let Some(batch) = self.route.next(&self.hop.outlet) {
                        self.hop.egress.send(&self.route, batch, self.now);
                    }
                }
                if matches!(self.hop.way, Way::LateAcks) && self.hop.before.is_none() {
                    // All that stands in the pieces now was sent before.
                    self.hop.before = Some(usize::MAX);
                    self.hop.egress.confirm_by(acks());
                    self.hop.egress.control(&b"~"[..]);
                }
            }
            Step::Write(count) => self.write(usize::from(*count)),
            Step::Confirm(part) => {
                let got = self.hop.got().len();
                let covers = self.hop.egress.in_custody();
                match self.hop.egress.confirmation_mut() {
                    Confirmation::Written => {}
                    Confirmation::Acks { .. } => {
                        let counted = got.saturating_sub(self.hop.before.unwrap_or(0));
                        let fresh = counted.saturating_sub(self.hop.confirmed);
                        self.hop.confirmed += fresh * usize::from(*part) / 255;
                        let h = u32::try_from(self.hop.confirmed).expect("few");
                        self.hop
                            .egress
                            .acked(h, &self.total, self.now)
                            .expect("a right count is taken");
                    }
                    Confirmation::Probe { next, asked, .. } => {
                        // At once, whether all that it covers was written or not.
                        *next += 1;
                        *asked = Some((*next, covers, self.now));
                        let number = *next;
                        self.hop.egress.probe_answered(number, &self.total);
                    }
                }
            }
            Step::Lie(more) => {
                let h = u32::try_from(self.hop.confirmed).expect("few") + 1_000 + u32::from(*more);
                if let Confirmation::Acks { .. } = self.hop.egress.confirmation() {
                    let lie = self.hop.egress.acked(h, &self.total, self.now);
                    assert!(lie.is_err(), "more than was written is not taken");
                }
                self.hop.egress.probe_answered(u64::from(h), &self.total);
            }
            Step::Die(way) => {
                let dial = self.die();
                assert_eq!(dial, self.route.waiting() > 0);
                self.connect(*way);
            }
            Step::Fail => {
                self.die();
                self.hop = Hop::new(Way::Acks);
                let (batches, _) = self.route.rest(&self.failure.clone(), self.now, 0.0);
                for batch in batches {
                    self.fail(batch);
                }
                self.now += Duration::from_millis(300);
            }
            Step::Expire => {
                for batch in self.route.expired(self.now, Duration::from_millis(40)) {
                    self.fail(batch);
                }
            }
            Step::Forbid => {
                for batch in self.route.drain() {
                    self.fail(batch);
                }
            }
        }
        self.check();
    }

    fn write(&mut self, mut count: usize) {
        while count > 0 && !self.hop.egress.is_empty() {
            let front = self.hop.egress.front();
            let took = count.min(front.len());
            for byte in &front[..took] {
                if *byte == b'~' {
                    self.hop.before = Some(self.hop.got().len());
                } else {
                    self.hop.bytes.push(*byte);
                }
            }
            self.hop.egress.wrote(took);
            count -= took;
        }
        self.hop.egress.flushed(&self.total);
    }

    /// What `Session` does when a stream ends.
    fn die(&mut self) -> bool {
        self.note();
        let mut dial = false;
        let mut handed = false;
        for back in self.hop.egress.hand_back(self.now) {
            for batch in back.lost {
                self.fail(batch);
            }
            dial = self.route.unbind(&self.hop.outlet, back.again);
            handed = true;
        }
        if !handed {
            dial = self.route.unbind(&self.hop.outlet, Vec::new());
        }
        dial
    }

    fn connect(&mut self, way: Way) {
        self.note();
        self.hop = Hop::new(way);
        assert!(self.route.bind(&self.hop.outlet), "one stream at a time");
    }

    /// What the stream brought, once.
    fn note(&mut self) {
        let got = self.hop.got();
        assert!(
            got.is_sorted_by(|before, after| before < after),
            "in order, once a stream: {got:?}"
        );
        for number in got {
            assert!(
                !self.answered.contains_key(&number) || self.arrived.contains_key(&number),
                "{number} was answered, then sent"
            );
            *self.arrived.entry(number).or_default() += 1;
            if self.arrived[&number] == 1 {
                assert!(self.newest < Some(number), "{number} came late");
                self.newest = Some(number);
            }
            assert!(self.arrived[&number] <= 2, "{number} was sent a third time");
        }
        self.hop.bytes.clear();
        self.hop.before = self.hop.before.map(|_| 0);
        self.hop.confirmed = 0;
    }

    fn fail(&mut self, batch: Batch) {
        self.route.release(batch.held(), &self.total);
        self.answer(batch);
    }

    fn answer(&mut self, batch: Batch) {
        for (bytes, receipt) in batch.into_stanzas() {
            let text = std::str::from_utf8(&bytes).expect("ASCII");
            let number = text.trim_matches(['<', '>']).parse().expect("a number");
            *self.answered.entry(number).or_default() += 1;
            assert_eq!(self.answered[&number], 1, "one answer");
            receipt.expect("custody").settle();
        }
    }

    fn check(&self) {
        assert_eq!(self.route.held(), self.total.held());
        assert!(self.ledger.settled() <= self.offered);
        if self.route.waiting() == 0 && self.hop.egress.in_custody() == 0 {
            assert_eq!(self.route.held(), 0, "nothing is there, nothing is held");
            assert_eq!(self.ledger.settled(), self.offered, "all is settled");
        }
    }

    /// The last stream takes and confirms all.
    fn finish(&mut self) {
        if !self.route.is_carried_by(&self.hop.outlet) {
            self.connect(Way::Acks);
        } else if !matches!(self.hop.way, Way::Acks) {
            self.die();
            self.connect(Way::Acks);
        }
        self.step(&Step::Take(255));
        while self.route.waiting() > 0 {
            self.step(&Step::Take(255));
        }
        self.write(usize::MAX);
        self.step(&Step::Confirm(255));
        self.note();
        assert_eq!(self.hop.egress.in_custody(), 0);
        assert_eq!((self.route.held(), self.total.held()), (0, 0));
        assert_eq!(self.ledger.settled(), self.offered);
        for number in 0..self.offered {
            assert!(
                self.arrived.contains_key(&number) || self.answered.contains_key(&number),
                "{number} was lost"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Every receipt settles once (the ledger itself refuses a second time), order is kept, nothing
    /// is sent a third time nor after its answer, no memory stays accounted for.
    #[test]
    fn every_stanza_is_delivered_or_answered_in_order_and_once(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}

#[test]
fn an_ack_for_what_was_not_written_yet_is_refused() {
    let mut world = World::new();
    world.step(&Step::Offer(3));
    world.step(&Step::Take(1));
    // Two stanzas of three and a half byte more.
    world.write(7);
    let total = &world.total;
    let egress = &mut world.hop.egress;
    assert!(egress.acked(3, total, world.now).is_err());
    assert!(egress.acked(2, total, world.now).is_ok());
    assert_eq!((egress.in_custody(), world.ledger.settled()), (1, 2));
}

#[test]
fn what_was_written_before_acks_were_agreed_on_is_not_counted_by_them() {
    let mut world = World::new();
    world.die();
    world.connect(Way::Written);
    world.step(&Step::Offer(2));
    world.step(&Step::Take(1));
    world.hop.egress.confirm_by(acks());
    world.step(&Step::Offer(1));
    world.step(&Step::Take(1));
    world.write(usize::MAX);
    assert_eq!(world.ledger.settled(), 2, "written is all these can be");
    let now = world.now;
    assert!(world.hop.egress.acked(2, &world.total, now).is_err());
    assert!(world.hop.egress.acked(1, &world.total, now).is_ok());
    assert_eq!(world.ledger.settled(), 3);
}

#[test]
fn a_peer_that_confirms_nothing_new_is_not_asked_again_at_once() {
    let mut world = World::new();
    world.step(&Step::Offer(2));
    world.step(&Step::Take(1));
    world.write(usize::MAX);
    let now = world.now;
    assert!(world.hop.egress.acked(0, &world.total, now).is_ok());
    assert!(
        world
            .hop
            .egress
            .asks_again()
            .is_some_and(|again| again > now)
    );
    assert!(world.hop.egress.acked(1, &world.total, now).is_ok());
    assert_eq!(world.hop.egress.asks_again(), None);
}

#[test]
fn answers_that_the_peer_does_not_take_stop_the_reading() {
    let mut egress = Egress::default();
    while egress.answers_flow() {
        egress.control(vec![b'x'; 1000]);
    }
    assert!(!egress.is_empty());
    while !egress.is_empty() {
        egress.wrote(egress.front().len());
    }
    assert!(egress.answers_flow());
}
