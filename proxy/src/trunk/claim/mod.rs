//! Which of several sidecars of one gateway gets what comes in.
//!
//! `Single`: two servers beside two sidecars are two worlds, so one gets everything. Nobody is elected:
//! a sidecar claims, each edge has the oldest claim that it knows active, and a sidecar that is inactive
//! at any edge claims at none. So no two sidecars are active at edges that both of them reach.
//!
//! An edge answers every claim, and names the one that it judged: what was said of an earlier claim says
//! nothing of this one. Two sidecars that took each word for the last could withdraw and claim by turns
//! for ever.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::nonza::Activity;

/// What an edge knows of the sidecars of one gateway that have a trunk to it; `S` tells them from each other, at each
/// edge alike.
#[derive(Debug)]
pub struct Claimants<S>(BTreeMap<S, Option<Timestamp>>);

impl<S> Default for Claimants<S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<S: Ord> Claimants<S> {
    /// A sidecar is there, or claims something else than before.
    pub fn claims(&mut self, sidecar: S, since: Option<Timestamp>) {
        self.0.insert(sidecar, since);
    }

    /// The sidecar's last trunk is gone, or is drained.
    pub fn gone(&mut self, sidecar: &S) {
        self.0.remove(sidecar);
    }

    /// Who gets what comes in: of the oldest claim, then the lower one.
    #[must_use]
    pub fn active(&self) -> Option<&S> {
        let claims = self.0.iter();
        let claims = claims.filter_map(|(sidecar, since)| since.map(|since| (since, sidecar)));
        claims.min().map(|(_, sidecar)| sidecar)
    }

    /// What a sidecar is told, when it claims and when this changes: whether it gets what comes in or,
    /// where it does not claim it, whether it would.
    #[must_use]
    pub fn activity(&self, sidecar: &S) -> Activity {
        Activity {
            is_active: self.active().is_none_or(|active| active == sidecar),
            claim: self.0.get(sidecar).copied().flatten(),
        }
    }

    /// Every sidecar that has a trunk here.
    pub fn sidecars(&self) -> impl Iterator<Item = &S> {
        self.0.keys()
    }
}

/// What a sidecar claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimState {
    /// It has no trunk.
    Apart,
    Claiming {
        since: Timestamp,
    },
    /// Another one is active at some edge.
    StandingBy,
}

/// The claim of one sidecar, by what its edges say of it. `E` tells its trunks from each other.
#[derive(Debug)]
pub struct OwnClaim<E> {
    state: ClaimState,
    /// What each edge with a trunk said last; `None` where it has not answered `<enable/>`.
    edges: BTreeMap<E, Option<Activity>>,
}

impl<E: Ord> Default for OwnClaim<E> {
    fn default() -> Self {
        Self {
            state: ClaimState::Apart,
            edges: BTreeMap::new(),
        }
    }
}

impl<E: Ord> OwnClaim<E> {
    /// What is said in `<enable/>` to this edge: a first trunk claims.
    pub fn opening(&mut self, edge: E, now: Timestamp) -> Option<Timestamp> {
        self.edges.insert(edge, None);
        if self.state == ClaimState::Apart {
            self.state = ClaimState::Claiming { since: now };
        }
        self.claim()
    }

    /// What is claimed at each edge.
    #[must_use]
    pub fn claim(&self) -> Option<Timestamp> {
        match self.state {
            ClaimState::Claiming { since } => Some(since),
            ClaimState::Apart | ClaimState::StandingBy => None,
        }
    }

    /// Whether this edge said last that what comes in is given to this sidecar, for the claim that it has.
    #[must_use]
    pub fn is_active_at(&self, edge: &E) -> bool {
        let said = self.edges.get(edge).copied().flatten();
        let claim = self.claim();
        claim.is_some() && said.is_some_and(|own| own.is_active && own.claim == claim)
    }

    /// The edge says whether this sidecar is active there. `true`: the claim is another one, and all
    /// edges are to be told.
    #[must_use]
    pub fn told(&mut self, edge: E, activity: Activity, now: Timestamp) -> bool {
        self.edges.insert(edge, Some(activity));
        self.look(now)
    }

    /// The trunk to this edge is gone. As [`Self::told`].
    #[must_use]
    pub fn gone(&mut self, edge: &E, now: Timestamp) -> bool {
        self.edges.remove(edge);
        self.look(now)
    }

    fn look(&mut self, now: Timestamp) -> bool {
        let before = self.claim();
        // What an edge said of another claim is no answer to this one; that comes.
        let said = self.edges.values().flatten();
        let mut answers = said.clone().filter(|own| own.claim == before);
        if self.edges.is_empty() {
            self.state = ClaimState::Apart;
        } else if answers.any(|own| !own.is_active) {
            self.state = ClaimState::StandingBy;
        } else if before.is_none() && said.clone().all(|own| own.claim == before) {
            self.state = ClaimState::Claiming { since: now };
        }
        self.claim() != before
    }
}

#[cfg(test)]
mod tests;
