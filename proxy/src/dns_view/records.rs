//! What an answer is made of: where SRV records lead, and the addresses of names that are ours.

use std::{collections::HashMap, net::IpAddr};

use hickory_proto::rr::{
    Name, RData, RecordType,
    rdata::{A, AAAA, SRV},
};
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Host, HostPort},
};

/// SRV needs a name as target: an address gets one below here. ICANN set `internal` aside for
/// private use.
const ADDRESS_NAMES: &str = "address.xmpp-edge.internal";

/// One SRV record without its owner (RFC 2782).
#[derive(Clone, Debug)]
pub(super) struct ViewServer {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: Name,
}

impl ViewServer {
    pub(super) fn record(&self) -> RData {
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
pub(super) fn not_offered() -> RData {
    RData::SRV(SRV::new(0, 0, 0, Name::root()))
}

/// Names whose addresses the view knows.
#[derive(Clone, Debug, Default)]
pub(super) struct ViewHosts(HashMap<DomainName, Vec<IpAddr>>);

impl ViewHosts {
    pub(super) fn insert(&mut self, name: DomainName, addresses: Vec<IpAddr>) {
        self.0.insert(name, addresses);
    }

    /// The one server at `address`, which gets a name where it has none.
    pub(super) fn server_at(&mut self, address: &HostPort) -> Option<ViewServer> {
        let host = match &address.host {
            Host::Name(name) => name.clone(),
            Host::Ip(ip) => {
                let name = DomainName::parse(&name_of(*ip)).ok()?;
                self.insert(name.clone(), vec![*ip]);
                name
            }
        };
        Some(ViewServer {
            priority: 0,
            weight: 0,
            port: address.port,
            target: absolute(host.as_str())?,
        })
    }

    /// Records of this type, where the name is ours; none at all: it exists, but not with this type.
    pub(super) fn records(&self, name: &str, kind: RecordType) -> Option<Vec<RData>> {
        let addresses = self.0.get(name)?;
        let of_kind = addresses.iter().filter_map(|ip| match (ip, kind) {
            (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => Some(RData::A(A(*ip))),
            (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(*ip))),
            _ => None,
        });
        Some(of_kind.collect())
    }
}

pub(super) fn absolute(name: &str) -> Option<Name> {
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
