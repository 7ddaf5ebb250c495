//! Who may have what only one can have: a domain, a site's policy, a granted user.
//!
//! Each object has the form it wants now and, where it was in force before, the form it had. What
//! works is never taken down by what broke, so a form that loses falls back to the kept one, and
//! only an object without any is left out. Knows nothing of partners or policies.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

/// One object that claims keys.
#[derive(Clone, Debug)]
pub struct Claimant<K> {
    pub name: String,
    /// RFC 3339 creation time, where there is one: the older wins.
    pub created: Option<jiff::Timestamp>,
    /// Keys of the form it has now; `None` where that form does not compile by itself.
    pub wanted: Option<BTreeSet<K>>,
    /// Keys of the form that is in force.
    pub kept: Option<BTreeSet<K>>,
}

/// Which form of an object is in force from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Desired,
    LastGood,
    Rejected,
}

/// The outcome for one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution<K> {
    pub form: Version,
    /// The first key that its wanted form did not get, and who has it.
    pub lost: Option<(K, String)>,
}

impl<K> Claimant<K> {
    fn keys(&self, form: Version) -> Option<&BTreeSet<K>> {
        match form {
            Version::Desired => self.wanted.as_ref(),
            Version::LastGood => self.kept.as_ref(),
            Version::Rejected => None,
        }
    }
}

/// Decides for all claimants, in their order. Who has a key in force keeps it; else the older has
/// it, then the one whose name sorts first. The result is free of conflicts.
#[must_use]
pub fn resolve_conflicts<K: Ord + Hash + Clone>(claimants: &[Claimant<K>]) -> Vec<Resolution<K>> {
    let mut in_force: HashMap<&K, usize> = HashMap::new();
    for (index, claimant) in claimants.iter().enumerate() {
        for key in claimant.kept.iter().flatten() {
            in_force.entry(key).or_insert(index);
        }
    }
    let mut settled: Vec<Resolution<K>> = claimants
        .iter()
        .map(|claimant| Resolution {
            form: match (&claimant.wanted, &claimant.kept) {
                (Some(_), _) => Version::Desired,
                (None, Some(_)) => Version::LastGood,
                (None, None) => Version::Rejected,
            },
            lost: None,
        })
        .collect();
    // Each round takes at least one form away, so there are at most two rounds a claimant.
    loop {
        let losses = losses(claimants, &settled, &in_force);
        if losses.is_empty() {
            break;
        }
        for (loser, (key, winner)) in losses {
            let fallen = &mut settled[loser];
            fallen.form = match fallen.form {
                Version::Desired if claimants[loser].kept.is_some() => Version::LastGood,
                _ => Version::Rejected,
            };
            fallen
                .lost
                .get_or_insert_with(|| (key, claimants[winner].name.clone()));
        }
    }
    promote(claimants, &mut settled);
    settled
}

/// For each loser of this round: the key and the winner.
fn losses<K: Ord + Hash + Clone>(
    claimants: &[Claimant<K>],
    settled: &[Resolution<K>],
    in_force: &HashMap<&K, usize>,
) -> BTreeMap<usize, (K, usize)> {
    let mut holder: HashMap<&K, usize> = HashMap::new();
    let mut losses = BTreeMap::new();
    for (index, claimant) in claimants.iter().enumerate() {
        for key in claimant.keys(settled[index].form).into_iter().flatten() {
            let Some(other) = holder.insert(key, index) else {
                continue;
            };
            let rank = |candidate: usize| {
                let claimant = &claimants[candidate];
                let newest = jiff::Timestamp::MAX;
                (
                    in_force.get(key) != Some(&candidate),
                    claimant.created.unwrap_or(newest),
                    &claimant.name,
                )
            };
            let (winner, loser) = if rank(other) <= rank(index) {
                (other, index)
            } else {
                (index, other)
            };
            holder.insert(key, winner);
            losses.entry(loser).or_insert_with(|| (key.clone(), winner));
        }
    }
    losses
}

