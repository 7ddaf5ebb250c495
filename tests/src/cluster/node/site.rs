//! The addresses of a cluster with a node, so that two never meet.

use std::net::Ipv4Addr;

/// Which of the clusters of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    First,
    Second,
}

impl Site {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    /// Second number of the addresses in 198.18.0.0/15, which no one on a real internet has.
    pub(super) fn network(self) -> u8 {
        18 + self.number()
    }

    /// The node's own address.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(198, self.network(), 255, 1)
    }

    /// The node's router, where the API server listens too.
    pub fn router(self) -> Ipv4Addr {
        Ipv4Addr::new(198, self.network(), 255, 2)
    }

    /// An address that a Service of type LoadBalancer may be given; 1 to 126.
    pub fn balancer(self, host: u8) -> Ipv4Addr {
        assert!((1..=126).contains(&host), "host part {host}");
        Ipv4Addr::new(198, 51, 100, 128 * self.number() + host)
    }

    pub(super) fn pods(self) -> String {
        format!("198.{}.0.0/24", self.network())
    }

    /// What is reached by way of the node.
    pub(super) fn behind(self) -> [String; 3] {
        [
            self.pods(),
            format!("198.{}.128.0/20", self.network()),
            format!("198.51.100.{}/25", 128 * self.number()),
        ]
    }

    /// The device at the internet's end of the wire.
    pub(super) fn wire(self) -> String {
        format!("site{}", self.number())
    }
}
