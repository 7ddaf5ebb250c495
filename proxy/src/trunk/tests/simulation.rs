//! B-14: trunks that end in any state, with real routes and real bytes between the two ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    ack_schedule::TOGETHER,
    machine::{Trunk, TrunkEvent, TrunkStanza},
    nonza::{Activity, EdgeFacts, Enable, Enabled, Nonza, ServerState},
    sending::{ReturnedPair, TrunkEnd},
    turns::TrunkTurns,
    *,
};
use crate::{
    config::trunk_name::{ProductVersion, TrunkName},
    negotiation::{OwnHeader, Side},
    routing::{acknowledgement::AckToken, route::Route, wake::Wake},
    xml::{Element, Item, Limits, Scanner},
};

const QUEUE_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads one direction of a trunk.
struct Wire {
    scanner: Scanner,
    bytes: Vec<u8>,
}

/// What stands there.
enum Read {
    Nonza(Nonza),
    Stanza { from: String, to: String, id: u64 },
    Close,
}

impl Wire {
    fn new() -> Self {
        let header = OwnHeader {
            from: None,
            to: None,
            id: None,
            version: true,
        };
        let mut scanner = Scanner::new(Limits::default());
        let header = header.text();
        let item = scanner.next(header.as_bytes());
        assert!(matches!(item, Ok(Some(Item::Header { .. }))));
        Self {
            scanner,
            bytes: Vec::new(),
        }
    }

    fn next(&mut self) -> Option<Read> {
        let header = Arc::clone(self.scanner.header().expect("read"));
        let item = self.scanner.next(&self.bytes).expect("right XML")?;
        let of = |address: Option<std::borrow::Cow<'_, str>>| {
            let address = address.expect("addressed");
            address.rsplit('@').next().expect("one").to_owned()
        };
        let read = match &item {
            Item::Stanza(stanza) => Read::Stanza {
                from: of(stanza.from.clone()),
                to: of(stanza.to.clone()),
                id: stanza
                    .id
                    .as_deref()
                    .expect("one")
                    .parse()
                    .expect("a number"),
            },
            Item::Other(other) => {
                let element = Element::parse(other.bytes, &header).expect("checked");
                Read::Nonza(Nonza::read(&element).expect("ours"))
            }
            Item::Close { .. } => Read::Close,
            other => panic!("{other:?}"),
        };
        let taken = item.len();
        self.bytes.drain(..taken);
        Some(read)
    }
}

/// One trunk with both its ends. Stanzas go from the sidecar to the edge, acks the other way.
struct SimulatedTrunk {
    wake: Arc<Wake>,
    turns: TrunkTurns,
    source: Trunk<usize>,
    there: Wire,
    back: Wire,
    sink: Trunk<usize>,
    /// What the sink took and has not settled.
    owed: Vec<AckToken>,
    /// Stanzas by pair, as they were taken.
    taken: BTreeMap<usize, Vec<u64>>,
}

impl SimulatedTrunk {
    fn new(window: u64, now: Instant) -> Self {
        let version: ProductVersion = "1.1.0".parse().expect("valid");
        let name = |text: &str| text.parse::<TrunkName>().expect("valid");
        let enable = Enable {
            instance: name("prosody-0"),
            start: Some(7),
            version,
            queue: window,
            claim: None,
            server: ServerState::Up,
        };
        let mut own = Self {
            wake: Arc::default(),
            turns: TrunkTurns::default(),
            source: Trunk::sidecar(enable, QUEUE_TIMEOUT, Arc::default(), now),
            there: Wire::new(),
            back: Wire::new(),
            sink: Trunk::edge(version, QUEUE_TIMEOUT, Arc::default(), now),
            owed: Vec::new(),
            taken: BTreeMap::new(),
        };
        own.write(usize::MAX);
        own.read(now);
        own.sink.welcome(Enabled {
            pool: name("hq"),
            pod: name("hq-0"),
            version,
            queue: window,
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
        });
        own.answer(now);
        own.hear(now);
        assert!(own.source.may_send() && own.sink.may_send());
        own
    }

    fn write(&mut self, most: usize) {
        let buffer = self.source.buffer_mut();
        let count = most.min(buffer.front().len());
        self.there.bytes.extend_from_slice(&buffer.front()[..count]);
        buffer.wrote(count);
    }

