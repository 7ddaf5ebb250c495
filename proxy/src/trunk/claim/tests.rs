use std::collections::{BTreeMap, VecDeque};

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::config::trunk_name::TrunkName;

fn name(number: usize) -> TrunkName {
    format!("prosody-{number}").parse().expect("valid")
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("in range")
}

fn said(is_active: bool, claim: Option<i64>) -> Activity {
    Activity {
        is_active,
        claim: claim.map(time),
    }
}

#[test]
fn the_oldest_claim_is_active_then_the_lower_instance() {
    let mut edge = Claimants::default();
    assert!(edge.activity(&name(0)).is_active, "it would be");
    edge.claims(name(2), Some(time(5)));
    edge.claims(name(1), Some(time(5)));
    edge.claims(name(0), Some(time(6)));
    edge.claims(name(3), None);
    assert_eq!(edge.active(), Some(&name(1)));
    assert_eq!(edge.activity(&name(3)), said(false, None));
    assert_eq!(edge.activity(&name(0)), said(false, Some(6)));
    edge.gone(&name(1));
    assert_eq!(edge.active(), Some(&name(2)));
    edge.claims(name(2), None);
    edge.gone(&name(0));
    assert_eq!(edge.active(), None);
    assert!(edge.activity(&name(3)).is_active);
}

#[test]
fn who_is_inactive_at_any_edge_claims_at_none() {
    let mut own = OwnClaim::default();
    assert_eq!(own.opening('a', time(1)), Some(time(1)));
    assert_eq!(
        own.opening('b', time(2)),
        Some(time(1)),
        "of its first trunk"
    );
    assert!(!own.told('a', said(true, Some(1)), time(3)));
    assert!(own.told('b', said(false, Some(1)), time(4)));
    assert_eq!(own.opening('c', time(5)), None);
    assert!(
        !own.told('b', said(true, None), time(6)),
        "a has not answered"
    );
    assert!(own.told('a', said(true, None), time(6)));
    assert_eq!(own.claim(), Some(time(6)));
    assert!(
        !own.told('b', said(false, None), time(7)),
        "of what it said before"
    );
    assert!(!own.told('a', said(true, Some(6)), time(7)));
    assert!(own.told('b', said(false, Some(6)), time(7)));
    assert!(!own.told('a', said(true, None), time(7)));
    assert!(
        own.gone(&'b', time(8)),
        "the edge that knew another is gone"
    );
    assert!(!own.gone(&'a', time(9)), "c is being opened");
    assert!(own.gone(&'c', time(9)));
    assert_eq!(own.claim(), None);
    assert_eq!(own.opening('a', time(10)), Some(time(10)));
}

/// A trunk of the simulation: what is on its way, and who of the two has noticed its end.
#[derive(Debug, Default)]
struct Link {
    to_edge: VecDeque<Option<Timestamp>>,
    to_sidecar: VecDeque<Activity>,
    is_cut: bool,
    edge_noticed: bool,
    sidecar_noticed: bool,
}

/// One end of one possible link.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Connect,
    Cut,
    /// Whoever has something to hear, or to notice, does.
    EdgeHears,
    SidecarHears,
}

struct Simulation {
    sidecars: Vec<OwnClaim<usize>>,
    /// Of each sidecar's clock, in seconds.
    skews: Vec<i64>,
    edges: Vec<Claimants<TrunkName>>,
    /// What an edge told each sidecar last.
    told: BTreeMap<(usize, usize), Activity>,
    links: BTreeMap<(usize, usize), Link>,
    clock: i64,
}

impl Simulation {
    fn new(sidecars: usize, edges: usize, skews: Vec<i64>) -> Self {
        Self {
            sidecars: (0..sidecars).map(|_| OwnClaim::default()).collect(),
            skews,
            edges: (0..edges).map(|_| Claimants::default()).collect(),
            told: BTreeMap::new(),
            links: BTreeMap::new(),
            clock: 0,
        }
    }

    fn now(&self, sidecar: usize) -> Timestamp {
        time(self.clock) + SignedDuration::from_secs(self.skews[sidecar])
    }

