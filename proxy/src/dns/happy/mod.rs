//! Happy Eyeballs (RFC 8305) over the addresses of one target: families alternate, a new attempt
//! starts when the last one failed or has been silent for a while, the first to connect wins.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::timeout};

/// RFC 8305 section 8: "Connection Attempt Delay".
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens one connection.
pub type Connect =
    Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

/// How the race over some addresses went. What was not tried when one won is left in the queue.
#[derive(Debug)]
pub struct RaceOutcome {
    pub won: Option<(TcpStream, SocketAddr)>,
    /// Attempts that failed, in the order in which they did.
    pub failed: Vec<(SocketAddr, io::Error)>,
}

/// Puts addresses in the order of RFC 8305 section 4: the first family of the list leads, then
/// they alternate.
#[must_use]
pub fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let lead_v6 = addresses.first().is_none_or(SocketAddr::is_ipv6);
    let (mut lead, mut follow): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == lead_v6);
    let mut ordered = VecDeque::with_capacity(lead.len() + follow.len());
    while let Some(address) = lead.pop_front() {
        ordered.push_back(address);
        ordered.extend(follow.pop_front());
    }
    ordered.append(&mut follow);
    ordered
}

/// Races the addresses at the head of `queue`; each attempt has `limit`. Attempts still under way
/// when one wins are dropped and go back to the queue's end: the winner may yet fail to negotiate.
pub async fn race(
    queue: &mut VecDeque<SocketAddr>,
    connect: &Connect,
    limit: Duration,
) -> RaceOutcome {
    let mut attempts = FuturesUnordered::new();
    let mut under_way: Vec<SocketAddr> = Vec::new();
    let mut failed = Vec::new();
    loop {
        if let Some(address) = queue.pop_front() {
            under_way.push(address);
            let attempt = timeout(limit, connect(address)).map(move |result| {
                let result = result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                (address, result)
            });
            attempts.push(attempt.boxed());
        }
        // A failure starts the next attempt at once, silence after a while.
        loop {
            let finished = if queue.is_empty() {
                attempts.next().await
            } else {
                match timeout(ATTEMPT_DELAY, attempts.next()).await {
                    Ok(finished) => finished,
                    Err(_) => break,
                }
            };
            let Some((address, result)) = finished else {
                return RaceOutcome { won: None, failed };
            };
            under_way.retain(|other| *other != address);
            match result {
                Ok(stream) => {
                    queue.extend(under_way);
                    return RaceOutcome {
                        won: Some((stream, address)),
                        failed,
                    };
                }
                Err(cause) => failed.push((address, cause)),
            }
            if !queue.is_empty() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
