//! Accepting connections: sniffing, PROXY header, bounds before authentication.

pub mod proxy_protocol;
pub mod unauthenticated;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::LazyLock,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::telemetry::{config_status::Telemetry, log_limiter::limited};

/// Which port a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// 5269: STARTTLS, or TLS from the first byte.
    S2s,
    /// 5270: TLS from the first byte only.
    DirectTls,
    /// 23456: servers inside.
    Internal,
    /// 5061: SIP servers inside, TLS from the first byte.
    Sip,
    /// SIP servers inside, without TLS.
    SipTcp,
}

impl ListenerKind {
    #[must_use]
    pub fn is_public(self) -> bool {
        matches!(self, Self::S2s | Self::DirectTls)
    }

    #[must_use]
    pub fn is_direct_tls(self) -> bool {
        self == Self::DirectTls
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S2s => "s2s",
            Self::DirectTls => "directTls",
            Self::Internal => "internal",
            Self::Sip => "sip",
            Self::SipTcp => "sipTcp",
        }
    }
}

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// `socket(2)` for an address family that the kernel does not have (Linux: `EAFNOSUPPORT`).
const FAMILY_NOT_SUPPORTED: i32 = 97;

/// Opens a listening socket. `::` takes IPv4 too, whatever `net.ipv6.bindv6only` says.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Opens a socket for datagrams; as [`bind`].
///
/// # Errors
/// What the system says.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(open(address, Type::DGRAM)?.into())
}

fn open(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    // A listener that went must not keep its port for a minute; a datagram socket keeps none.
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The addresses to listen on: those that somebody asked for, else every one of this host.
#[must_use]
pub fn addresses_or_all(asked: Vec<IpAddr>) -> Vec<IpAddr> {
    if asked.is_empty() {
        vec![all_addresses()]
    } else {
        asked
    }
}

/// An address to listen on that is written for hosts of any kind: in place of `::` every one of this host.
#[must_use]
pub fn any_or(asked: IpAddr) -> IpAddr {
    in_place_of_any(asked, all_addresses)
}

fn in_place_of_any(asked: IpAddr, all: impl FnOnce() -> IpAddr) -> IpAddr {
    if asked == Ipv6Addr::UNSPECIFIED {
        all()
    } else {
        asked
    }
}

/// `::`, which takes IPv4 too; `0.0.0.0` where the kernel has no IPv6 (`ipv6.disable=1`), which is
/// logged once.
fn all_addresses() -> IpAddr {
    static ALL: LazyLock<IpAddr> = LazyLock::new(|| {
        let all = all_that_open(|address| open(address, Type::STREAM).map(drop));
        if all.is_ipv4() {
            tracing::info!("the kernel has no IPv6: listening on 0.0.0.0 in place of ::");
        }
        all
    });
    *ALL
}

fn all_that_open(open: impl Fn(SocketAddr) -> io::Result<()>) -> IpAddr {
    match open((Ipv6Addr::UNSPECIFIED, 0).into()) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrNotAvailable
                || error.raw_os_error() == Some(FAMILY_NOT_SUPPORTED) =>
        {
            Ipv4Addr::UNSPECIFIED.into()
        }
        // What else is wrong, opening the listeners tells.
        Ok(()) | Err(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Whether a socket that could not accept never will: it does not listen (accept(2): `EINVAL`).
#[must_use]
pub fn listens_no_more(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

/// Accepts until `stop`, or until the socket listens no more, and hands each connection to `serve`, which
/// must not block.
pub async fn accept(
    kind: ListenerKind,
    listener: TcpListener,
    telemetry: Telemetry,
    serve: impl Fn(TcpStream, SocketAddr),
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                telemetry.metrics.connected(kind.as_str());
                serve(stream, from);
            }
            Err(error) => {
                // Out of descriptors, most likely: others must close first.
                telemetry.metrics.connection_refused("Accept");
                limited!(
                    warn,
                    telemetry.log.lines_of("accept", kind.as_str()),
                    %error, listener = kind.as_str(), "cannot accept"
                );
                if listens_no_more(&error) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_where_the_kernel_has_no_ipv6_every_ipv4_address_is_listened_on() {
        let failing = |error: fn() -> io::Error| all_that_open(move |_| Err(error()));
        let v4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let v6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        assert_eq!(
            failing(|| io::Error::from_raw_os_error(FAMILY_NOT_SUPPORTED)),
            v4
        );
        assert_eq!(failing(|| io::ErrorKind::AddrNotAvailable.into()), v4);
        assert_eq!(failing(|| io::ErrorKind::AddrInUse.into()), v6);
        assert_eq!(failing(|| io::ErrorKind::PermissionDenied.into()), v6);
        assert_eq!(all_that_open(|_| Ok(())), v6);
        // What somebody asked for is what he gets, or an error.
        assert_eq!(addresses_or_all(vec![v6]), [v6]);
        assert_eq!(addresses_or_all(Vec::new()), [all_addresses()]);
    }

    /// The injected sidecar's `--admin=[::]:9091`.
    #[test]
    fn k1_what_is_written_for_any_host_is_opened_where_the_kernel_has_no_ipv6() {
        let v4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        for (asked, opened) in [
            ("::", "0.0.0.0"),
            ("::1", "::1"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            let asked: IpAddr = asked.parse().expect("an address");
            assert_eq!(in_place_of_any(asked, || v4).to_string(), opened);
        }
    }

    #[tokio::test]
    async fn k1_all_addresses_are_those_of_ipv4_too() {
        let listener = bind((all_addresses(), 0).into()).expect("a port is free");
        let port = listener.local_addr().expect("bound").port();
        let (accepted, connected) = tokio::join!(
            listener.accept(),
            tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        );
        connected.expect("by IPv4");
        accepted.expect("by IPv4");
    }
}