    fn happens(&mut self, at: (usize, usize), event: Happens) {
        self.clock += 1;
        let (sidecar, edge) = at;
        let now = self.now(sidecar);
        match event {
            Happens::Connect => {
                if let std::collections::btree_map::Entry::Vacant(entry) = self.links.entry(at) {
                    let claim = self.sidecars[sidecar].opening(edge, now);
                    entry.insert(Link::default()).to_edge.push_back(claim);
                }
            }
            Happens::Cut => {
                if let Some(link) = self.links.get_mut(&at) {
                    link.is_cut = true;
                }
            }
            Happens::EdgeHears => {
                let Some(link) = self.links.get_mut(&at) else {
                    return;
                };
                if link.is_cut {
                    link.edge_noticed = true;
                    self.edges[edge].gone(&name(sidecar));
                    self.told.remove(&at);
                } else if let Some(claim) = link.to_edge.pop_front() {
                    self.edges[edge].claims(name(sidecar), claim);
                }
                self.edge_tells(edge);
            }
            Happens::SidecarHears => {
                let Some(link) = self.links.get_mut(&at) else {
                    return;
                };
                let own = &mut self.sidecars[sidecar];
                let changed = if link.is_cut {
                    !std::mem::replace(&mut link.sidecar_noticed, true) && own.gone(&edge, now)
                } else if let Some(activity) = link.to_sidecar.pop_front() {
                    own.told(edge, activity, now)
                } else {
                    false
                };
                if changed {
                    self.sidecar_tells(sidecar);
                }
            }
        }
        self.links
            .retain(|_, link| !(link.edge_noticed && link.sidecar_noticed));
    }

    fn edge_tells(&mut self, edge: usize) {
        for sidecar in 0..self.sidecars.len() {
            let is_known = self.edges[edge].sidecars().any(|own| *own == name(sidecar));
            let activity = self.edges[edge].activity(&name(sidecar));
            if is_known
                && let Some(link) = self.links.get_mut(&(sidecar, edge))
                && self.told.insert((sidecar, edge), activity) != Some(activity)
            {
                link.to_sidecar.push_back(activity);
            }
        }
    }

    fn sidecar_tells(&mut self, sidecar: usize) {
        let claim = self.sidecars[sidecar].claim();
        for ((own, _), link) in &mut self.links {
            if *own == sidecar && !link.sidecar_noticed {
                link.to_edge.push_back(claim);
            }
        }
    }

    /// All that is on its way arrives.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let next = self.links.iter().find_map(|(at, link)| {
                if link.is_cut {
                    let event = if link.edge_noticed {
                        Happens::SidecarHears
                    } else {
                        Happens::EdgeHears
                    };
                    return Some((*at, event));
                }
                let hears = |waits, event| if waits { Some((*at, event)) } else { None };
                hears(!link.to_edge.is_empty(), Happens::EdgeHears)
                    .or_else(|| hears(!link.to_sidecar.is_empty(), Happens::SidecarHears))
            });
            let Some((at, event)) = next else { return };
            self.happens(at, event);
        }
        panic!("they never agree: {:?}", self.links);
    }

    /// No sidecar is active at one edge while another is at an edge that it reaches too.
    fn assert_agreed(&self) {
        for (one, known) in self.edges.iter().enumerate() {
            for (other, edge) in self.edges.iter().enumerate() {
                let (Some(active), Some(elsewhere)) = (known.active(), edge.active()) else {
                    continue;
                };
                let reaches_both = edge.sidecars().any(|own| own == active);
                assert!(
                    active == elsewhere || !reaches_both,
                    "{active} is active at {one}, {elsewhere} at {other}, which {active} reaches"
                );
            }
        }
    }

    /// Who is active, where all edges agree.
    fn active_everywhere(&self) -> Option<TrunkName> {
        let first = self.edges[0].active().cloned();
        let agree = self
            .edges
            .iter()
            .all(|edge| edge.active() == first.as_ref());
        assert!(agree, "{:?}", self.edges);
        first
    }
}

proptest! {
    /// B-34: links cut at random, noticed late by either end, clocks apart.
    #[test]
    fn connected_edges_agree_on_the_one_that_is_active(
        sidecars in 2_usize..4,
        edges in 2_usize..4,
        skews in prop::collection::vec(-5_i64..5, 3),
        events in prop::collection::vec((any::<u8>(), any::<u8>(), 0_u8..8), 0..120),
    ) {
        let mut world = Simulation::new(sidecars, edges, skews);
        for (sidecar, edge, event) in events {
            let at = (usize::from(sidecar) % sidecars, usize::from(edge) % edges);
            world.happens(at, match event {
                0 | 1 => Happens::Connect,
                2 => Happens::Cut,
                3..=5 => Happens::EdgeHears,
                _ => Happens::SidecarHears,
            });
        }
        world.settle();
        world.assert_agreed();
        for sidecar in 0..sidecars {
            for edge in 0..edges {
                world.happens((sidecar, edge), Happens::Connect);
            }
        }
        world.settle();
        world.assert_agreed();
        let active = world.active_everywhere();
        prop_assert!(active.is_some(), "all are connected: {:?}", world.edges);
        // Its pod goes: another takes over everywhere.
        let gone = (0..sidecars).find(|own| Some(name(*own)) == active).expect("one of them");
        for edge in 0..edges {
            world.happens((gone, edge), Happens::Cut);
        }
        world.settle();
        let next = world.active_everywhere();
        prop_assert!(next.is_some() && next != active, "{next:?} after {active:?}");
    }
}
