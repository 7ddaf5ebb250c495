//! Which trunk a pair takes: by priority and weight as of SRV records, and the same for all pairs of one
//! partner, by weighted rendezvous hashing: where a trunk comes or goes, only its own partners move.

use std::cmp::Ordering;

use aws_lc_rs::digest;
use xmpp_edge_crds::domain::DomainName;

use super::nonza::EdgeFacts;
use crate::config::trunk_name::TrunkName;

/// An edge pod to which a sidecar has a trunk.
#[derive(Clone, Copy, Debug)]
pub struct EdgeChoice<'a> {
    pub pool: &'a TrunkName,
    pub pod: &'a TrunkName,
    pub facts: &'a EdgeFacts,
}

/// The index of the edge that what goes out to `partner` takes: of the lowest priority, those that are
/// withdrawn last; among equals by hash. `None` where there is none.
#[must_use]
pub fn choose_edge<'a>(
    partner: &DomainName,
    edges: impl IntoIterator<Item = EdgeChoice<'a>>,
) -> Option<usize> {
    let ranked = edges.into_iter().enumerate().map(|(index, edge)| {
        let rank = (edge.facts.is_withdrawn, edge.facts.priority);
        let hash = Rendezvous::new(partner, [edge.pool, edge.pod], edge.facts.weight);
        (rank, hash, index)
    });
    let best = ranked.min_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    best.map(|(_, _, index)| index)
}

/// The index of the sidecar that what comes in from `partner` takes, of several that are active.
#[must_use]
pub fn choose_sidecar<'a>(
    partner: &DomainName,
    instances: impl IntoIterator<Item = &'a TrunkName>,
) -> Option<usize> {
    let ranked = instances.into_iter().enumerate();
    let ranked = ranked.map(|(index, name)| (Rendezvous::new(partner, [name], 1), index));
    let best = ranked.min_by(|a, b| a.0.cmp(&b.0));
    best.map(|(_, index)| index)
}

/// How well a name fits a partner: the least is taken.
#[derive(Debug)]
struct Rendezvous<'a, const NAMES: usize> {
    /// Exponentially distributed with the weight as its rate: the least of several is each one's in
    /// proportion to its weight.
    distance: f64,
    /// Decides where two are equal, as all of weight 0 are.
    names: [&'a TrunkName; NAMES],
}

impl<'a, const NAMES: usize> Rendezvous<'a, NAMES> {
    fn new(partner: &DomainName, names: [&'a TrunkName; NAMES], weight: u16) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(partner.as_str().as_bytes());
        for name in names {
            // No name contains it.
            hash.update(b"\0");
            hash.update(name.as_str().as_bytes());
        }
        let hash = hash.finish();
        let (first, _) = hash.as_ref().split_first_chunk().unwrap_or((&[0; 4], &[]));
        // Within 0 and 1, neither included.
        let unit = (f64::from(u32::from_be_bytes(*first)) + 0.5) / (f64::from(u32::MAX) + 1.0);
        Self {
            distance: -unit.ln() / f64::from(weight),
            names,
        }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        self.distance
            .total_cmp(&other.distance)
            .then_with(|| self.names.cmp(&other.names))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn facts(priority: u16, weight: u16, is_withdrawn: bool) -> EdgeFacts {
        EdgeFacts {
            priority,
            weight,
            is_withdrawn,
            replicas: 1,
        }
    }

    fn partner(number: u32) -> DomainName {
        DomainName::parse(&format!("x{number}.example")).expect("valid")
    }

    fn pod(number: usize) -> TrunkName {
        format!("hq-{number}").parse().expect("valid")
    }

    fn chosen(partner: &DomainName, edges: &[(TrunkName, EdgeFacts)]) -> Option<usize> {
        let pool = "hq".parse().expect("valid");
        let edges = edges.iter().map(|(pod, facts)| EdgeChoice {
            pool: &pool,
            pod,
            facts,
        });
        choose_edge(partner, edges)
    }

    #[test]
    fn priority_is_first_and_the_withdrawn_are_last() {
        let one = partner(1);
        let cases = [
            (vec![], None),
            (vec![(10, 100, false), (20, 100, false)], Some(0)),
            (vec![(20, 100, false), (10, 0, false)], Some(1)),
            (vec![(10, 100, true), (20, 100, false)], Some(1)),
            (vec![(20, 100, true), (10, 100, true)], Some(1)),
        ];
        for (edges, expected) in cases {
            let named: Vec<_> = edges
                .iter()
                .enumerate()
                .map(|(number, (priority, weight, withdrawn))| {
                    (pod(number), facts(*priority, *weight, *withdrawn))
                })
                .collect();
            assert_eq!(chosen(&one, &named), expected, "{edges:?}");
        }
    }

    #[test]
    fn pods_of_two_pools_that_are_called_alike_share_partners_out() {
        let pools: [TrunkName; 2] = ["edge", "edge-b"].map(|pool| pool.parse().expect("valid"));
        let (pod, facts) = (pod(0), facts(10, 100, false));
        let mut shares = [0; 2];
        for number in 0..100 {
            let edges = pools.iter().map(|pool| EdgeChoice {
                pool,
                pod: &pod,
                facts: &facts,
            });
            shares[choose_edge(&partner(number), edges).expect("one")] += 1;
        }
        assert!(shares.iter().all(|share| *share > 20), "{shares:?}");
    }

    #[test]
    fn partners_are_shared_out_by_weight() {
        let edges = [
            (pod(0), facts(10, 100, false)),
            (pod(1), facts(10, 300, false)),
        ];
        let mut shares = BTreeMap::new();
        for number in 0..4_000 {
            let chosen = chosen(&partner(number), &edges).expect("one");
            *shares.entry(chosen).or_insert(0_u32) += 1;
        }
        // A thousand is expected; the spread of such a count is 27.
        assert!((800..1_200).contains(&shares[&0]), "{shares:?}");
    }

    proptest! {
        #[test]
        fn only_the_partners_of_what_went_move(
            weights in prop::collection::vec(0_u16..500, 2..8),
            number in any::<u32>(),
            gone in any::<prop::sample::Index>(),
            turned in any::<prop::sample::Index>(),
        ) {
            let partner = partner(number);
            let mut edges: Vec<_> = weights.iter().enumerate()
                .map(|(number, weight)| (pod(number), facts(10, *weight, false)))
                .collect();
            let first = chosen(&partner, &edges).expect("one");
            let first = edges[first].0.clone();
            let middle = turned.index(edges.len());
            edges.rotate_left(middle);
            let again = chosen(&partner, &edges).expect("one");
            prop_assert_eq!(&edges[again].0, &first, "the order in which they are known decides");
            let gone = edges.remove(gone.index(edges.len())).0;
            let after = chosen(&partner, &edges).expect("one");
            if gone != first {
                prop_assert_eq!(&edges[after].0, &first);
            }
            let names: Vec<_> = edges.iter().map(|(pod, _)| pod).collect();
            let one = choose_sidecar(&partner, names.iter().copied()).expect("one");
            let other = choose_sidecar(&partner, names.iter().rev().copied()).expect("one");
            prop_assert_eq!(one, names.len() - 1 - other);
        }
    }
}
