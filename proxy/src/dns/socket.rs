//! Options of every socket that carries streams.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes unacknowledged for this long end the connection (RFC 5482): a dead peer is noticed
/// by whatever is written, whitespace too.
pub const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Silence after which the system probes the peer (RFC 9293 section 3.8.4), and how often then. With
/// [`USER_TIMEOUT`] Linux counts from the last byte heard, not from the first probe: several must fit in
/// between, or one lost packet in a quiet minute ends the connection.
const PROBED_AFTER: Duration = Duration::from_secs(30);
const PROBED_EVERY: Duration = Duration::from_secs(10);

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

/// No delay, keep-alive after 30 s, [`USER_TIMEOUT`]; for accepted connections too.
///
/// # Errors
/// What the system says.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(PROBED_AFTER)
        .with_interval(PROBED_EVERY);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// From here on bytes unacknowledged for so long end the connection, in place of [`USER_TIMEOUT`].
///
/// # Errors
/// What the system says.
pub fn give_up_after(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(limit))?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn s12_one_lost_probe_in_a_quiet_minute_costs_no_stream() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("it has one");
        let stream = open(address).await.expect("it listens");
        let socket = SockRef::from(&stream);
        let first = socket.tcp_keepalive_time().expect("an option");
        let pause = socket.tcp_keepalive_interval().expect("an option");
        let limit = socket.tcp_user_timeout().expect("an option").expect("set");
        assert!(socket.keepalive().expect("an option"));
        // The third probe is out before silence can be the end.
        assert!(
            first + 2 * pause < limit,
            "{first:?} + 2 * {pause:?}, {limit:?}"
        );
    }
}
