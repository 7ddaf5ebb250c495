//! Connections of the admin port: TLS and plain HTTP on one port, told apart by their first byte.
//!
//! Probes and scrapes need no secret and come as they always did; what wants the token is answered over
//! TLS alone (see [`super::server`]), with a leaf that the pool's own intermediate makes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::tls::{FirstByte, Identity, Mode, Transport, accept, sniff};

/// Connections that have not said yet what they are, or are in their handshake.
const MAX_UNDECIDED: usize = 256;
/// A connection says what it is within this, its handshake included.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);
/// Who takes nothing of what is sent for so long has gone: a page that follows would hold its place.
const UNREAD_FOR: Duration = Duration::from_secs(30);
/// After a failure of the system to accept one.
const PAUSE: Duration = Duration::from_millis(100);

/// What is shown to who asks by TLS, once there is anything to show.
pub type ShownIdentity = Arc<dyn Fn() -> Option<Arc<Identity>> + Send + Sync>;

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

impl Connected<IncomingStream<'_, AdminListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, AdminListener>) -> Self {
        Self {
            channel: if stream.io().is_tls() {
                Channel::Tls
            } else {
                Channel::Plain
            },
            address: *stream.remote_addr(),
        }
    }
}

/// Connections that are ready to be served. Those under way end with this.
#[derive(Debug)]
pub struct AdminListener {
    address: SocketAddr,
    decided: mpsc::Receiver<(Transport, SocketAddr)>,
    _accepting: JoinSet<()>,
}

impl AdminListener {
    /// Accepts on `listener` from now on.
    ///
    /// # Errors
    /// What the system says of its address.
    pub fn new(listener: TcpListener, shown: ShownIdentity) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (connections, decided) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept_all(listener, shown, connections));
        Ok(Self {
            address,
            decided,
            _accepting: accepting,
        })
    }
}

impl axum::serve::Listener for AdminListener {
    type Io = Transport;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Transport, SocketAddr) {
        match self.decided.recv().await {
            Some(connection) => connection,
            // What accepts ends with this alone.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept_all(
    listener: TcpListener,
    shown: ShownIdentity,
    connections: mpsc::Sender<(Transport, SocketAddr)>,
) {
    let undecided = Arc::new(Semaphore::new(MAX_UNDECIDED));
    let mut tasks = JoinSet::new();
    // Never closed.
    while let Ok(permit) = Arc::clone(&undecided).acquire_owned().await {
        let Ok((socket, from)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        // Where it cannot be set, who vanishes is noticed later.
        let _ = SockRef::from(&socket).set_tcp_user_timeout(Some(UNREAD_FOR));
        let (shown, connections) = (Arc::clone(&shown), connections.clone());
        tasks.spawn(async move {
            let decided = timeout(DECIDED_WITHIN, decide(&shown, socket)).await;
            drop(permit);
            if let Ok(Some(transport)) = decided {
                // Nobody takes it once the port closes.
                let _ = connections.send((transport, from)).await;
            }
        });
    }
}

/// The connection as it is to be served; `None` where it is of no use.
async fn decide(shown: &ShownIdentity, socket: TcpStream) -> Option<Transport> {
    match sniff(&socket).await.ok()? {
        FirstByte::Closed => None,
        FirstByte::Other(_) => Some(Transport::Plain(socket)),
        FirstByte::Tls => {
            let deadline = Instant::now() + DECIDED_WITHIN;
            let handshake = accept(socket, Mode::StartTls, deadline, |_| shown());
            handshake.await.ok()
        }
    }
}
