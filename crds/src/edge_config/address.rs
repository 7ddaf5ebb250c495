//! Where a server is.

use serde::{Deserialize, Serialize};

use super::sip::SipTransport;
use crate::domain::DomainName;

/// A host name or IP address with a port, as text `host:port` or `[v6]:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(DomainName),
    Ip(std::net::IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port (an IPv6 address stands in brackets, the port is 1 to 65535)")]
pub struct HostPortError(pub String);

impl HostPort {
    /// Parses `host`, `host:port` or `[v6]:port`; without a port `default_port` is taken, where
    /// there is one.
    ///
    /// # Errors
    /// [`HostPortError`] with the text.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, HostPortError> {
        let fault = || HostPortError(text.to_owned());
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            if address.port() == 0 {
                return Err(fault());
            }
            return Ok(Self {
                host: Host::Ip(address.ip()),
                port: address.port(),
            });
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self {
                host: Host::Ip(ip),
                port: default_port.ok_or_else(fault)?,
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)),
            None => (text, default_port),
        };
        let host = DomainName::parse(host).map_err(|_| fault())?;
        Ok(Self {
            host: Host::Name(host),
            port: port.ok_or_else(fault)?,
        })
    }
}
impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(std::net::IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}
impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
impl TryFrom<String> for HostPort {
    type Error = HostPortError;
    fn try_from(text: String) -> Result<Self, HostPortError> {
        Self::parse(&text, None)
    }
}
impl From<HostPort> for String {
    fn from(address: HostPort) -> Self {
        address.to_string()
    }
}

/// Where a gateway's server is, as text `host:port`, or `host` alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum GatewayAddress {
    At(HostPort),
    /// DNS says which servers it has, and at which ports; in mode `Sip` alone.
    Named(DomainName),
}

/// A text that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither host nor host:port (an IPv6 address stands in brackets, the port is 1 to 65535)"
)]
pub struct GatewayAddressError(pub String);

impl GatewayAddress {
    /// Parses the address of a SIP server. An IP address has no records: without a port it is at the transport's.
    ///
    /// # Errors
    /// [`GatewayAddressError`] with the text.
    pub fn of_sip_server(text: &str, transport: SipTransport) -> Result<Self, GatewayAddressError> {
        let port = transport.default_port();
        match (
            Self::try_from(text.to_owned()),
            HostPort::parse(text, Some(port)),
        ) {
            (Ok(address), _) => Ok(address),
            (Err(_), Ok(address)) => Ok(Self::At(address)),
            (Err(fault), Err(_)) => Err(fault),
        }
    }

    /// The host's name; none of an IP address.
    #[must_use]
    pub fn name(&self) -> Option<&DomainName> {
        match self {
            Self::At(HostPort {
                host: Host::Name(name),
                ..
            })
            | Self::Named(name) => Some(name),
            Self::At(HostPort {
                host: Host::Ip(_), ..
            }) => None,
        }
    }

    /// The one server that it is; none where DNS names servers.
    #[must_use]
    pub fn server(&self) -> Option<&HostPort> {
        match self {
            Self::At(address) => Some(address),
            Self::Named(_) => None,
        }
    }
}
impl std::fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Named(host) => host.fmt(f),
        }
    }
}
impl From<HostPort> for GatewayAddress {
    fn from(address: HostPort) -> Self {
        Self::At(address)
    }
}
impl TryFrom<String> for GatewayAddress {
    type Error = GatewayAddressError;
    fn try_from(text: String) -> Result<Self, GatewayAddressError> {
        if let Ok(address) = HostPort::parse(&text, None) {
            return Ok(Self::At(address));
        }
        match DomainName::parse(&text) {
            Ok(host) => Ok(Self::Named(host)),
            Err(_) => Err(GatewayAddressError(text)),
        }
    }
}
impl From<GatewayAddress> for String {
    fn from(address: GatewayAddress) -> Self {
        address.to_string()
    }
}

/// Where the SIP servers of a gateway are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SipServers {
    /// One, as the configuration says.
    At(HostPort, SipTransport),
    /// As DNS says.
    Named(SipService),
}

impl SipServers {
    /// The records that name them.
    #[must_use]
    pub fn service(&self) -> Option<&SipService> {
        match self {
            Self::At(..) => None,
            Self::Named(service) => Some(service),
        }
    }
}

/// The SIP servers of a host, as DNS names them (RFC 3263 section 4.2). NAPTR is not asked for: the transport is
/// set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipService {
    pub host: DomainName,
    pub transport: SipTransport,
}

/// The name of its SRV records.
impl std::fmt::Display for SipService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let service = match self.transport {
            SipTransport::Tls => "_sips",
            SipTransport::Tcp => "_sip",
        };
        write!(f, "{service}._tcp.{}", self.host)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_address_of_a_sip_server_is_a_server_or_a_name_for_servers() {
        use SipTransport::{Tcp, Tls};
        for (text, transport, server, written) in [
            ("sip.example:5071", Tls, true, "sip.example:5071"),
            ("sip.example", Tls, false, "sip.example"),
            ("sip.example", Tcp, false, "sip.example"),
            ("192.0.2.1:5071", Tls, true, "192.0.2.1:5071"),
            ("192.0.2.1", Tls, true, "192.0.2.1:5061"),
            ("192.0.2.1", Tcp, true, "192.0.2.1:5060"),
            ("[2001:db8::1]", Tls, true, "[2001:db8::1]:5061"),
            ("[2001:db8::1]:5", Tcp, true, "[2001:db8::1]:5"),
        ] {
            let address = GatewayAddress::of_sip_server(text, transport).unwrap();
            assert_eq!(address.server().is_some(), server, "{text}");
            assert_eq!(address.to_string(), written, "{text}");
            // A document says the same.
            assert_eq!(
                GatewayAddress::try_from(written.to_owned()),
                Ok(address),
                "{text}"
            );
        }
        for text in [
            "",
            ":5061",
            "sip.example:0",
            "sip.example:65536",
            "sip.example:",
            "a b",
            "192.0.2",
        ] {
            let fault = GatewayAddress::of_sip_server(text, Tls).unwrap_err();
            assert_eq!(fault, GatewayAddressError(text.to_owned()));
        }
    }
}
