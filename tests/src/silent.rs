//! An address that is silent: what is sent there to open a connection gets no answer, as behind a
//! firewall that drops.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

/// Connections under way that fill the queue of a listener that never accepts.
const FILLING: usize = 4;

/// Silent as long as it lives.
#[derive(Debug)]
pub struct Silent {
    _listener: TcpListener,
    _filling: JoinSet<()>,
}

impl Silent {
    /// Takes an IPv4 address.
    ///
    /// # Errors
    /// When it is not free.
    pub fn at(address: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(0)?;
        let mut filling = JoinSet::new();
        for _ in 0..FILLING {
            let connecting = TcpSocket::new_v4()?.connect(address);
            filling.spawn(async move {
                let _connected = connecting.await;
                std::future::pending().await
            });
        }
        Ok(Self {
            _listener: listener,
            _filling: filling,
        })
    }
}
