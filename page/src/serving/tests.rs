use std::net::IpAddr;

use axum::{
    response::sse::{Event, Sse},
    routing::get,
};
use futures::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use super::*;

/// What a loaded machine may need for one step.
const GENEROUS: Duration = Duration::from_secs(40);
const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n";

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<io::Result<()>>,
}

async fn served(bounds: ServingBounds) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/caller",
            get(|ConnectInfo(caller): ConnectInfo<SocketAddr>| async move { caller.to_string() }),
        )
        .route("/events", get(events));
    let stop = CancellationToken::new();
    let running = tokio::spawn(serve(listener, app, bounds, stop.clone()));
    Served {
        address,
        stop,
        running,
    }
}

/// One event a tenth of a second, ten in all.
async fn events() -> Sse<impl stream::Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold(0, |number: u32| async move {
        if number == 10 {
            return None;
        }
        sleep(Duration::from_millis(100)).await;
        let event = Event::default().data(number.to_string());
        Some((Ok(event), number + 1))
    });
    Sse::new(events)
}

/// A connection from this address of the machine.
async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let from: IpAddr = from.parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// All that comes until the other end closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut heard = String::new();
    let read = timeout(GENEROUS, stream.read_to_string(&mut heard)).await;
    // A connection that is given up may be reset.
    let _ = read.expect("it ends");
    heard
}

async fn answer(stream: &mut TcpStream, ask: &[u8]) -> String {
    stream.write_all(ask).await.unwrap();
    rest(stream).await
}

#[tokio::test]
async fn health_is_answered_while_others_hold_silent_connections() {
    let served = served(ServingBounds {
        all: 64,
        ..ServingBounds::default()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(connect("127.0.0.2", served.address).await);
    }
    let mut probe = connect("127.0.0.1", served.address).await;
    let heard = answer(&mut probe, ASK).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert!(heard.ends_with("\r\n\r\nok\n"), "{heard}");
    // The oldest gave way.
    assert_eq!(rest(&mut silent[0]).await, "");
}

#[tokio::test]
async fn one_byte_holds_no_connection() {
    let served = served(ServingBounds {
        asked_within: Duration::from_millis(100),
        ..ServingBounds::default()
    })
    .await;
    let mut slow = connect("127.0.0.1", served.address).await;
    assert!(!answer(&mut slow, b"G").await.contains("200"));
    // Nor does one that has been answered.
    let mut kept = connect("127.0.0.1", served.address).await;
    let heard = answer(&mut kept, b"GET /healthz HTTP/1.1\r\nHost: it\r\n\r\n").await;
    assert!(heard.ends_with("\r\n\r\nok\n"), "{heard}");
}

#[tokio::test]
async fn an_answer_that_takes_long_goes_on_whoever_connects() {
    let served = served(ServingBounds {
        all: 4,
        asked_within: Duration::from_millis(100),
        ..ServingBounds::default()
    })
    .await;
    let mut follower = connect("127.0.0.1", served.address).await;
    let ask = b"GET /events HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n";
    follower.write_all(ask).await.unwrap();
    let mut first = [0; 15];
    follower.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(connect("127.0.0.2", served.address).await);
    }
    let heard = rest(&mut follower).await;
    assert!(heard.contains("data: 9"), "{heard}");
}

#[tokio::test]
async fn who_asks_is_known_to_what_answers() {
    let served = served(ServingBounds::default()).await;
    let mut stream = connect("127.0.0.3", served.address).await;
    let own = stream.local_addr().unwrap().to_string();
    let ask = b"GET /caller HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n";
    let heard = answer(&mut stream, ask).await;
    assert!(heard.ends_with(&own), "{heard}");
}

#[tokio::test]
async fn a_server_that_ends_waits_for_nobody_who_asks_nothing() {
    let served = served(ServingBounds::default()).await;
    let mut silent = connect("127.0.0.1", served.address).await;
    let mut begun = connect("127.0.0.1", served.address).await;
    begun.write_all(b"GET /heal").await.unwrap();
    served.stop.cancel();
    let ended = timeout(GENEROUS, served.running).await;
    ended.expect("it ends").unwrap().unwrap();
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(rest(&mut begun).await, "");
}
