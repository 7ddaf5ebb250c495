//! Who is at the other end of a trunk, as it said and proved.

use xmpp_edge_crds::{domain::DomainName, edge_config::SidecarServers};

use crate::{
    config::trunk_name::TrunkName,
    trunk::nonza::{EdgeFacts, ServerState},
};

/// Who is at the other end of a trunk.
#[derive(Clone, Debug)]
pub enum FarEnd {
    Edge(FarEdge),
    Sidecar(FarSidecar),
}

/// An edge pod, to a sidecar.
#[derive(Clone, Debug)]
pub struct FarEdge {
    pub pool: TrunkName,
    pub pod: TrunkName,
    pub facts: EdgeFacts,
}

/// Which of the sidecars of its gateway it is. Two hosts may have one name: their processes differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SidecarId {
    pub instance: TrunkName,
    /// As it says itself; none of a version that does not.
    pub start: Option<u64>,
}

/// A sidecar, to an edge.
#[derive(Clone, Debug)]
pub struct FarSidecar {
    /// Name of its gateway.
    pub gateway: String,
    pub id: SidecarId,
    /// The domains that its certificate, or its key, speaks for.
    pub domains: Vec<DomainName>,
    pub servers: SidecarServers,
    pub server: ServerState,
}

impl FarEdge {
    /// Which pod it is. Standalone pools of one host may call theirs alike.
    pub(super) fn id(&self) -> (&TrunkName, &TrunkName) {
        (&self.pool, &self.pod)
    }
}

impl FarEnd {
    /// [`Self::key`] of every edge: to a sidecar they lead to the same.
    pub const EDGES: &str = "";

    /// The same of all that have reason to look at their routes where one of them changes.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Edge(_) => Self::EDGES,
            Self::Sidecar(far) => &far.gateway,
        }
    }
}
