//! What the view says for a name: pure, built once from a configuration, swapped whole.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use hickory_proto::rr::{
    Name, RData, RecordType,
    rdata::{A, AAAA, SRV},
};
use xmpp_edge_crds::{
    domain::{DomainName, DomainPattern},
    edge_config::{EdgeConfig, Host, HostPort},
};

/// Seconds that an answer of the view lives.
pub const TTL: u32 = 5;

/// SRV needs a name as target: an address gets one below here. ICANN set `internal` aside for
/// private use.
const ADDRESS_NAMES: &str = "address.xmpp-edge.internal";

/// The answers of the view.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    partners: HashSet<DomainName>,
    /// Suffixes of wildcards.
    partners_below: HashSet<DomainName>,
    gateways: HashMap<DomainName, ViewServer>,
    /// Own domains of the namespace: wildcards pass them by.
    own: HashSet<DomainName>,
    edges: Vec<ViewServer>,
    hosts: HashMap<DomainName, Vec<IpAddr>>,
}

#[derive(Clone, Debug)]
struct ViewServer {
    priority: u16,
    weight: u16,
    port: u16,
    target: Name,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// These records; empty: the name exists, but not with this type.
    Records(Vec<RData>),
    /// Not ours: ask the upstream resolver.
    Forward,
}

impl Rules {
    /// From the configuration in force. Partners that are left out are unknown; suspended ones are
    /// known, so that servers inside still ask the edge, which refuses with a reason.
    #[must_use]
    pub fn new(config: &EdgeConfig) -> Self {
        let mut rules = Self::default();
        rules.own.extend(
            config
                .domains
                .iter()
                .chain(&config.namespace_domains)
                .cloned(),
        );
        for pattern in config
            .partners
            .iter()
            .filter(|partner| !partner.left_out)
            .flat_map(|partner| &partner.domains)
        {
            match pattern {
                DomainPattern::Exact(domain) => rules.partners.insert(domain.clone()),
                DomainPattern::Below(suffix) => rules.partners_below.insert(suffix.clone()),
            };
        }
        for gateway in &config.gateways {
            let address = gateway.address.as_ref();
            let Some(server) = address.and_then(|address| rules.server_at(address)) else {
                continue;
            };
            for domain in &gateway.domains {
                rules.gateways.insert(domain.clone(), server.clone());
            }
        }
        let all_are_withdrawn = config.edges.iter().all(|edge| edge.withdrawn);
        for edge in &config.edges {
            let Some(target) = absolute(edge.target.as_str()) else {
                continue;
            };
            rules
                .hosts
                .insert(edge.target.clone(), edge.addresses.clone());
            // Its name still leads there: a server may have been told it a moment ago.
            if edge.withdrawn && !all_are_withdrawn {
                continue;
            }
            rules.edges.push(ViewServer {
                priority: edge.priority,
                weight: edge.weight,
                port: edge.port,
                target,
            });
        }
        rules
    }

    fn server_at(&mut self, address: &HostPort) -> Option<ViewServer> {
        let host = match &address.host {
            Host::Name(name) => name.clone(),
            Host::Ip(ip) => {
                let name = DomainName::parse(&name_of(*ip)).ok()?;
                self.hosts.insert(name.clone(), vec![*ip]);
                name
            }
        };
        let target = absolute(host.as_str())?;
        Some(ViewServer {
            priority: 0,
            weight: 0,
            port: address.port,
            target,
        })
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
            if !matches!(kind, RecordType::SRV | RecordType::ANY) {
                return Ruling::Records(Vec::new());
            }
            let domain = DomainName::parse(domain).ok().filter(|_| !direct_tls);
            let servers = domain.map_or(&[] as &[_], |domain| self.servers(&domain));
            return Ruling::Records(if servers.is_empty() {
                vec![not_offered()]
            } else {
                servers.iter().map(ViewServer::record).collect()
            });
        }
        match self.hosts.get(text) {
            None => Ruling::Forward,
            Some(addresses) => Ruling::Records(
                addresses
                    .iter()
                    .filter_map(|ip| match (ip, kind) {
                        (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => Some(RData::A(A(*ip))),
                        (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => {
                            Some(RData::AAAA(AAAA(*ip)))
                        }
                        _ => None,
                    })
                    .collect(),
            ),
        }
    }

    fn servers(&self, domain: &DomainName) -> &[ViewServer] {
        if let Some(gateway) = self.gateways.get(domain) {
            return std::slice::from_ref(gateway);
        }
        if !self.own.contains(domain) && self.is_partner(domain) {
            &self.edges
        } else {
            &[]
        }
    }

    fn is_partner(&self, domain: &DomainName) -> bool {
        if self.partners.contains(domain) {
            return true;
        }
        let mut rest = domain.parent();
        while let Some(suffix) = rest {
            if self.partners_below.contains(suffix) {
                return true;
            }
            rest = suffix.split_once('.').map(|(_, rest)| rest);
        }
        false
    }
}

impl ViewServer {
    fn record(&self) -> RData {
        RData::SRV(SRV::new(
            self.priority,
            self.weight,
            self.port,
            self.target.clone(),
        ))
    }
}

/// `0 0 0 .`: servers bounce at once, where NXDOMAIN would send them to the domain's own address,
/// past the edge.
fn not_offered() -> RData {
    RData::SRV(SRV::new(0, 0, 0, Name::root()))
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn name_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("v4-{}.{ADDRESS_NAMES}", ip.to_string().replace('.', "-")),
        IpAddr::V6(ip) => format!("v6-{:032x}.{ADDRESS_NAMES}", u128::from(ip)),
    }
}
