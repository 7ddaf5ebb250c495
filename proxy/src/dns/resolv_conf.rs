//! `/etc/resolv.conf` (resolv.conf(5)): which resolvers are asked, and when that changed.
//!
//! Of the lines only `nameserver` counts, and of the options `use-vc`: all names are absolute, so that search lists
//! and `ndots` have nothing to say, and what is odd or unknown in other lines breaks nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Resolvers beyond this many are not asked; the C library takes three.
const MOST: usize = 8;

/// The resolvers that are asked, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Upstreams {
    pub(super) addresses: Vec<SocketAddr>,
    /// UDP is not tried (`options use-vc`).
    pub(super) tcp_alone: bool,
}

impl From<Vec<SocketAddr>> for Upstreams {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            tcp_alone: false,
        }
    }
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<IpAddr>,
    /// Servers that cannot be asked: link-local ones, whose interface is not said here.
    pub(super) unusable: Vec<String>,
    pub(super) use_vc: bool,
}

impl ResolvConf {
    pub(super) fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let address = match words.next() {
                Some("options") => {
                    read.use_vc |= words.any(|word| word == "use-vc");
                    continue;
                }
                Some("nameserver") => words.next(),
                _ => None,
            };
            let Some(address) = address else { continue };
            let (bare, scope) = address.split_once('%').unwrap_or((address, ""));
            match bare.parse() {
                Ok(ip) if scope.is_empty() => {
                    if !read.servers.contains(&ip) && read.servers.len() < MOST {
                        read.servers.push(ip);
                    }
                }
                _ => read.unusable.push(address.to_owned()),
            }
        }
        read
    }
}

/// The file as it was last read.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl Watched {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
        }
    }

    /// What the file says, where it is another than at the last call; at the first call in any case.
    ///
    /// # Errors
    /// What the system says; tried again at the next call.
    pub(super) fn changed(&mut self) -> io::Result<Option<ResolvConf>> {
        // By the link's target: it is often replaced whole.
        let metadata = std::fs::metadata(&self.path)?;
        let seen = Some((metadata.modified()?, metadata.len()));
        if seen == self.seen {
            return Ok(None);
        }
        let text = std::fs::read(&self.path)?;
        self.seen = seen;
        Ok(Some(ResolvConf::parse(&String::from_utf8_lossy(&text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s19_odd_lines_break_nothing() {
        for (what, text, expected) in [
            (
                "as systemd-resolved writes it",
                "# comment\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
                &["127.0.0.53"][..],
            ),
            (
                "white space",
                "  nameserver\t192.0.2.1  # the first\r\n",
                &["192.0.2.1"],
            ),
            (
                "several, one twice",
                "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.1\n",
                &["192.0.2.1", "2001:db8::1"],
            ),
            ("no line break", "nameserver 192.0.2.1", &["192.0.2.1"]),
            (
                "unknown",
                "family inet6\nlookup file\nsortlist x\noptions no-such\nnameserver 192.0.2.1\n",
                &["192.0.2.1"],
            ),
            (
                "with interface",
                "nameserver fe80::1%eth0\nnameserver 192.0.2.1\n",
                &["192.0.2.1"],
            ),
            (
                "not an address",
                "nameserver dns.example\nnameserver\n",
                &[],
            ),
            ("empty", "", &[]),
        ] {
            let servers = ResolvConf::parse(text).servers;
            let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().expect("ip")).collect();
            assert_eq!(servers, expected, "{what}");
        }
        assert!(ResolvConf::parse("options ndots:5 use-vc\n").use_vc);
        assert!(!ResolvConf::parse("options use-vco\n#options use-vc\n").use_vc);
        let odd = ResolvConf::parse("nameserver fe80::1%eth0\n");
        assert_eq!(odd.unusable, ["fe80::1%eth0"]);
    }
}
