#![allow(clippy::unwrap_used)]

use futures::future;
use parking_lot::Mutex;

use super::*;

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Connects to a listener for those named, refuses or swallows the others; writes down who was
/// tried.
async fn connector(
    works: &'static str,
    swallowed: &'static [&'static str],
) -> (Connect, Arc<Mutex<Vec<SocketAddr>>>) {
    let listener = Arc::new(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let tried = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&tried);
    let connect: Connect = Arc::new(move |address| {
        log.lock().push(address);
        let listener = Arc::clone(&listener);
        async move {
            let text = address.to_string();
            if swallowed.contains(&text.as_str()) {
                return future::pending().await;
            }
            if text == works {
                return TcpStream::connect(listener.local_addr()?).await;
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        }
        .boxed()
    });
    (connect, tried)
}

#[test]
fn families_alternate_and_the_first_leads() {
    let ordered = interleave(addresses(&[
        "[::1]:1",
        "[::2]:1",
        "[::3]:1",
        "1.1.1.1:1",
        "2.2.2.2:1",
    ]));
    assert_eq!(
        Vec::from(ordered),
        addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"])
    );
    let ordered = interleave(addresses(&["1.1.1.1:1", "[::1]:1"]));
    assert_eq!(Vec::from(ordered), addresses(&["1.1.1.1:1", "[::1]:1"]));
    assert!(interleave(Vec::new()).is_empty());
}

/// the black hole does not hold up the address that works.
#[tokio::test]
async fn a_black_hole_does_not_hold_up_the_others() {
    let (connect, _) = connector("192.0.2.1:5269", &["[2001:db8::1]:5269"]).await;
    let mut queue = addresses(&["[2001:db8::1]:5269", "192.0.2.1:5269"]).into();
    let outcome = race(&mut queue, &connect, Duration::from_secs(60)).await;
    assert_eq!(outcome.won.unwrap().1, "192.0.2.1:5269".parse().unwrap());
    // It may yet be needed, when the winner does not negotiate.
    assert_eq!(Vec::from(queue), addresses(&["[2001:db8::1]:5269"]));
}

#[tokio::test]
async fn a_refusal_leads_to_the_next_at_once_and_the_rest_is_left() {
    let (connect, tried) = connector("192.0.2.2:1", &[]).await;
    let mut queue: VecDeque<_> = addresses(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"]).into();
    let outcome = race(&mut queue, &connect, Duration::from_secs(60)).await;
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(*tried.lock(), addresses(&["192.0.2.1:1", "192.0.2.2:1"]));
    assert_eq!(Vec::from(queue), addresses(&["192.0.2.3:1"]));
}

#[tokio::test]
async fn when_all_fail_each_failure_is_told() {
    let (connect, _) = connector("", &["192.0.2.2:1"]).await;
    let mut queue = addresses(&["192.0.2.1:1", "192.0.2.2:1"]).into();
    let outcome = race(&mut queue, &connect, Duration::from_millis(50)).await;
    assert!(outcome.won.is_none());
    let kinds: Vec<_> = outcome
        .failed
        .iter()
        .map(|(_, cause)| cause.kind())
        .collect();
    assert_eq!(
        kinds,
        [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut]
    );
}
