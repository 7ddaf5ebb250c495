//! What the view says for a name: pure, built once from a configuration, swapped whole.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RData, RecordType};
use xmpp_edge_crds::{domain::DomainName, edge_config::EdgeConfig, sidecar_config::SidecarConfig};

use super::{
    edge::EdgeServices,
    records::{ViewHosts, ViewServer, not_offered},
    sidecar::SidecarServices,
    sip::SipQuestion,
};

/// Seconds that an answer of the view lives.
pub const TTL: u32 = 5;

/// The answers of the view.
#[derive(Clone, Debug)]
pub struct Rules {
    services: ViewServices,
    hosts: ViewHosts,
}

/// Who leads whom where.
#[derive(Clone, Debug)]
enum ViewServices {
    /// There is no configuration yet that says it.
    Unknown,
    Edge(EdgeServices),
    Sidecar(SidecarServices),
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// These records; empty: the name exists, but not with this type.
    Records(Vec<RData>),
    /// Ours to say, and not known yet: SERVFAIL, so that servers ask again. That there is no such service
    /// they would remember.
    Unknown,
    /// Not ours: ask the upstream resolver.
    Forward,
}

impl Rules {
    /// Before there is a configuration: where a domain's server is, nobody can be told yet; everything else is
    /// forwarded.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            services: ViewServices::Unknown,
            hosts: ViewHosts::default(),
        }
    }

    /// As an edge answers by the configuration in force.
    #[must_use]
    pub fn of_edge(config: &EdgeConfig) -> Self {
        let mut hosts = ViewHosts::default();
        Self {
            services: ViewServices::Edge(EdgeServices::new(config, &mut hosts)),
            hosts,
        }
    }

    /// As a sidecar answers its server, which finds it at `addresses` and `port`.
    #[must_use]
    pub fn of_sidecar(config: &SidecarConfig, addresses: &[IpAddr], port: u16) -> Self {
        let mut hosts = ViewHosts::default();
        Self {
            services: ViewServices::Sidecar(SidecarServices::new(
                config, addresses, port, &mut hosts,
            )),
            hosts,
        }
    }

    /// What to answer for a question of class IN.
    pub(super) fn ruling(&self, name: &Name, kind: RecordType) -> Ruling {
        let text = name.to_ascii().to_ascii_lowercase();
        let text = text.strip_suffix('.').unwrap_or(&text);
        for (service, direct_tls) in [("_xmpp-server._tcp.", false), ("_xmpps-server._tcp.", true)]
        {
            let Some(domain) = text.strip_prefix(service) else {
                continue;
            };
            if matches!(self.services, ViewServices::Unknown) {
                return Ruling::Unknown;
            }
            if !matches!(kind, RecordType::SRV | RecordType::ANY) {
                return Ruling::Records(Vec::new());
            }
            let domain = DomainName::parse(domain).ok().filter(|_| !direct_tls);
            let servers = domain.map_or(&[] as &[_], |domain| self.services.servers(&domain));
            return Ruling::Records(if servers.is_empty() {
                vec![not_offered()]
            } else {
                servers.iter().map(ViewServer::record).collect()
            });
        }
        if let Some(asked) = SipQuestion::of(text, kind) {
            match &self.services {
                ViewServices::Unknown => return Ruling::Unknown,
                ViewServices::Edge(services) => {
                    if let Some(records) = services.sip_records(&asked, kind) {
                        return Ruling::Records(records);
                    }
                }
                ViewServices::Sidecar(_) => {}
            }
        }
        self.hosts
            .records(text, kind)
            .map_or(Ruling::Forward, Ruling::Records)
    }
}

impl ViewServices {
    fn servers(&self, domain: &DomainName) -> &[ViewServer] {
        match self {
            Self::Unknown => &[],
            Self::Edge(services) => services.servers(domain),
            Self::Sidecar(services) => services.servers(domain),
        }
    }
}
