//! Where no partner is dialled on the word of DNS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use xmpp_edge_crds::domain::DomainName;

/// Last labels of names that are nobody's on the Internet: RFC 6761, RFC 6762, RFC 8375, and what
/// ICANN keeps for inside.
const INSIDE: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// Whether an address that DNS gave for a partner is not dialled: it is within `except`, or is never
/// another host's (loopback, link-local, unspecified, broadcast, multicast). IPv4 that is written as
/// IPv6 is judged as what it leads to: mapped, compatible, translated (RFC 2765 section 2.1), NAT64 (RFC 6052), 6to4
/// (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214). A network's own prefix of NAT64 nobody can know: it belongs in the
/// list.
#[must_use]
pub fn is_guarded(ip: IpAddr, except: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    let inner = match ip {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(ip) => embedded(ip),
    };
    inner
        .into_iter()
        .map(IpAddr::V4)
        .chain([ip])
        .any(|ip| is_never_dialled(ip) || except.iter().any(|network| network.contains(&ip)))
}

/// The IPv4 addresses that packets to this one may reach in the end.
fn embedded(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = ip.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    const LAST: [usize; 4] = [12, 13, 14, 15];
    match ip.segments() {
        [0x64, 0xff9b, 1, ..] => of_local_prefix(&octets),
        // The well-known prefix, IPv4-compatible, IPv4-translated.
        [0x64, 0xff9b, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![at(LAST)],
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        // Whose port the relay sends to, inverted.
        [0x2001, 0, ..] => vec![Ipv4Addr::from_bits(!at(LAST).to_bits())],
        _ => Vec::new(),
    }
}

/// What an address within 64:ff9b:1::/48 (RFC 8215) may lead to: the network alone knows how long a prefix it has there.
/// RFC 6052 section 2.2 has the address behind it, around octet 8, and zeros there and behind; who translates looks at
/// neither.
fn of_local_prefix(octets: &[u8; 16]) -> Vec<Ipv4Addr> {
    const LAYOUTS: [[usize; 4]; 4] = [
        [6, 7, 9, 10],
        [7, 9, 10, 11],
        [9, 10, 11, 12],
        [12, 13, 14, 15],
    ];
    let mut found: Vec<_> = LAYOUTS
        .iter()
        .map(|layout| Ipv4Addr::from(layout.map(|place| octets[place])))
        .collect();
    // Where one layout gives an address, zeros by another are the rest of it.
    if found.iter().any(|ip| ip.octets()[0] != 0) {
        found.retain(|ip| ip.octets()[0] != 0);
    }
    found
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
