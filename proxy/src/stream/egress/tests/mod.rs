//! Custody, as a model: stanzas of several pairs go through their routes to a series of streams, one
//! after the other and each shared by all, that die; and a next hop that takes, confirms, lies or says
//! nothing.

mod counts;
mod culprit;

use std::collections::BTreeMap;

use proptest::prelude::*;
use xmpp_edge_crds::domain::DomainName;

use super::*;
use crate::{
    negotiation::{Pair, Side, acks::Namespace},
    routing::{
        acknowledgement::AckTracker,
        batch::BatchBuilder,
        budget::{MemoryBudget, RouteOwner},
        failure::{Failure, FailureKind},
        route::{AfterFailure, ConnectNumber, EnqueueOutcome, Queued},
        wake::Wake,
    },
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
    /// A read brought so many stanzas of this pair.
    Enqueue(u8, u8),
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
    /// This pair becomes forbidden: that ends the stream, and another is set up for the others.
    Forbid(u8),
}

/// Pairs that share the stream.
const LANES: u8 = 3;

fn step() -> impl Strategy<Value = Step> {
    let way = prop_oneof![
        Just(Way::Written),
        Just(Way::Acks),
        Just(Way::LateAcks),
        Just(Way::Probe)
    ];
    prop_oneof![
        6 => (0..LANES, 1_u8..6).prop_map(|(lane, count)| Step::Enqueue(lane, count)),
        6 => (1_u8..4).prop_map(Step::Take),
        6 => (1_u16..400).prop_map(Step::Write),
        4 => any::<u8>().prop_map(Step::Confirm),
        1 => any::<u8>().prop_map(Step::Lie),
        3 => way.prop_map(Step::Die),
        1 => Just(Step::Fail),
        1 => Just(Step::Expire),
        1 => (0..LANES).prop_map(Step::Forbid),
    ]
}

/// A stream with the next hop at its other end.
struct Hop {
    wake: Arc<Wake>,
    egress: SendBuffer,
    way: Way,
    /// What came, whole or not.
    bytes: Vec<u8>,
    /// Stanzas before acks were agreed on, where they were agreed on late.
    before: Option<usize>,
    confirmed: usize,
}

impl Hop {
    fn new(way: Way) -> Self {
        let mut egress = SendBuffer::default();
        match way {
            Way::Acks => egress.confirm_by(acks()),
            Way::Probe => egress.probe_by(ProbeKind::Dialback),
            Way::Written | Way::LateAcks => {}
        }
        Self {
            wake: Arc::default(),
            egress,
            way,
            bytes: Vec::new(),
            before: None,
            confirmed: 0,
        }
    }

    /// Pair and number of the stanzas that came whole, in order.
    fn got(&self) -> Vec<(usize, u64)> {
        let text = std::str::from_utf8(&self.bytes).expect("ASCII");
        let whole = text.rfind('>').map_or("", |end| &text[..=end]);
        whole.split_inclusive('>').map(read).collect()
    }
}

/// Pair and number of a stanza.
fn read(stanza: &str) -> (usize, u64) {
    let inner = stanza.trim_matches(['<', '>']);
    let (lane, number) = inner.split_once('-').expect("one of ours");
    (
        lane.parse().expect("a pair"),
        number.parse().expect("a number"),
    )
}

fn acks() -> Confirmation {
    Confirmation::Acks {
        acks: Acks::new(Namespace::Sm3),
        asked: None,
        again: None,
    }
}

/// One pair, and what became of its stanzas.
struct Lane {
    route: Arc<Route>,
    ledger: Arc<AckTracker>,
    offered: u64,
    /// How often each stanza arrived, streams before the one at hand.
    arrived: BTreeMap<u64, u32>,
    newest: Option<u64>,
    answered: BTreeMap<u64, u32>,
    /// Of the task that was to set a stream up last.
    dial: ConnectNumber,
}

