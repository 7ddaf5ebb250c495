//! Accepting connections: sniffing, PROXY header, bounds before authentication.

pub mod proxy_protocol;
pub mod unauthenticated;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::{edge::Edge, negotiation::Side, stream::accept, telemetry::log_limiter::limited};

/// Which port a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// 5269: STARTTLS, or TLS from the first byte.
    S2s,
    /// 5270: TLS from the first byte only.
    DirectTls,
    /// 23456: servers inside.
    Internal,
}

impl ListenerKind {
    #[must_use]
    pub fn is_public(self) -> bool {
        self != Self::Internal
    }

    #[must_use]
    pub fn is_direct_tls(self) -> bool {
        self == Self::DirectTls
    }

    /// Who comes to it.
    #[must_use]
    pub fn side(self) -> Side {
        if self.is_public() {
            Side::Partner
        } else {
            Side::Gateway
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S2s => "s2s",
            Self::DirectTls => "directTls",
            Self::Internal => "internal",
        }
    }
}

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;

/// Opens a listening socket.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `stop`.
pub async fn run(
    edge: Arc<Edge>,
    kind: ListenerKind,
    listener: TcpListener,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                edge.metrics.connected(kind.as_str());
                let task = accept::serve(Arc::clone(&edge), kind, stream, from);
                edge.tasks.spawn(task);
            }
            Err(error) => {
                // Out of descriptors, most likely: others must close first.
                edge.metrics.connection_refused("Accept");
                limited!(
                    warn,
                    edge.log.lines_of("accept", kind.as_str()),
                    %error, listener = kind.as_str(), "cannot accept"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
