//! Options of every socket that carries streams.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes unacknowledged for this long end the connection (RFC 5482): a dead peer is noticed
/// by whatever is written, whitespace too.
pub const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Opens a connection to `address`, with [`tune`]d options.
///
/// # Errors
/// What the system says; there is no limit of time.
pub async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    let stream = socket.connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// No delay, keep-alive after 60 s, [`USER_TIMEOUT`]; for accepted connections too.
///
/// # Errors
/// What the system says.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}
