//! Connections of the admin port: TLS and plain HTTP on one port, told apart by their first byte.
//!
//! Probes and scrapes need no secret and come as they always did; what wants the token is answered over
//! TLS alone (see [`super::server`]), with a leaf that the pool's own intermediate makes.

use std::{net::SocketAddr, sync::Arc};

use tokio::{net::TcpStream, time::Instant};
use xmpp_edge_page::serving::ServingBounds;

use crate::tls::{FirstByte, Identity, Mode, Transport, accept, sniff};

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Plain,
    Tls,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub channel: Channel,
    pub address: SocketAddr,
}

impl Caller {
    /// Whether it is in this pod, or on this host: `kubectl port-forward` too.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

/// The connection as it is to be served; `None` where it is of no use. `shown` is what who asks by TLS is
/// shown, once there is anything to show. The server ends what takes too long.
pub(super) async fn open(
    socket: TcpStream,
    address: SocketAddr,
    shown: impl FnOnce() -> Option<Arc<Identity>> + Send,
) -> Option<(Transport, Caller)> {
    let (transport, channel) = match sniff(&socket).await.ok()? {
        FirstByte::Closed => return None,
        FirstByte::Other(_) => (Transport::Plain(socket), Channel::Plain),
        FirstByte::Tls => {
            let deadline = Instant::now() + ServingBounds::default().asked_within;
            let handshake = accept(socket, Mode::StartTls, deadline, |_| shown());
            (handshake.await.ok()?, Channel::Tls)
        }
    };
    Some((transport, Caller { channel, address }))
}