    /// The sink reads all that is there.
    fn read(&mut self, now: Instant) {
        while let Some(read) = self.there.next() {
            match read {
                Read::Nonza(nonza) => {
                    let event = self.sink.nonza(nonza, now).expect("right");
                    if let Some(TrunkEvent::Pair(opened)) = event {
                        let number = opened.pair.to.as_str();
                        let number = number.trim_start_matches('x').trim_end_matches(".example");
                        let number = number.parse().expect("a number");
                        self.sink.open(opened, number).expect("a new one");
                    }
                }
                Read::Stanza { from, to, id } => {
                    let taken = self
                        .sink
                        .stanza(&from, &to)
                        .expect("opened, and before a drain");
                    if let TrunkStanza::Taken { pair, number } = taken {
                        let pair = self.sink.pair(pair).expect("opened");
                        self.taken.entry(pair.what).or_default().push(id);
                        self.owed.push(AckToken {
                            ledger: Arc::clone(pair.tracker()),
                            first: number,
                            count: 1,
                        });
                    }
                }
                Read::Close => assert_ne!(self.sink.closed(), Some(TrunkEnd::OutOfOrder)),
            }
        }
    }

    /// The sink tells what it settled, and closes where it is time.
    fn answer(&mut self, now: Instant) {
        self.sink.tick(now).expect("in time");
        self.sink.tick(now + TOGETHER).expect("in time");
        let buffer = self.sink.buffer_mut();
        while !buffer.is_empty() {
            let count = buffer.front().len();
            self.back.bytes.extend_from_slice(buffer.front());
            buffer.wrote(count);
        }
    }

    /// The source reads all that is there, and closes where it is time. `true`: it is over, in order.
    fn hear(&mut self, now: Instant) -> bool {
        while let Some(read) = self.back.next() {
            match read {
                Read::Nonza(nonza) => {
                    self.source.nonza(nonza, now).expect("right");
                }
                Read::Stanza { .. } => panic!("stanzas go the other way"),
                Read::Close => assert_ne!(self.source.closed(), Some(TrunkEnd::OutOfOrder)),
            }
        }
        self.source.tick(now).expect("in time");
        self.source.is_done()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enqueue {
        pair: usize,
        count: u64,
    },
    Fill {
        trunk: usize,
    },
    Write {
        trunk: usize,
        bytes: usize,
    },
    Read {
        trunk: usize,
    },
    Settle {
        trunk: usize,
        which: prop::sample::Index,
    },
    Answer {
        trunk: usize,
    },
    Hear {
        trunk: usize,
    },
    Kill {
        trunk: usize,
        end: TrunkEnd,
    },
    DrainSource {
        trunk: usize,
    },
    DrainSink {
        trunk: usize,
    },
    Move {
        pair: usize,
        trunk: usize,
    },
}

const PAIRS: usize = 3;
const TRUNKS: usize = 2;

struct World {
    router: Arc<Router>,
    _dials: DialRequests,
    routes: Vec<Arc<Route>>,
    ledgers: Vec<Arc<AckTracker>>,
    enqueued: Vec<u64>,
    trunks: Vec<SimulatedTrunk>,
    /// Which trunk each pair takes.
    choice: Vec<usize>,
    window: u64,
    now: Instant,
    /// Of each pair: what each trunk that has ended took, in the order of their ends.
    ended: Vec<Vec<Vec<u64>>>,
    /// How often a stanza was in custody of a trunk that died.
    deaths: BTreeMap<(usize, u64), u32>,
    /// Those of which one of these ends was silent: they go a third time.
    silenced: BTreeSet<(usize, u64)>,
    lost: BTreeSet<(usize, u64)>,
}

impl World {
    fn new(window: u64) -> Self {
        let now = Instant::now();
        let (router, dials) = router();
        let routes: Vec<_> = (0..PAIRS)
            .map(|number| router.route(Side::Partner, &pair(number)))
            .collect();
        let mut world = Self {
            ledgers: (0..PAIRS)
                .map(|_| Arc::new(AckTracker::new(Arc::default())))
                .collect(),
            enqueued: vec![0; PAIRS],
            trunks: (0..TRUNKS)
                .map(|_| SimulatedTrunk::new(window, now))
                .collect(),
            choice: (0..PAIRS).map(|number| number % TRUNKS).collect(),
            window,
            now,
            ended: vec![Vec::new(); PAIRS],
            deaths: BTreeMap::new(),
            silenced: BTreeSet::new(),
            lost: BTreeSet::new(),
            router,
            _dials: dials,
            routes,
        };
        for number in 0..PAIRS {
            world.attach(number);
        }
        world
    }

