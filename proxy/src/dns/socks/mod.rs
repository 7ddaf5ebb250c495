//! The way to partners by a SOCKS5 proxy (RFC 1928), with user name and password (RFC 1929) where the
//! proxy wants them.

mod password_reply;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_socks::{Error as SocksError, tcp::Socks5Stream};
use xmpp_edge_crds::{
    edge_config::{EgressProxy, Host, HostPort, NameResolution},
    egress::EgressCredentials,
};

use super::{
    Endpoint, Resolver,
    egress_fault::{EgressFault, SocksReply},
    error::OpenFault,
    happy::{Connect, Opener, RaceOutcome, interleave, race},
};
use password_reply::PasswordReplies;

/// `settings.egressProxy`, with its credentials.
#[derive(Debug)]
pub struct SocksProxy {
    config: EgressProxy,
    credentials: Option<EgressCredentials>,
}

impl SocksProxy {
    #[must_use]
    pub fn new(config: EgressProxy, credentials: Option<EgressCredentials>) -> Self {
        Self {
            config,
            credentials,
        }
    }

    #[must_use]
    pub fn address(&self) -> &HostPort {
        &self.config.address
    }

    /// Whether it is given names, and not addresses.
    #[must_use]
    pub fn resolves_names(&self) -> bool {
        self.config.name_resolution == NameResolution::Proxy
    }

    /// A connection to `endpoint`, within `limit` in all.
    pub(super) async fn connect(
        &self,
        resolver: &Resolver,
        connect: &Connect,
        endpoint: &Endpoint,
        limit: Duration,
    ) -> Result<TcpStream, EgressFault> {
        let deadline = Instant::now() + limit;
        let socket = timeout_at(deadline, self.reach(resolver, connect))
            .await
            .unwrap_or(Err(EgressFault::Silent))?;
        timeout_at(deadline, self.ask(socket, endpoint))
            .await
            .unwrap_or(Err(EgressFault::Unanswered))
    }

    /// A connection to the proxy itself.
    async fn reach(
        &self,
        resolver: &Resolver,
        connect: &Connect,
    ) -> Result<TcpStream, EgressFault> {
        let HostPort { host, port } = &self.config.address;
        let addresses = match host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => resolver
                .addresses(name)
                .await
                .map_err(|fault| EgressFault::Unresolved(fault.to_string()))?,
        };
        let endpoints = addresses.into_iter().map(|ip| (ip, *port).into());
        let mut queue = interleave(endpoints.collect());
        let connect = Arc::clone(connect);
        let open: Opener = Arc::new(move |endpoint| {
            let connect = Arc::clone(&connect);
            Box::pin(async move {
                match endpoint {
                    Endpoint::Address(address) => Ok(connect(address).await?),
                    Endpoint::Name(..) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
                }
            })
        });
        let RaceOutcome { won, mut failed } = race(&mut queue, &open).await;
        match (won, failed.pop()) {
            (Some((socket, _)), _) => Ok(socket),
            (None, Some((_, OpenFault::Io(cause)))) => Err(EgressFault::Unreachable(cause)),
            (None, _) => Err(EgressFault::Unreachable(io::ErrorKind::NotFound.into())),
        }
    }

    async fn ask(&self, socket: TcpStream, endpoint: &Endpoint) -> Result<TcpStream, EgressFault> {
        let target = match endpoint {
            Endpoint::Address(address) => tokio_socks::TargetAddr::Ip(*address),
            Endpoint::Name(host, port) => {
                tokio_socks::TargetAddr::Domain(host.as_str().into(), *port)
            }
        };
        let connected = match &self.credentials {
            None => Socks5Stream::connect_with_socket(socket, target)
                .await
                .map(Socks5Stream::into_inner),
            Some(credentials) => Socks5Stream::connect_with_password_and_socket(
                PasswordReplies::of(socket),
                target,
                credentials.username(),
                credentials.password(),
            )
            .await
            .map(|connected| connected.into_inner().into_inner()),
        };
        connected.map_err(|error| self.fault(error))
    }

    fn fault(&self, error: SocksError) -> EgressFault {
        let reply = match error {
            SocksError::Io(cause) => return EgressFault::Broken(cause),
            SocksError::AuthorizationRequired => return EgressFault::CredentialsWanted,
            SocksError::NoAcceptableAuthMethods if self.credentials.is_none() => {
                return EgressFault::CredentialsWanted;
            }
            SocksError::NoAcceptableAuthMethods => return EgressFault::NoMethod,
            SocksError::PasswordAuthFailure(_) => return EgressFault::CredentialsRefused,
            SocksError::GeneralSocksServerFailure => SocksReply::Failure,
            SocksError::ConnectionNotAllowedByRuleset => SocksReply::NotAllowed,
            SocksError::NetworkUnreachable => SocksReply::NetworkUnreachable,
            SocksError::HostUnreachable => SocksReply::HostUnreachable,
            SocksError::ConnectionRefused => SocksReply::ConnectionRefused,
            SocksError::TtlExpired => SocksReply::TtlExpired,
            SocksError::CommandNotSupported => SocksReply::CommandNotSupported,
            SocksError::AddressTypeNotSupported => SocksReply::AddressTypeNotSupported,
            // The library has one name for both.
            SocksError::UnknownAuthMethod => {
                let text =
                    "it chose a method that was not offered, or its reply has no meaning there";
                return EgressFault::Malformed(text.to_owned());
            }
            other => return EgressFault::Malformed(other.to_string()),
        };
        EgressFault::Replied(reply)
    }
}

#[cfg(test)]
mod tests;
