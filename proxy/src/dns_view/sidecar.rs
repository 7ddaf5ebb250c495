//! Whom a sidecar leads where: everybody to itself, for the list of partners stays at the edges, which
//! answer strangers with a reason; other own domains to their servers.

use std::{collections::HashMap, net::IpAddr};

use xmpp_edge_crds::{domain::DomainName, sidecar_config::SidecarConfig};

use super::records::{ViewHosts, ViewServer, absolute};

/// Target of the sidecar's own SRV record.
const OWN_NAME: &str = "sidecar.xmpp-edge.internal";

/// Services as a sidecar knows them.
#[derive(Clone, Debug)]
pub(super) struct SidecarServices {
    /// Own domains of the namespace: those of the server that asks are offered by nobody else, those of
    /// others have at most one server.
    own: HashMap<DomainName, Option<ViewServer>>,
    sidecar: Option<ViewServer>,
}

impl SidecarServices {
    /// `addresses` and `port`: where the sidecar listens for its server.
    pub(super) fn new(
        config: &SidecarConfig,
        addresses: &[IpAddr],
        port: u16,
        hosts: &mut ViewHosts,
    ) -> Self {
        let mut own: HashMap<_, _> = config
            .domains
            .iter()
            .map(|domain| (domain.clone(), None))
            .collect();
        for gateway in &config.other_gateways {
            let address = gateway.address.as_ref();
            let server = address.and_then(|address| hosts.server_at(address));
            for domain in &gateway.domains {
                own.insert(domain.clone(), server.clone());
            }
        }
        if let Ok(name) = DomainName::parse(OWN_NAME) {
            hosts.insert(name, addresses.to_vec());
        }
        let sidecar = absolute(OWN_NAME).map(|target| ViewServer {
            priority: 0,
            weight: 0,
            port,
            target,
        });
        Self { own, sidecar }
    }

    /// Who is to be asked for `domain`; nobody where the service is not offered.
    pub(super) fn servers(&self, domain: &DomainName) -> &[ViewServer] {
        let server = self.own.get(domain).unwrap_or(&self.sidecar);
        server.as_slice()
    }
}
