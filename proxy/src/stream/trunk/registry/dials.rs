//! What a sidecar dials, and what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    FarEdge, FarEnd, MOST_OF_GATEWAY, StandingTrunk, TrunkFacts, TrunkIntake, TrunkRegistry,
    TrunkTable,
};
use crate::{
    config::trunk_name::TrunkName,
    stream::trunk::figures::{DialFailure, DialOutcome, ShownEdge},
};

/// What is known of the pods behind an address that is dialled: one, or those of a load balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodsBehind {
    /// Trunks by this address that stand, or are draining.
    pub known: usize,
    /// One of them takes stanzas.
    pub has_open: bool,
    /// The pod that was found there last is reached by another address.
    pub is_redundant: bool,
    /// Their pool says that it has more pods than this sidecar has trunks to.
    pub lacks_pods: bool,
}

impl TrunkRegistry {
    /// The pool of the edge pod at the other end of trunk `id`.
    #[must_use]
    pub fn pool_of(&self, id: u64) -> Option<TrunkName> {
        match &self.table.lock().trunks.get(&id)?.far {
            FarEnd::Edge(far) => Some(far.pool.clone()),
            FarEnd::Sidecar(_) => None,
        }
    }

    /// This sidecar dials the address; what came of it last.
    pub fn dials(&self, address: SocketAddr, outcome: DialOutcome) {
        self.table.lock().dials.insert(address, outcome);
    }

    /// This sidecar dials the address no longer.
    pub fn dials_no_more(&self, address: SocketAddr) {
        self.table.lock().dials.remove(&address);
    }

    /// These names lead nowhere now, and all others to addresses.
    pub fn unresolved_are(&self, names: BTreeMap<String, DialFailure>) {
        self.table.lock().unresolved = names;
    }

    /// Names of edges that lead nowhere, each with why.
    #[must_use]
    pub fn unresolved(&self) -> BTreeMap<String, DialFailure> {
        self.table.lock().unresolved.clone()
    }

    /// What is known of the pods behind an address that is dialled.
    #[must_use]
    pub fn behind(&self, address: SocketAddr) -> PodsBehind {
        let table = self.table.lock();
        let here = || {
            table
                .edges()
                .filter(|(own, _)| own.facts.address == Some(address))
        };
        let open = || {
            table
                .edges()
                .filter(|(own, _)| own.intake == TrunkIntake::Open)
        };
        let elsewhere = match table.dials.get(&address) {
            Some(DialOutcome::Redundant { pool, pod, key }) => {
                let mut reached = open();
                reached
                    .any(|(own, far)| far.id() == (pool, pod) && own.facts.key_sha256 == *key)
                    .then_some(pool)
            }
            _ => None,
        };
        let mut open_here = here().filter(|(own, _)| own.intake == TrunkIntake::Open);
        let of_open = open_here.next().map(|(_, far)| &far.pool);
        let lacks_pods = of_open.or(elsewhere).is_some_and(|own| {
            let pool = open().filter(|(_, far)| far.pool == *own);
            let pool: Vec<&FarEdge> = pool.map(|(_, far)| far).collect();
            let replicas = pool.iter().map(|far| usize::from(far.facts.replicas));
            let pods: BTreeSet<_> = pool.iter().map(|far| &far.pod).collect();
            replicas.max().unwrap_or(0).min(MOST_OF_GATEWAY) > pods.len()
        });
        PodsBehind {
            known: here().count(),
            has_open: of_open.is_some(),
            is_redundant: elsewhere.is_some(),
            lacks_pods,
        }
    }

    /// All that this sidecar dials.
    #[must_use]
    pub fn edges(&self) -> Vec<ShownEdge> {
        let table = self.table.lock();
        let trunks_at = |address| {
            // While one is renewed there are two to a pod.
            let mut newest = BTreeMap::new();
            for (id, own) in &table.trunks {
                if let FarEnd::Edge(far) = &own.far
                    && own.facts.address == Some(address)
                {
                    let active = table.claim.is_active_at(id);
                    newest.insert(far.id(), (far.clone(), own.facts.clone(), active));
                }
            }
            newest.into_values()
        };
        let mut edges = Vec::new();
        for (address, outcome) in &table.dials {
            let shown = |trunk| ShownEdge {
                address: *address,
                trunk,
                outcome: outcome.clone(),
            };
            let before = edges.len();
            edges.extend(trunks_at(*address).map(|own| shown(Some(own))));
            if edges.len() == before {
                edges.push(shown(None));
            }
        }
        edges
    }
}

impl TrunkTable {
    /// Behind an address that is dialled is a pod that is reached already.
    pub(super) fn is_redundant(&mut self, facts: TrunkFacts, far: FarEdge) {
        let dialled = facts
            .address
            .and_then(|address| self.dials.get_mut(&address));
        if let Some(outcome) = dialled {
            let (FarEdge { pool, pod, .. }, key) = (far, facts.key_sha256);
            *outcome = DialOutcome::Redundant { pool, pod, key };
        }
    }

    fn edges(&self) -> impl Iterator<Item = (&StandingTrunk, &FarEdge)> {
        self.trunks.values().filter_map(|own| match &own.far {
            FarEnd::Edge(far) => Some((own, far)),
            FarEnd::Sidecar(_) => None,
        })
    }
}