/// Gives a loser its wanted form after all, where the one it lost to did not get its own.
fn promote<K: Ord + Hash + Clone>(claimants: &[Claimant<K>], settled: &mut [Resolution<K>]) {
    let losers: Vec<usize> = (0..claimants.len())
        .filter(|&index| settled[index].lost.is_some())
        .collect();
    if losers.is_empty() {
        return;
    }
    let mut held: HashMap<&K, usize> = HashMap::new();
    for (index, claimant) in claimants.iter().enumerate() {
        for key in claimant.keys(settled[index].form).into_iter().flatten() {
            held.insert(key, index);
        }
    }
    loop {
        let mut changed = false;
        for &index in &losers {
            let Some(wanted) = &claimants[index].wanted else {
                continue;
            };
            if settled[index].form == Version::Desired {
                continue;
            }
            let taken = |key: &K| held.get(key).copied().filter(|holder| *holder != index);
            match wanted.iter().find_map(|key| Some((key, taken(key)?))) {
                Some((key, winner)) => {
                    settled[index].lost = Some((key.clone(), claimants[winner].name.clone()));
                }
                None => {
                    held.retain(|_, holder| *holder != index);
                    held.extend(wanted.iter().map(|key| (key, index)));
                    settled[index] = Resolution {
                        form: Version::Desired,
                        lost: None,
                    };
                    changed = true;
                }
            }
        }
        if !changed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn set(keys: &str) -> BTreeSet<char> {
        keys.chars().collect()
    }

    fn claimant(
        name: &str,
        created: Option<i64>,
        wanted: Option<&str>,
        kept: Option<&str>,
    ) -> Claimant<char> {
        Claimant {
            name: name.into(),
            created: created.map(|second| jiff::Timestamp::from_second(second).unwrap()),
            wanted: wanted.map(set),
            kept: kept.map(set),
        }
    }

    #[test]
    fn who_has_it_keeps_it_else_the_older_else_the_first_by_name() {
        use Version::*;
        type Row = (&'static str, Vec<Claimant<char>>, Vec<Version>);
        let rows: [Row; 9] = [
            (
                "no conflict",
                vec![
                    claimant("a", None, Some("x"), None),
                    claimant("b", None, Some("y"), None),
                ],
                vec![Desired, Desired],
            ),
            (
                "name",
                vec![
                    claimant("b", None, Some("x"), None),
                    claimant("a", None, Some("x"), None),
                ],
                vec![Rejected, Desired],
            ),
            (
                "older",
                vec![
                    claimant("a", Some(9), Some("x"), None),
                    claimant("b", Some(5), Some("x"), None),
                ],
                vec![Rejected, Desired],
            ),
            (
                "known age first",
                vec![
                    claimant("a", None, Some("x"), None),
                    claimant("b", Some(5), Some("x"), None),
                ],
                vec![Rejected, Desired],
            ),
            (
                "in force",
                vec![
                    claimant("a", Some(1), Some("x"), None),
                    claimant("b", Some(5), Some("x"), Some("x")),
                ],
                vec![Rejected, Desired],
            ),
            (
                "left out whole",
                vec![
                    claimant("a", None, Some("x"), None),
                    claimant("b", None, Some("xy"), None),
                ],
                vec![Desired, Rejected],
            ),
            (
                "stays as it was",
                vec![
                    claimant("a", None, Some("x"), Some("x")),
                    claimant("b", None, Some("xy"), Some("y")),
                ],
                vec![Desired, LastGood],
            ),
            (
                "broken stays",
                vec![
                    claimant("a", Some(1), Some("x"), None),
                    claimant("b", Some(5), None, Some("x")),
                ],
                vec![Rejected, LastGood],
            ),
            (
                "given up",
                vec![
                    claimant("a", None, Some("y"), Some("x")),
                    claimant("b", None, Some("x"), None),
                ],
                vec![Desired, Desired],
            ),
        ];
        for (case, claimants, expected) in rows {
            let forms: Vec<Version> = resolve_conflicts(&claimants)
                .into_iter()
                .map(|settled| settled.form)
                .collect();
            assert_eq!(forms, expected, "{case}");
        }
    }

    #[test]
    fn the_loser_learns_key_and_winner() {
        let settled = resolve_conflicts(&[
            claimant("a", None, Some("x"), None),
            claimant("b", None, Some("wx"), None),
        ]);
        assert_eq!(settled[1].lost, Some(('x', "a".to_owned())));
    }

    #[test]
    fn who_lost_to_a_form_that_did_not_come_into_force_gets_its_own() {
        // b loses y to a, which itself loses x to c and is out: b may have y.
        let settled = resolve_conflicts(&[
            claimant("a", None, Some("xy"), None),
            claimant("b", None, Some("y"), None),
            claimant("c", None, Some("x"), Some("x")),
        ]);
        let forms: Vec<Version> = settled.iter().map(|settled| settled.form).collect();
        assert_eq!(
            forms,
            [Version::Rejected, Version::Desired, Version::Desired]
        );
    }

    fn any_keys() -> impl Strategy<Value = Option<BTreeSet<u8>>> {
        proptest::option::of(proptest::collection::btree_set(0_u8..6, 1..4))
    }

    proptest! {
        #[test]
        fn nothing_is_held_twice_and_nothing_in_force_is_lost_to_a_newcomer(
            forms in proptest::collection::vec((any_keys(), any_keys(), proptest::option::of(0_i64..3)), 1..7)
        ) {
            let mut claimants: Vec<Claimant<u8>> = forms.into_iter().enumerate().map(|(index, (wanted, kept, created))| Claimant {
                name: format!("o{index}"),
                created: created.map(|second| jiff::Timestamp::from_second(second).unwrap()),
                wanted,
                kept,
            }).collect();
            // What is in force is itself free of conflicts.
            let mut seen = BTreeSet::new();
            for claimant in &mut claimants {
                if claimant.kept.as_ref().is_some_and(|kept| !kept.is_disjoint(&seen)) {
                    claimant.kept = None;
                }
                seen.extend(claimant.kept.iter().flatten().copied());
            }
            let settled = resolve_conflicts(&claimants);
            let mut held: HashMap<u8, usize> = HashMap::new();
            for (index, claimant) in claimants.iter().enumerate() {
                for key in claimant.keys(settled[index].form).into_iter().flatten() {
                    prop_assert_eq!(held.insert(*key, index), None, "key {} held twice", key);
                }
                if claimant.kept.is_some() {
                    prop_assert_ne!(settled[index].form, Version::Rejected, "o{} was in force", index);
                }
                prop_assert_eq!(settled[index].form == Version::Desired || claimant.wanted.is_none(), settled[index].lost.is_none());
            }
        }
    }
}
