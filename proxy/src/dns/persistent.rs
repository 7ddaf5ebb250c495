//! Connections through a network that drops packets for a while: the system repeats its SYN after 1, 3 and 7 s
//! (RFC 6298 section 5.5), so that a connection asked for early in an outage comes long after its end. Another
//! is asked for beside it every two seconds; the first answer counts. All beside the first of each address have
//! a bound in common.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{sync::Semaphore, time::Instant};

use super::happy::Connect;

/// Silence after which another connection is asked for: as often as is tried while stanzas wait.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Connections to one address that are asked for beside each other, at most.
const MOST: usize = 5;
/// Connections that are asked for beside others, of the process: files that an outage of many partners may take.
pub const MOST_BESIDE: usize = 512;

/// Places of [`MOST_BESIDE`].
static BESIDE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MOST_BESIDE)));

/// Opens connections as `connect` does, and asks for another where one is silent for `pause`.
#[must_use]
pub fn persistent(connect: &Connect, pause: Duration) -> Connect {
    persistent_within(connect, pause, &BESIDE)
}

fn persistent_within(connect: &Connect, pause: Duration, beside: &Arc<Semaphore>) -> Connect {
    let connect = Arc::clone(connect);
    let beside = Arc::clone(beside);
    Arc::new(move |address: SocketAddr| {
        let (connect, beside) = (Arc::clone(&connect), Arc::clone(&beside));
        async move {
            let mut first = connect(address).fuse();
            // Each with its place.
            let mut further = FuturesUnordered::new();
            let mut begun = 1;
            let mut next = Instant::now() + pause;
            loop {
                tokio::select! {
                    answer = &mut first => return answer,
                    Some((answer, _place)) = further.next() => match answer {
                        // No file or port was left for it: that says nothing of the peer.
                        Err(ref error) if !is_answer(error) => {}
                        answer => return answer,
                    },
                    () = tokio::time::sleep_until(next), if begun < MOST => {
                        next += pause;
                        begun += 1;
                        if let Ok(place) = Arc::clone(&beside).try_acquire_owned() {
                            let asked = connect(address);
                            further.push(async move { (asked.await, place) });
                        }
                    }
                }
            }
        }
        .boxed()
    })
}

/// Whether somebody at the other end, or on the way there, said so.
fn is_answer(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::{
        net::{TcpListener, TcpStream},
        time::timeout,
    };

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
    async fn what_fails_here_does_not_end_what_is_under_way_and_all_have_a_bound_in_common() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("bound");
        for places in [0, MOST_BESIDE] {
            let asked = Arc::new(AtomicUsize::new(0));
            let (count, others) = (Arc::clone(&asked), Arc::new(tokio::sync::Notify::new()));
            let connect: Connect = Arc::new(move |_| {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let others = Arc::clone(&others);
                async move {
                    if number > 0 {
                        others.notify_one();
                        // EMFILE
                        return Err(io::Error::from_raw_os_error(24));
                    }
                    let patience = match places {
                        0 => Duration::from_millis(50),
                        _ => Duration::from_secs(60),
                    };
                    let second = timeout(patience, others.notified()).await;
                    assert_eq!(second.is_ok(), places > 0);
                    TcpStream::connect(to).await
                }
                .boxed()
            });
            let beside = Arc::new(Semaphore::new(places));
            let connect = persistent_within(&connect, Duration::from_millis(1), &beside);
            let opened = connect(anywhere()).await;
            opened.expect("the first gets through");
            assert!(asked.load(Ordering::SeqCst) <= MOST);
            assert_eq!(beside.available_permits(), places);
        }
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