    fn attach(&mut self, number: usize) {
        let own = &mut self.trunks[self.choice[number]];
        let route = Arc::clone(&self.routes[number]);
        assert!(own.turns.attach(&self.router, &own.wake, route));
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Enqueue { pair, count } => {
                let first = self.enqueued[pair];
                let batch = batch(pair, first, count, Some(&self.ledgers[pair]));
                self.enqueued[pair] += count;
                self.router.enqueue(&self.routes[pair], batch);
            }
            Step::Fill { trunk } => self.fill(trunk),
            Step::Write { trunk, bytes } => self.trunks[trunk].write(bytes),
            Step::Read { trunk } => self.trunks[trunk].read(now),
            Step::Settle { trunk, which } => {
                let owed = &mut self.trunks[trunk].owed;
                if !owed.is_empty() {
                    owed.swap_remove(which.index(owed.len())).settle();
                }
            }
            Step::Answer { trunk } => self.trunks[trunk].answer(now),
            Step::Hear { trunk } => {
                if self.trunks[trunk].hear(now) {
                    self.end(trunk, TrunkEnd::InOrder);
                }
            }
            Step::Kill { trunk, end } => self.end(trunk, end),
            Step::DrainSource { trunk } => self.trunks[trunk].source.drain(now),
            Step::DrainSink { trunk } => self.trunks[trunk].sink.drain(now),
            Step::Move { pair, trunk } => {
                let old = &mut self.trunks[self.choice[pair]];
                let moves = self.choice[pair] != trunk && old.source.may_send();
                let domains = &self.routes[pair].pair;
                if moves && old.source.buffer_mut().leave(domains) {
                    old.turns.leave(&self.router, &old.wake, domains);
                    self.choice[pair] = trunk;
                    self.attach(pair);
                }
            }
        }
    }

    fn fill(&mut self, trunk: usize) {
        let own = &mut self.trunks[trunk];
        if own.source.may_send() {
            let buffer = own.source.buffer_mut();
            own.turns
                .fill(&self.router, &own.wake, buffer, None, self.now, |_| ());
        }
    }

    fn end(&mut self, trunk: usize, end: TrunkEnd) {
        let new = SimulatedTrunk::new(self.window, self.now);
        let mut own = std::mem::replace(&mut self.trunks[trunk], new);
        let mut returned = BTreeMap::new();
        for back in own.source.hand_back(end, self.now) {
            let number = self
                .routes
                .iter()
                .position(|it| Arc::ptr_eq(it, &back.route));
            returned.insert(number.expect("ours"), back);
        }
        assert_eq!(own.source.buffer().custody(), Default::default());
        let carried = own.turns.end().len();
        let chosen = self.choice.iter().filter(|choice| **choice == trunk);
        assert_eq!(carried, chosen.count());
        for number in 0..PAIRS {
            if self.choice[number] != trunk {
                continue;
            }
            let again = match returned.remove(&number) {
                Some(back) => self.assert_returned(number, end, back),
                None => Vec::new(),
            };
            let taken = own.taken.remove(&number).unwrap_or_default();
            self.ended[number].push(taken);
            self.router.detach(&self.routes[number], &own.wake, again);
            self.attach(number);
        }
        for (number, back) in returned {
            assert!(
                back.again.is_empty() && back.lost.is_empty(),
                "{number} had moved"
            );
        }
        // What a pair left there before it moved.
        for (number, taken) in own.taken {
            self.ended[number].push(taken);
        }
    }

    /// Exactly what is unacknowledged comes back, in order.
    fn assert_returned(&mut self, number: usize, end: TrunkEnd, back: ReturnedPair) -> Vec<Batch> {
        let ids = |batches: &[Batch]| -> Vec<u64> {
            let texts = batches.iter().map(|batch| batch.unsettled());
            texts.flat_map(|bytes| ids_of(&bytes)).collect()
        };
        let (again, lost) = (ids(&back.again), ids(&back.lost));
        let mut all: Vec<u64> = again.iter().chain(&lost).copied().collect();
        all.sort_unstable();
        let lost_before = |id: &u64| self.lost.contains(&(number, *id));
        let first = (0..).find(|id| *id >= self.ledgers[number].settled() && !lost_before(id));
        let first = first.expect("there are numbers enough");
        let expected: Vec<u64> = (first..first + all.len() as u64).collect();
        assert_eq!(all, expected, "unacknowledged of pair {number}");
        assert!(again.is_sorted(), "{again:?}");
        for id in again.iter().chain(&lost) {
            if end != TrunkEnd::InOrder {
                *self.deaths.entry((number, *id)).or_default() += 1;
            }
            if end == TrunkEnd::Silent {
                self.silenced.insert((number, *id));
            }
        }
        for id in lost {
            let least = match end {
                TrunkEnd::InOrder => panic!("what was not taken is not lost"),
                TrunkEnd::OutOfOrder => 2,
                TrunkEnd::Silent => 3,
            };
            let deaths = self.deaths[&(number, id)];
            assert!(deaths >= least, "{id} was sent {deaths} times, {end:?}");
            self.lost.insert((number, id));
        }
        // As if the senders had their answers.
        back.lost.into_iter().for_each(Batch::settle);
        back.again
    }

