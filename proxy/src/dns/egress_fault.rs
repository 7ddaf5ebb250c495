//! Why the egress proxy gives no connection, and what it replied.

use std::io;

/// Why the egress proxy gives no connection.
#[derive(Debug, thiserror::Error)]
pub enum EgressFault {
    #[error("its name leads nowhere: {0}")]
    Unresolved(String),
    #[error("it cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("it did not accept a connection in time")]
    Silent,
    #[error("it did not answer in time: it hangs, or waits for the target")]
    Unanswered,
    #[error(
        "it wants a user name and a password: name their Secret in settings.egressProxy.secretRef"
    )]
    CredentialsWanted,
    #[error("it refused the user name or the password of settings.egressProxy.secretRef")]
    CredentialsRefused,
    #[error(
        "it takes neither no authentication nor a user name with a password (RFC 1928 section 3)"
    )]
    NoMethod,
    #[error("it answered: {} (SOCKS reply {})", .0.words(), .0.code())]
    Replied(SocksReply),
    #[error("it does not speak SOCKS5 (RFC 1928): {0}")]
    Malformed(String),
    #[error("it ended the connection: {0}")]
    Broken(io::Error),
}

/// A reply other than "succeeded" (RFC 1928 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocksReply {
    Failure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TtlExpired = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl SocksReply {
    /// As on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// As RFC 1928 section 6 says it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Failure => "general SOCKS server failure",
            Self::NotAllowed => "connection not allowed by ruleset",
            Self::NetworkUnreachable => "network unreachable",
            Self::HostUnreachable => "host unreachable",
            Self::ConnectionRefused => "connection refused",
            Self::TtlExpired => "TTL expired",
            Self::CommandNotSupported => "command not supported",
            Self::AddressTypeNotSupported => "address type not supported",
        }
    }
}

impl EgressFault {
    /// A fixed CamelCase word for metrics and attempts.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unresolved(_) | Self::Unreachable(_) => "EgressUnreachable",
            Self::Silent | Self::Unanswered => "EgressTimeout",
            Self::CredentialsWanted | Self::CredentialsRefused | Self::NoMethod => {
                "EgressAuthentication"
            }
            Self::Replied(SocksReply::NotAllowed) => "EgressNotAllowed",
            Self::Replied(
                SocksReply::NetworkUnreachable
                | SocksReply::HostUnreachable
                | SocksReply::ConnectionRefused
                | SocksReply::TtlExpired,
            ) => "EgressTargetUnreachable",
            Self::Replied(_) | Self::Broken(_) => "EgressFailed",
            Self::Malformed(_) => "EgressMalformed",
        }
    }

    /// Whether somebody must change something before another try can succeed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::CredentialsWanted
                | Self::CredentialsRefused
                | Self::NoMethod
                | Self::Malformed(_)
                | Self::Replied(
                    SocksReply::NotAllowed
                        | SocksReply::CommandNotSupported
                        | SocksReply::AddressTypeNotSupported
                )
        )
    }
}
