//! Connections through a network that drops packets for a while: the system repeats its SYN after 1, 3 and 7 s
//! (RFC 6298 section 5.5), so that a connection asked for early in an outage comes long after its end. Another
//! is asked for beside it every two seconds; the first answer counts.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::timeout;

use super::happy::Connect;

/// Silence after which another connection is asked for: as often as is tried while stanzas wait.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Connections to one address that are asked for beside each other, at most.
const MOST: usize = 5;

/// Opens connections as `connect` does, and asks for another where one is silent for `pause`.
#[must_use]
pub fn persistent(connect: &Connect, pause: Duration) -> Connect {
    let connect = Arc::clone(connect);
    Arc::new(move |address: SocketAddr| {
        let connect = Arc::clone(&connect);
        async move {
            let mut asked = FuturesUnordered::new();
            loop {
                asked.push(connect(address));
                if asked.len() >= MOST {
                    break;
                }
                if let Ok(Some(answer)) = timeout(pause, asked.next()).await {
                    return answer;
                }
            }
            match asked.next().await {
                Some(answer) => answer,
                // Never: it was filled above.
                None => connect(address).await,
            }
        }
        .boxed()
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Drops the first so many, then answers so.
    fn dropping(
        dropped: usize,
        answer: impl Fn() -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> (Connect, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let connect: Connect = Arc::new(move |_| {
            let is_dropped = count.fetch_add(1, Ordering::SeqCst) < dropped;
            let to = answer();
            async move {
                match to {
                    _ if is_dropped => std::future::pending().await,
                    Some(to) => TcpStream::connect(to).await,
                    None => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            }
            .boxed()
        });
        (connect, asked)
    }

    fn anywhere() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 5269))
    }

    #[tokio::test]
    async fn packets_dropped_for_a_while_cost_no_connection_its_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("bound");
        let (connect, asked) = dropping(3, move || Some(to));
        let connect = persistent(&connect, Duration::from_millis(1));
        let opened = timeout(Duration::from_secs(60), connect(anywhere())).await;
        opened
            .expect("another is asked for")
            .expect("the fourth gets through");
        assert!((4..=MOST).contains(&asked.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_silence_costs_a_bounded_number() {
        let (connect, asked) = dropping(0, || None);
        let outcome = persistent(&connect, Duration::from_millis(1))(anywhere()).await;
        let refused = outcome.expect_err("it refuses").kind();
        assert_eq!(refused, io::ErrorKind::ConnectionRefused);
        assert_eq!(asked.load(Ordering::SeqCst), 1);

        let (connect, asked) = dropping(usize::MAX, || None);
        let opening = persistent(&connect, Duration::from_micros(1))(anywhere());
        let silent = timeout(Duration::from_millis(200), opening).await;
        assert!(silent.is_err(), "nobody answers");
        assert!(asked.load(Ordering::SeqCst) <= MOST);
    }
}
