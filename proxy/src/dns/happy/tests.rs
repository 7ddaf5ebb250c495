#![allow(clippy::unwrap_used)]

use futures::future;
use parking_lot::Mutex;

use super::*;

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
    let addresses = addresses(texts).into_iter();
    addresses.map(Endpoint::Address).collect()
}

/// Connects to a listener for those named, refuses or swallows the others; writes down who was
/// tried.
async fn connector(
    works: &'static str,
    swallowed: &'static [&'static str],
) -> (Opener, Arc<Mutex<Vec<Endpoint>>>) {
    let listener = Arc::new(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let tried = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&tried);
    let connect: Opener = Arc::new(move |endpoint| {
        log.lock().push(endpoint.clone());
        let listener = Arc::clone(&listener);
        async move {
            let text = endpoint.to_string();
            if swallowed.contains(&text.as_str()) {
                return future::pending().await;
            }
            if text == works {
                return Ok(TcpStream::connect(listener.local_addr()?).await?);
            }
            Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
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
        endpoints(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"])
    );
    let ordered = interleave(addresses(&["1.1.1.1:1", "[::1]:1"]));
    assert_eq!(Vec::from(ordered), endpoints(&["1.1.1.1:1", "[::1]:1"]));
    assert!(interleave(Vec::new()).is_empty());
}

/// the black hole does not hold up the address that works.
#[tokio::test]
async fn a_black_hole_does_not_hold_up_the_others() {
    let (connect, _) = connector("192.0.2.1:5269", &["[2001:db8::1]:5269"]).await;
    let mut queue = endpoints(&["[2001:db8::1]:5269", "192.0.2.1:5269"]).into();
    let outcome = race(&mut queue, &connect).await;
    assert_eq!(outcome.won.unwrap().1, endpoints(&["192.0.2.1:5269"])[0]);
    // It may yet be needed, when the winner does not negotiate.
    assert_eq!(Vec::from(queue), endpoints(&["[2001:db8::1]:5269"]));
}

#[tokio::test]
async fn a_refusal_leads_to_the_next_at_once_and_the_rest_is_left() {
    let (connect, tried) = connector("192.0.2.2:1", &[]).await;
    let mut queue: VecDeque<_> = endpoints(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"]).into();
    let outcome = race(&mut queue, &connect).await;
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(*tried.lock(), endpoints(&["192.0.2.1:1", "192.0.2.2:1"]));
    assert_eq!(Vec::from(queue), endpoints(&["192.0.2.3:1"]));
}

#[tokio::test]
async fn when_all_fail_each_failure_is_told() {
    let (connect, _) = connector("", &[]).await;
    let mut queue = endpoints(&["192.0.2.1:1", "192.0.2.2:1"]).into();
    let outcome = race(&mut queue, &connect).await;
    assert!(outcome.won.is_none());
    let failed = outcome.failed.iter().map(|(endpoint, _)| endpoint.clone());
    assert_eq!(
        failed.collect::<Vec<_>>(),
        endpoints(&["192.0.2.1:1", "192.0.2.2:1"])
    );
}
