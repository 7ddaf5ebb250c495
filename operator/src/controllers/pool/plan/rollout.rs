//! Whose pods are replaced when: pools of one domain one after the other, the least preferred
//! first, so that a bad image meets a domain's last resort before its first.

use std::collections::BTreeSet;

/// Annotation of a pool whose pods are replaced without waiting for other pools, with the value
/// [`AT_ONCE`]: for an image that mends what cannot wait, while another pool cannot finish.
pub const ROLLOUT: &str = "xmpp-edge.dev/rollout";
/// The one value of [`ROLLOUT`].
pub const AT_ONCE: &str = "at-once";

/// One pool as this room sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout<'a> {
    pub pool: &'a str,
    /// The lower, the more preferred.
    pub priority: u16,
    pub domains: BTreeSet<&'a str>,
    pub stage: Stage,
    /// Whether it waits for nobody ([`ROLLOUT`]).
    pub at_once: bool,
}

/// Where a pool's pods stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There are no pods yet, so that nothing is replaced.
    New,
    /// Pods are what the plan says.
    Settled,
    /// The plan has another template than the pods.
    Waiting,
    /// Pods are being replaced, by the template planned now or an earlier one.
    Rolling,
}

/// The pool that `of` has to wait for, if its template may not change now. A pool that is rolling
/// never waits: it is the one that others wait for, and what mends it must reach it.
#[must_use]
pub fn held_by<'a>(of: &Rollout<'_>, all: &[Rollout<'a>]) -> Option<&'a str> {
    if of.stage != Stage::Waiting || of.at_once {
        return None;
    }
    let sharing = || {
        all.iter()
            .filter(|other| other.pool != of.pool && !other.domains.is_disjoint(&of.domains))
    };
    let rolling = sharing().find(|other| other.stage == Stage::Rolling);
    let before = || {
        sharing()
            .filter(|other| other.stage == Stage::Waiting && rank(other) > rank(of))
            .max_by_key(|other| rank(other))
    };
    rolling.or_else(before).map(|other| other.pool)
}

/// Higher goes first: the least preferred, by priority, then name.
fn rank<'a>(rollout: &Rollout<'a>) -> (u16, &'a str) {
    (rollout.priority, rollout.pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool<'a>(name: &'a str, priority: u16, domains: &[&'a str], stage: Stage) -> Rollout<'a> {
        Rollout {
            pool: name,
            priority,
            domains: domains.iter().copied().collect(),
            stage,
            at_once: false,
        }
    }

    #[test]
    fn a_pool_that_is_told_to_roll_at_once_waits_for_nobody() {
        let others = |at_once| {
            let waiting = Rollout {
                at_once,
                ..pool("hq", 10, &["a"], Stage::Waiting)
            };
            let stuck = pool("branch", 20, &["a"], Stage::Rolling);
            held_by(&waiting, &[waiting.clone(), stuck]).map(str::to_owned)
        };
        assert_eq!(others(false).as_deref(), Some("branch"));
        assert_eq!(others(true), None);
    }

    #[test]
    fn pools_of_one_domain_roll_one_after_the_other_the_least_preferred_first() {
        use Stage::{New, Rolling, Settled, Waiting};
        // stages of hq (10), branch (20), last (20, later by name), other (another domain)
        let table = [
            (
                [Waiting, Waiting, Waiting, Waiting],
                [Some("last"), Some("last"), None, None],
            ),
            (
                [Waiting, Waiting, Rolling, Waiting],
                [Some("last"), Some("last"), None, None],
            ),
            (
                [Waiting, Waiting, Settled, Waiting],
                [Some("branch"), None, None, None],
            ),
            (
                [Waiting, Rolling, Settled, Rolling],
                [Some("branch"), None, None, None],
            ),
            (
                [Rolling, Waiting, Settled, Settled],
                [None, Some("hq"), None, None],
            ),
            ([Waiting, New, Settled, Rolling], [None, None, None, None]),
            (
                [Waiting, Settled, Settled, Rolling],
                [None, None, None, None],
            ),
        ];
        for (stages, expected) in table {
            let all = [
                pool("hq", 10, &["org.example"], stages[0]),
                pool("branch", 20, &["org.example", "sub.org.example"], stages[1]),
                pool("last", 20, &["org.example"], stages[2]),
                pool("other", 5, &["else.example"], stages[3]),
            ];
            let held: Vec<_> = all.iter().map(|pool| held_by(pool, &all)).collect();
            assert_eq!(held, expected, "{stages:?}");
        }
    }
}
