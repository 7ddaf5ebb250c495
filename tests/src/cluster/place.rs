//! The addresses of one control plane.

use std::net::Ipv4Addr;

use crate::address::Block;

/// Where etcd, API server and controllers listen, and which addresses Services have.
#[derive(Debug)]
pub(super) struct ServerPlace {
    pub etcd: Ipv4Addr,
    pub api: Ipv4Addr,
    pub controllers: Ipv4Addr,
    /// The API server is published inside as Service `kubernetes`.
    pub has_nodes: bool,
    /// Second number of the Services' addresses.
    network: u8,
    _block: Block,
}

impl ServerPlace {
    /// Addresses of loopback, which nothing outside this network namespace reaches.
    pub fn on_loopback() -> Self {
        let block = Block::claim();
        Self {
            etcd: block.host(1),
            api: block.host(2),
            controllers: block.host(3),
            has_nodes: false,
            network: 18,
            _block: block,
        }
    }

    /// As a cluster with nodes has it: the API server at `api`, its Services in 198.`network`.
    pub fn beside_nodes(api: Ipv4Addr, network: u8) -> Self {
        Self {
            api,
            has_nodes: true,
            network,
            ..Self::on_loopback()
        }
    }

    /// The Services' addresses.
    pub fn services(&self) -> String {
        format!("{}/20", self.service(0))
    }

    /// One of them.
    pub fn service(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, self.network, 128, host)
    }
}
