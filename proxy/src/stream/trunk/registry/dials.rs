//! What a sidecar dials, and what came of it.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{FarEnd, TrunkIntake, TrunkRegistry};
use crate::{
    config::trunk_name::TrunkName,
    stream::trunk::figures::{DialFailure, DialOutcome, ShownEdge},
};

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

    /// Whether the pool of the pod at this address says that it has more pods than this sidecar has trunks to.
    #[must_use]
    pub fn lacks_pods(&self, address: SocketAddr) -> bool {
        let table = self.table.lock();
        let edges = || {
            let open = table
                .trunks
                .values()
                .filter(|own| own.intake == TrunkIntake::Open);
            open.filter_map(|own| match &own.far {
                FarEnd::Edge(far) => Some((own.facts.address, far)),
                FarEnd::Sidecar(_) => None,
            })
        };
        let Some((_, here)) = edges().find(|(own, _)| *own == Some(address)) else {
            return false;
        };
        let pool: Vec<_> = edges().filter(|(_, far)| far.pool == here.pool).collect();
        let most = pool.iter().map(|(_, far)| far.facts.replicas).max();
        most.is_some_and(|most| usize::from(most) > pool.len())
    }

    /// All that this sidecar dials.
    #[must_use]
    pub fn edges(&self) -> Vec<ShownEdge> {
        let table = self.table.lock();
        let trunk_at = |address| {
            let mut trunks = table.trunks.iter().rev();
            trunks.find_map(|(id, own)| match &own.far {
                FarEnd::Edge(far) if own.facts.address == Some(address) => {
                    Some((far.clone(), own.facts.clone(), table.claim.is_active_at(id)))
                }
                _ => None,
            })
        };
        let dials = table.dials.iter();
        dials
            .map(|(address, outcome)| ShownEdge {
                address: *address,
                trunk: trunk_at(*address),
                outcome: outcome.clone(),
            })
            .collect()
    }
}
