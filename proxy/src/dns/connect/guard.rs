//! Where no partner is dialled on the word of DNS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use xmpp_edge_crds::domain::DomainName;

/// Last labels of names that are nobody's on the Internet: RFC 6761, RFC 6762, RFC 8375, and what
/// ICANN keeps for inside.
const INSIDE: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// Whether an address that DNS gave for a partner is not dialled: it is within `except`, or is never
/// another host's (loopback, link-local, unspecified, broadcast, multicast). IPv4 that is written as
/// IPv6 is judged as what it leads to: mapped, compatible, NAT64 (RFC 6052 section 2.1), 6to4.
#[must_use]
pub fn is_guarded(ip: IpAddr, except: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    let inner = match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => embedded(ip).map(IpAddr::V4),
    };
    [Some(ip), inner]
        .into_iter()
        .flatten()
        .any(|ip| is_never_dialled(ip) || except.iter().any(|network| network.contains(&ip)))
}

/// The IPv4 address that packets to this one reach in the end.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = ip.octets();
    let at = |from: usize| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|n| octets[from + n]);
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        // The well-known prefix, one of the network's own (RFC 8215), IPv4-compatible.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0, 0, 0, 0, 0, 0, ..] => at(12),
        [0x2002, ..] => at(2),
        _ => None,
    }
}

fn is_never_dialled(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // 0.0.0.0/8 is "this host" (RFC 1122 section 3.2.1.3): Linux dials itself.
            ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || ip.is_broadcast()
                || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
        }
    }
}

/// Whether a name that DNS gave for a partner is not handed to a proxy that resolves it: it has one
/// label, or means something inside alone. What any other name leads to only the proxy's own rules can
/// say.
#[must_use]
pub(super) fn is_inside_name(name: &DomainName) -> bool {
    let name = name.as_str();
    !name.contains('.')
        || INSIDE.iter().any(|zone| {
            name.strip_suffix(zone)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
}
