//! What is dialled.

use std::{fmt, net::SocketAddr};

use xmpp_edge_crds::domain::DomainName;

/// One server of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Address(SocketAddr),
    /// A host whose name the egress proxy resolves: the edge knows no address of it.
    Name(DomainName, u16),
}

impl Endpoint {
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(..) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}
