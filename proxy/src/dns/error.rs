//! Why a name does not resolve, and why a target is not reached.

use std::{io, net::SocketAddr};

use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{HostPort, SipService},
};

use super::{egress_fault::EgressFault, endpoint::Endpoint};
use crate::telemetry::attempt::Step;

/// Why DNS gave no answer to go on with. [`Self::label`] is the metric label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    #[error("{name} does not exist in DNS (NXDOMAIN)")]
    NotFound { name: String },
    #[error("{name} has no {kind} record")]
    NoRecords { name: String, kind: &'static str },
    #[error("{domain} says in DNS that it offers no XMPP federation (SRV target \".\")")]
    NotOffered { domain: DomainName },
    #[error("{service} says in DNS that no server is there (SRV target \".\")")]
    NoSipServer { service: SipService },
    #[error("the resolver did not answer for {name} in time")]
    Timeout { name: String },
    #[error("the resolver could not answer for {name} (SERVFAIL)")]
    ServFail { name: String },
    #[error("the resolver refused to answer for {name} (REFUSED)")]
    Refused { name: String },
    #[error(
        "the answer for {name} does not validate (bogus): its DNSSEC signatures are wrong, expired or missing"
    )]
    Bogus { name: String },
    #[error("the answer for {name} is of no use: {cause}")]
    Unusable { name: String, cause: String },
    #[error("the system's resolver configuration cannot be read: {0}; give one with --resolver")]
    NoResolver(String),
}

impl DnsError {
    /// A fixed CamelCase word for metrics and attempts.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "DnsNotFound",
            Self::NoRecords { .. } => "DnsNoRecords",
            Self::NotOffered { .. } | Self::NoSipServer { .. } => "ServiceNotOffered",
            Self::Timeout { .. } => "DnsTimeout",
            Self::ServFail { .. } => "DnsServFail",
            Self::Refused { .. } => "DnsRefused",
            Self::Bogus { .. } => "DnsBogus",
            Self::Unusable { .. } => "DnsUnusable",
            Self::NoResolver(_) => "DnsNoResolver",
        }
    }

    /// Whether DNS itself said that there is nothing: no address will be found by trying again.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::NoRecords { .. }
                | Self::NotOffered { .. }
                | Self::NoSipServer { .. }
        )
    }
}

/// Why one target is not reached; the next may be.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    #[error("{target}: {cause}")]
    Dns { target: String, cause: DnsError },
    #[error(
        "{address} (of {target}) is not dialled: it is within spec.settings.dialExcept (private networks, unless given), or one of our own listeners; a partner who is really there has spec.proxyFqdn"
    )]
    Forbidden { target: String, address: SocketAddr },
    #[error(
        "{target} is not handed to the egress proxy: such a name is nobody's on the Internet; a partner who is really there has spec.proxyFqdn"
    )]
    ForbiddenName { target: String },
    #[error("{address} (of {target}) refused the connection")]
    Refused { target: String, address: SocketAddr },
    #[error("{address} (of {target}) did not answer in time")]
    Timeout { target: String, address: SocketAddr },
    #[error("{address} (of {target}) cannot be reached: {cause}")]
    Unreachable {
        target: String,
        address: SocketAddr,
        cause: io::Error,
    },
    #[error("{endpoint} (of {target}): the connection failed: {cause}")]
    Io {
        target: String,
        endpoint: Endpoint,
        cause: io::Error,
    },
    #[error("the egress proxy {proxy}, for {endpoint} (of {target}): {cause}")]
    Egress {
        target: String,
        endpoint: Endpoint,
        proxy: HostPort,
        cause: EgressFault,
    },
    #[error(
        "{endpoint} (of {target}) is not tried: the domain has led to too many addresses already"
    )]
    TooMany { target: String, endpoint: Endpoint },
}

/// Why one connection is not opened.
#[derive(Debug)]
pub enum OpenFault {
    Io(io::Error),
    Egress(HostPort, EgressFault),
    /// As many as one attempt may dial were dialled.
    TooMany,
}

impl From<io::Error> for OpenFault {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

impl ConnectFault {
    /// A fixed CamelCase word for metrics and attempts.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Dns { cause, .. } => cause.label(),
            Self::Forbidden { .. } => "AddressForbidden",
            Self::Refused { .. } => "TcpRefused",
            Self::Timeout { .. } => "TcpTimeout",
            Self::Unreachable { .. } => "TcpUnreachable",
            Self::Io { .. } => "TcpFailed",
            Self::ForbiddenName { .. } => "NameForbidden",
            Self::Egress { cause, .. } => cause.label(),
            Self::TooMany { .. } => "TooManyAddresses",
        }
    }

    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Dns { .. } | Self::ForbiddenName { .. } => None,
            Self::Egress { endpoint, .. }
            | Self::TooMany { endpoint, .. }
            | Self::Io { endpoint, .. } => endpoint.address(),
            Self::Forbidden { address, .. }
            | Self::Refused { address, .. }
            | Self::Timeout { address, .. }
            | Self::Unreachable { address, .. } => Some(*address),
        }
    }

    /// Where on the way it happened.
    #[must_use]
    pub fn step(&self) -> Step {
        match self {
            Self::Dns { .. } => Step::Dns,
            Self::Forbidden { .. } | Self::ForbiddenName { .. } | Self::TooMany { .. } => {
                Step::Policy
            }
            Self::Egress { .. } => Step::EgressProxy,
            _ => Step::Tcp,
        }
    }

    pub(super) fn from_open(target: &str, endpoint: Endpoint, fault: OpenFault) -> Self {
        let target = target.to_owned();
        match (fault, endpoint) {
            (OpenFault::Io(cause), Endpoint::Address(address)) => {
                Self::from_io(target, address, cause)
            }
            (OpenFault::Egress(proxy, cause), endpoint) => Self::Egress {
                target,
                endpoint,
                proxy,
                cause,
            },
            (OpenFault::Io(cause), endpoint) => Self::Io {
                target,
                endpoint,
                cause,
            },
            (OpenFault::TooMany, endpoint) => Self::TooMany { target, endpoint },
        }
    }

    fn from_io(target: String, address: SocketAddr, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { target, address },
            io::ErrorKind::TimedOut => Self::Timeout { target, address },
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Self::Unreachable {
                target,
                address,
                cause,
            },
            _ => Self::Io {
                target,
                endpoint: Endpoint::Address(address),
                cause,
            },
        }
    }
}