impl Lane {
    fn new(number: u8, total: &MemoryBudget) -> Self {
        let domain = |name: &str| DomainName::parse(name).expect("valid");
        let pair = Pair {
            from: domain(&format!("partner{number}.example")),
            to: domain("org.example"),
        };
        Self {
            route: Arc::new(Route::new(
                pair,
                Side::Partner,
                RouteOwner {
                    share: total.share(None),
                    is_made_up: false,
                },
            )),
            ledger: Arc::new(AckTracker::new(Arc::default())),
            offered: 0,
            arrived: BTreeMap::new(),
            newest: None,
            answered: BTreeMap::new(),
            dial: ConnectNumber::default(),
        }
    }

    fn answer_all(&mut self, failed: Vec<Queued>) {
        for queued in failed {
            let Queued::Stanzas(batch) = queued else {
                panic!("nothing is answered here");
            };
            self.answer(batch);
        }
    }

    fn answer(&mut self, mut batch: Batch) {
        while let Some((bytes, receipt)) = batch.take_first() {
            let (_, number) = read(std::str::from_utf8(&bytes).expect("ASCII"));
            *self.answered.entry(number).or_default() += 1;
            assert_eq!(self.answered[&number], 1, "one answer");
            receipt.expect("custody").settle();
        }
    }

    fn note(&mut self, got: &[u64]) {
        assert!(
            got.is_sorted_by(|before, after| before < after),
            "in order, once a stream: {got:?}"
        );
        for number in got {
            assert!(
                !self.answered.contains_key(number) || self.arrived.contains_key(number),
                "{number} was answered, then sent"
            );
            *self.arrived.entry(*number).or_default() += 1;
            if self.arrived[number] == 1 {
                assert!(self.newest < Some(*number), "{number} came late");
                self.newest = Some(*number);
            }
            assert!(self.arrived[number] <= 2, "{number} was sent a third time");
        }
    }
}

struct World {
    lanes: Vec<Lane>,
    total: MemoryBudget,
    hop: Hop,
    /// Whose turn it was last.
    turn: usize,
    now: Instant,
    failure: Failure,
}

impl World {
    /// All pairs on one stream.
    fn new() -> Self {
        let total = MemoryBudget::default();
        let world = Self {
            lanes: (0..LANES).map(|number| Lane::new(number, &total)).collect(),
            total,
            hop: Hop::new(Way::Acks),
            turn: 0,
            now: Instant::now(),
            failure: Failure::new(FailureKind::Refused, "model"),
        };
        for lane in &world.lanes {
            assert!(lane.route.attach(&world.hop.wake, 0).is_some());
        }
        world
    }

