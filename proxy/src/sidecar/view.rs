//! The sidecar's DNS view: open before anything else, so that a server which starts after it has DNS, and
//! by itself, so that it answers while there is no configuration.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::sidecar_config::SidecarConfig;

use crate::{
    admin::server::SIDECAR_PREFIX,
    dns::{DnsError, Resolver},
    dns_view::{Rules, View},
    net,
};

/// Where the view answers, whom it asks, and where it leads its server.
#[derive(Clone, Debug)]
pub struct SidecarViewOptions {
    pub listen: SocketAddr,
    /// Asked in order for what is not the view's to say; none: the system's.
    pub resolvers: Vec<SocketAddr>,
    /// Where the sidecar listens for its server.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
}

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum SidecarViewError {
    #[error(
        "cannot listen on {address} (dns): {source}. Is another resolver there? --dns names another address, or is off; ports below 1024 need CAP_NET_BIND_SERVICE or the sysctl net.ipv4.ip_unprivileged_port_start"
    )]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("DNS: {0}")]
    Resolver(#[from] DnsError),
    #[error(
        "this system names no resolver but the sidecar itself ({0}), which then has nobody to ask: give --resolver IP:PORT"
    )]
    Loop(SocketAddr),
}

/// The open view, not yet served.
#[derive(Debug)]
pub struct SidecarView {
    view: Arc<View>,
    options: SidecarViewOptions,
    /// Followed, where it is asked.
    system: Option<Resolver>,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// By which a view that is served learns of a configuration.
#[derive(Clone, Debug)]
pub struct SidecarViewRules {
    view: Arc<View>,
    addresses: Vec<IpAddr>,
    port: u16,
}

impl SidecarView {
    /// Opens both sockets.
    ///
    /// # Errors
    /// [`SidecarViewError`].
    pub fn open(options: SidecarViewOptions) -> Result<Self, SidecarViewError> {
        let own = options.listen;
        let fault = |source| SidecarViewError::Listen {
            address: own,
            source,
        };
        let udp = net::bind_udp(own).map_err(fault)?;
        let tcp = net::bind(own).map_err(fault)?;
        let system = options.resolvers.is_empty().then(Resolver::system);
        let view = if let Some(system) = system.clone() {
            let named = system.upstreams();
            if is_alone(&named, own) {
                return Err(SidecarViewError::Loop(own));
            }
            if named.is_empty() {
                tracing::warn!(
                    "this system names no resolver yet: until it does, the DNS view answers SERVFAIL to what it does not know itself; or give --resolver IP:PORT"
                );
            }
            View::new(Rules::unknown(), move || {
                let mut found = system.upstreams();
                found.retain(|upstream| *upstream != own);
                found
            })
        } else {
            let given = options.resolvers.clone();
            View::new(Rules::unknown(), move || given.clone())
        };
        Ok(Self {
            view,
            options,
            system,
            udp,
            tcp,
        })
    }

    #[must_use]
    pub fn rules(&self) -> SidecarViewRules {
        SidecarViewRules {
            view: Arc::clone(&self.view),
            addresses: self.options.addresses.clone(),
            port: self.options.port,
        }
    }

    /// Questions that were answered, as a metric.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(SIDECAR_PREFIX);
        registry.register(
            "dns_queries",
            "Questions to the DNS view, by how they were answered",
            self.view.answers(),
        );
        registry
    }

    /// Answers until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        let serving = self.view.serve(self.udp, self.tcp, stop.clone());
        match self.system {
            None => serving.await,
            Some(system) => {
                tokio::join!(serving, system.follow(stop));
            }
        }
    }
}

/// Whether resolvers are named, and each is the sidecar itself. None at all is another thing: they may come late.
fn is_alone(named: &[SocketAddr], own: SocketAddr) -> bool {
    !named.is_empty() && named.iter().all(|upstream| *upstream == own)
}

impl SidecarViewRules {
    /// Answers by this configuration from now on.
    pub fn follow(&self, config: &SidecarConfig) {
        self.view
            .swap(Rules::of_sidecar(config, &self.addresses, self.port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// s19: a file without name servers is waited for; one that names the sidecar alone leads nowhere.
    #[test]
    fn s19_no_resolver_yet_is_no_loop() {
        let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let (own, other) = (at("127.0.0.53:53"), at("192.0.2.1:53"));
        for (named, expected) in [
            (&[][..], false),
            (&[own], true),
            (&[other], false),
            (&[own, other], false),
            (&[at("127.0.0.53:5353")], false),
        ] {
            assert_eq!(is_alone(named, own), expected, "{named:?}");
        }
    }
}