    /// Everything that can arrive does.
    fn settle(&mut self) {
        for _ in 0..200 {
            for trunk in 0..TRUNKS {
                self.fill(trunk);
                while !self.trunks[trunk].source.buffer().is_empty() {
                    self.trunks[trunk].write(usize::MAX);
                }
                let own = &mut self.trunks[trunk];
                own.read(self.now);
                own.owed.drain(..).rev().for_each(AckToken::settle);
                own.answer(self.now);
                if own.hear(self.now) {
                    self.end(trunk, TrunkEnd::InOrder);
                }
            }
            let is_done =
                (0..PAIRS).all(|number| self.ledgers[number].settled() == self.enqueued[number]);
            let all_open = self.trunks.iter().all(|own| own.source.may_send());
            if is_done && all_open {
                return;
            }
        }
        panic!("something never arrives");
    }

    fn assert_all_arrived(&self) {
        for number in 0..PAIRS {
            let mut by_trunk = self.ended[number].clone();
            let open = self.trunks.iter().filter_map(|own| own.taken.get(&number));
            by_trunk.extend(open.cloned());
            let mut often = BTreeMap::new();
            for taken in &by_trunk {
                assert!(
                    taken.is_sorted_by(|a, b| a < b),
                    "order on one trunk: {taken:?}"
                );
                for id in taken {
                    *often.entry(*id).or_insert(0_u32) += 1;
                }
            }
            for id in 0..self.enqueued[number] {
                let deaths = self.deaths.get(&(number, id)).copied().unwrap_or_default();
                let often = often.get(&id).copied().unwrap_or_default();
                let is_lost = self.lost.contains(&(number, id));
                assert!(often >= 1 || is_lost, "pair {number}: {id} never arrived");
                let most = 2 + u32::from(self.silenced.contains(&(number, id)));
                assert!(often <= most, "pair {number}: {id} arrived {often} times");
                assert!(
                    often <= 1 + deaths,
                    "pair {number}: {id} arrived {often} times"
                );
            }
            assert_eq!(self.routes[number].held(), 0, "memory of pair {number}");
        }
    }
}

fn ids_of(bytes: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let ids = text.split("id='").skip(1);
    let ids = ids.map(|rest| {
        rest.split('\'')
            .next()
            .expect("one")
            .parse()
            .expect("a number")
    });
    ids.collect()
}

fn steps(kills: bool) -> impl Strategy<Value = Vec<Step>> {
    let trunk = 0..TRUNKS;
    let pair = 0..PAIRS;
    let step = prop_oneof![
        6 => (pair.clone(), 1_u64..5).prop_map(|(pair, count)| Step::Enqueue { pair, count }),
        4 => trunk.clone().prop_map(|trunk| Step::Fill { trunk }),
        6 => (trunk.clone(), prop_oneof![1_usize..300, Just(usize::MAX)])
            .prop_map(|(trunk, bytes)| Step::Write { trunk, bytes }),
        4 => trunk.clone().prop_map(|trunk| Step::Read { trunk }),
        6 => (trunk.clone(), any::<prop::sample::Index>())
            .prop_map(|(trunk, which)| Step::Settle { trunk, which }),
        4 => trunk.clone().prop_map(|trunk| Step::Answer { trunk }),
        4 => trunk.clone().prop_map(|trunk| Step::Hear { trunk }),
        2 => (trunk.clone(), any::<bool>()).prop_map(move |(trunk, silent)| match (kills, silent) {
            (true, true) => Step::Kill { trunk, end: TrunkEnd::Silent },
            (true, false) => Step::Kill { trunk, end: TrunkEnd::OutOfOrder },
            (false, _) => Step::Hear { trunk },
        }),
        1 => trunk.clone().prop_map(|trunk| Step::DrainSource { trunk }),
        1 => trunk.clone().prop_map(|trunk| Step::DrainSink { trunk }),
        2 => (pair, trunk).prop_map(|(pair, trunk)| Step::Move { pair, trunk }),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    /// B-14.
    #[test]
    fn exactly_what_each_pair_has_unacknowledged_goes_again_in_order_once(
        window in prop_oneof![Just(1_u64), 100_u64..2_000],
        steps in steps(true),
    ) {
        let mut world = World::new(window);
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.assert_all_arrived();
    }

    /// B-26, B-28: drains and moves alone.
    #[test]
    fn where_trunks_are_drained_everything_arrives_once_and_nothing_is_lost(
        window in prop_oneof![Just(1_u64), 100_u64..2_000],
        steps in steps(false),
    ) {
        let mut world = World::new(window);
        for step in steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(world.lost.is_empty() && world.deaths.is_empty());
        world.assert_all_arrived();
    }
}