    fn step(&mut self, step: &Step) {
        self.now += Duration::from_millis(10);
        match step {
            Step::Enqueue(lane, count) => self.offer(usize::from(*lane), *count),
            Step::Take(count) => {
                for _ in 0..*count {
                    // In turns, as the stream does.
                    for _ in 0..self.lanes.len() {
                        self.turn = (self.turn + 1) % self.lanes.len();
                        let route = &self.lanes[self.turn].route;
                        let window = self.hop.egress.window();
                        if let Some(Queued::Stanzas(batch)) = route.dequeue(&self.hop.wake, window)
                        {
                            self.hop.egress.send(route, batch, self.now);
                            break;
                        }
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
            Step::Confirm(part) => self.confirm(usize::from(*part)),
            Step::Lie(more) => {
                let h = u32::try_from(self.hop.confirmed).expect("few") + 1_000 + u32::from(*more);
                if let Confirmation::Acks { .. } = self.hop.egress.confirmation() {
                    let lie = self.hop.egress.acked(h, self.now);
                    assert!(lie.is_err(), "more than was written is not taken");
                    // All that was written counts: the peer has it.
                    let got = self.hop.got().len();
                    let counted = got.saturating_sub(self.hop.before.unwrap_or(0));
                    self.hop.confirmed = self.hop.confirmed.max(counted);
                }
                self.hop.egress.probe_answered(u64::from(h));
            }
            Step::Die(way) => {
                self.die();
                self.connect(*way);
            }
            Step::Fail => {
                self.die();
                self.note();
                self.hop = Hop::new(Way::Acks);
                for lane in &mut self.lanes {
                    let (dial, now) = (lane.dial, self.now);
                    let after = lane.route.failed(dial, &self.failure, now, None, 0.0);
                    if let AfterFailure::BackOff { failed, .. } = after {
                        lane.answer_all(failed);
                    }
                }
                self.now += Duration::from_millis(300);
            }
            Step::Expire => {
                for lane in &mut self.lanes {
                    let expired = lane.route.expired(self.now, Duration::from_millis(40));
                    lane.answer_all(expired);
                }
            }
            Step::Forbid(forbidden) => {
                self.die();
                let lane = &mut self.lanes[usize::from(*forbidden)];
                let drained = lane.route.drain();
                lane.answer_all(drained);
                assert!(lane.route.stop_dialling_if_empty(lane.dial));
                self.connect(Way::Acks);
            }
        }
        self.check();
    }

    fn offer(&mut self, at: usize, count: u8) {
        let lane = &mut self.lanes[at];
        let mut builder = BatchBuilder::default();
        for _ in 0..count {
            let number = lane.offered;
            lane.offered += 1;
            builder.add(number, 8, |out| {
                out.extend(format!("<{at}-{number}>").bytes());
            });
        }
        let batch = builder.take(Some(&lane.ledger), self.now).expect("some");
        match lane.route.enqueue(Queued::Stanzas(batch), self.now) {
            EnqueueOutcome::Queued { .. } => {}
            // It joins the stream that carries the others.
            EnqueueOutcome::Dial { .. } => {
                assert!(lane.route.attach(&self.hop.wake, 0).is_some());
            }
            EnqueueOutcome::Refused { queued, .. } | EnqueueOutcome::Crowded { queued } => {
                lane.answer_all(vec![queued]);
            }
        }
    }

    fn confirm(&mut self, part: usize) {
        let got = self.hop.got().len();
        let covers = self.hop.egress.in_custody();
        match self.hop.egress.confirmation_mut() {
            Confirmation::Written => {}
            Confirmation::Acks { .. } => {
                let counted = got.saturating_sub(self.hop.before.unwrap_or(0));
                let fresh = counted.saturating_sub(self.hop.confirmed);
                self.hop.confirmed += fresh * part / 255;
                let h = u32::try_from(self.hop.confirmed).expect("few");
                self.hop
                    .egress
                    .acked(h, self.now)
                    .expect("a right count is taken");
            }
            Confirmation::Probe { next, asked, .. } => {
                // At once, whether all that it covers was written or not.
                *next += 1;
                *asked = Some((*next, covers, self.now));
                let number = *next;
                self.hop.egress.probe_answered(number);
            }
        }
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
        self.hop.egress.flushed();
    }

    /// What `Stream` does when a stream ends.
    fn die(&mut self) {
        self.note();
        let mut handed: Vec<_> = self.hop.egress.hand_back(Blame::Nothing, self.now);
        for lane in &mut self.lanes {
            let own = |back: &Returned| Arc::ptr_eq(&back.route, &lane.route);
            let again = match handed.iter().position(own) {
                Some(at) => {
                    let back = handed.swap_remove(at);
                    for batch in back.lost {
                        lane.answer(batch);
                    }
                    back.again
                }
                None => Vec::new(),
            };
            let dial = lane.route.detach(&self.hop.wake, again);
            assert!(dial.is_none() || lane.route.waiting() > 0);
            lane.dial = dial.map_or(lane.dial, |dial| dial.number);
        }
        assert!(handed.is_empty(), "each pair gets its own");
    }

    /// A stream for those that wait; others join it when they have something.
    fn connect(&mut self, way: Way) {
        self.note();
        self.hop = Hop::new(way);
        for lane in &self.lanes {
            if lane.route.is_dialling(lane.dial) {
                assert!(
                    lane.route.attach(&self.hop.wake, 0).is_some(),
                    "one stream at a time"
                );
            }
        }
    }

    /// What the stream brought, once.
    fn note(&mut self) {
        let got = self.hop.got();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let own = got.iter().filter(|(lane, _)| *lane == at);
            let numbers: Vec<_> = own.map(|(_, number)| *number).collect();
            lane.note(&numbers);
        }
        self.hop.bytes.clear();
        self.hop.before = self.hop.before.map(|_| 0);
        self.hop.confirmed = 0;
    }

    fn check(&self) {
        let held: usize = self.lanes.iter().map(|lane| lane.route.held()).sum();
        assert_eq!(held, self.total.held());
        let in_custody = self.hop.egress.in_custody();
        for lane in &self.lanes {
            assert!(lane.ledger.settled() <= lane.offered);
            if lane.route.waiting() == 0 && in_custody == 0 {
                assert_eq!(lane.route.held(), 0, "nothing is there, nothing is held");
                assert_eq!(lane.ledger.settled(), lane.offered, "all is settled");
            }
        }
    }

    fn waiting(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.route.waiting()).sum()
    }

    /// The last stream takes and confirms all.
    fn finish(&mut self) {
        self.die();
        self.connect(Way::Acks);
        while self.waiting() > 0 {
            self.step(&Step::Take(255));
        }
        self.write(usize::MAX);
        self.step(&Step::Confirm(255));
        self.note();
        assert_eq!(self.hop.egress.in_custody(), 0);
        assert_eq!(self.total.held(), 0);
        for lane in &self.lanes {
            assert_eq!(lane.ledger.settled(), lane.offered);
            for number in 0..lane.offered {
                assert!(
                    lane.arrived.contains_key(&number) || lane.answered.contains_key(&number),
                    "{number} was lost"
                );
            }
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
fn a_peer_that_confirms_nothing_new_is_not_asked_again_at_once() {
    let mut world = World::new();
    world.step(&Step::Enqueue(0, 2));
    world.step(&Step::Take(1));
    world.write(usize::MAX);
    let now = world.now;
    assert!(world.hop.egress.acked(0, now).is_ok());
    assert!(
        world
            .hop
            .egress
            .asks_again()
            .is_some_and(|again| again > now)
    );
    assert!(world.hop.egress.acked(1, now).is_ok());
    assert_eq!(world.hop.egress.asks_again(), None);
}

#[test]
fn answers_that_the_peer_does_not_take_stop_the_reading() {
    let mut egress = SendBuffer::default();
    while egress.answers_flow() {
        egress.control(vec![b'x'; 1000]);
    }
    assert!(!egress.is_empty());
    while !egress.is_empty() {
        egress.wrote(egress.front().len());
    }
    assert!(egress.answers_flow());
}

#[test]
fn acks_of_a_shared_stream_count_over_its_pairs_in_the_order_of_writing() {
    let mut world = World::new();
    for (lane, count) in [(0, 2), (1, 2), (0, 1)] {
        world.step(&Step::Enqueue(lane, count));
        world.turn = usize::from(lane + LANES - 1) % usize::from(LANES);
        world.step(&Step::Take(1));
    }
    world.write(usize::MAX);
    let got = world.hop.got();
    assert_eq!(got, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]);
    let now = world.now;
    assert!(world.hop.egress.acked(3, now).is_ok());
    let settled = |lane: usize| world.lanes[lane].ledger.settled();
    assert_eq!((settled(0), settled(1)), (2, 1));
    world.die();
    let waiting = |lane: usize| world.lanes[lane].route.waiting();
    assert_eq!(
        (waiting(0), waiting(1)),
        (1, 1),
        "each goes back to its own"
    );
}

#[test]
fn what_no_byte_was_written_of_counts_as_not_sent() {
    for (written, sendings) in [(0, 0), (1, 1)] {
        let mut world = World::new();
        world.step(&Step::Enqueue(0, 1));
        world.step(&Step::Take(1));
        world.write(written);
        let handed = world.hop.egress.hand_back(Blame::Nothing, world.now);
        let again: Vec<_> = handed.iter().flat_map(|own| &own.again).collect();
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].sendings, sendings, "{written} bytes written");
    }
}
