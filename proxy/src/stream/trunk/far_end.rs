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

/// A sidecar, to an edge.
#[derive(Clone, Debug)]
pub struct FarSidecar {
    /// Name of its gateway.
    pub gateway: String,
    pub instance: TrunkName,
    /// The domains that its certificate, or its key, speaks for.
    pub domains: Vec<DomainName>,
    pub servers: SidecarServers,
    pub server: ServerState,
}

impl FarEnd {
    /// [`Self::key`] of every edge: to a sidecar they lead to the same.
    pub const EDGES: &str = "";

    /// Under what its absence is remembered.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Edge(_) => Self::EDGES,
            Self::Sidecar(far) => &far.gateway,
        }
    }
}
