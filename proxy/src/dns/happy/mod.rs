//! Happy Eyeballs (RFC 8305) over the addresses of one target: families alternate, a new attempt
//! starts when the last one failed or has been silent for a while, the first to connect wins.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::timeout};

use super::{Endpoint, error::OpenFault};

/// RFC 8305 section 8: "Connection Attempt Delay".
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens one TCP connection; there is no limit of time.
pub type Connect =
    Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

/// Opens one connection to a server, by whatever way, within a limit of time.
pub type Opener =
    Arc<dyn Fn(Endpoint) -> BoxFuture<'static, Result<TcpStream, OpenFault>> + Send + Sync>;

/// How the race over some addresses went. What was not tried when one won is left in the queue.
#[derive(Debug)]
pub struct RaceOutcome {
    pub won: Option<(TcpStream, Endpoint)>,
    /// Attempts that failed, in the order in which they did.
    pub failed: Vec<(Endpoint, OpenFault)>,
}

/// Puts addresses in the order of RFC 8305 section 4: the first family of the list leads, then
/// they alternate.
#[must_use]
pub fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<Endpoint> {
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
    ordered.into_iter().map(Endpoint::Address).collect()
}

/// Races what stands at the head of `queue`. Attempts still under way when one wins are dropped and go
/// back to the queue's end: the winner may yet fail to negotiate.
pub async fn race(queue: &mut VecDeque<Endpoint>, open: &Opener) -> RaceOutcome {
    let mut attempts = FuturesUnordered::new();
    let mut under_way: Vec<Endpoint> = Vec::new();
    let mut failed = Vec::new();
    loop {
        if let Some(endpoint) = queue.pop_front() {
            under_way.push(endpoint.clone());
            attempts.push(open(endpoint.clone()).map(move |result| (endpoint, result)));
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
            let Some((endpoint, result)) = finished else {
                return RaceOutcome { won: None, failed };
            };
            under_way.retain(|other| *other != endpoint);
            match result {
                Ok(stream) => {
                    queue.extend(under_way);
                    return RaceOutcome {
                        won: Some((stream, endpoint)),
                        failed,
                    };
                }
                Err(cause) => failed.push((endpoint, cause)),
            }
            if !queue.is_empty() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
