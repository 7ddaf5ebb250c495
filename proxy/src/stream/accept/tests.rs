//! The wait for a PROXY header: what a balancer, or who pretends to be one, may cost.

use std::net::Ipv4Addr;

use prometheus_client::encoding::text::encode;
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::*;
use crate::config::fixture;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 5269\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x9c\x40\x14\x95";

/// An edge that takes PROXY headers from these networks.
fn context(sources: &[&str]) -> Arc<StreamContext> {
    let config = fixture::active_config(|document| {
        document["proxyProtocolSources"] = serde_json::json!(sources);
        document["settings"]["streamEstablishmentTimeoutSeconds"] = 1.into();
    });
    StreamContext::alone(config).0
}

/// A connection from loopback: our end, and that of whoever connected.
async fn connection() -> (TcpStream, SocketAddr, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port is free");
    let address = listener.local_addr().expect("bound");
    let (accepted, theirs) = tokio::join!(listener.accept(), TcpStream::connect(address));
    let (ours, from) = accepted.expect("accepted");
    (ours, from, theirs.expect("connected"))
}

fn is_counted(context: &StreamContext, reason: &str) -> bool {
    let mut text = String::new();
    encode(&mut text, context.metrics.registry()).expect("text");
    text.contains(&format!(
        "connections_refused_total{{reason=\"{reason}\"}} 1"
    ))
}

#[tokio::test]
async fn a_proxy_header_may_come_byte_by_byte_and_nothing_behind_it_is_taken() {
    for header in [V1, V2] {
        // One byte fits: the next comes once the last was read.
        let (mut ours, mut theirs) = tokio::io::duplex(1);
        let sent = async {
            theirs.write_all(header).await.expect("taken");
            theirs.write_all(b"<").await.expect("room for one");
            theirs
        };
        let (read, _theirs) = tokio::join!(read_proxy_header(&mut ours), sent);
        assert_eq!(read.expect("a header"), "203.0.113.7:40000".parse().ok());
        assert_eq!(ours.read_u8().await.expect("it is left"), b'<');
    }
}

#[tokio::test]
async fn a_proxy_header_that_is_broken_or_endless_is_given_up_at_the_byte_that_makes_it_so() {
    let endless_v1 = [b"PROXY TCP4 ".as_slice(), &[b'1'; 4096]].concat();
    let endless_v2 = [&V2[..14], &[0xff; 4096]].concat();
    for (header, most) in [
        (endless_v1, 107),
        (endless_v2, 16),
        (
            [b"PROXY TCP4 1.2.3.4\n".as_slice(), &[b'x'; 4096]].concat(),
            19,
        ),
        ([&V2[..12], b"\x31".as_slice(), &[0; 4096]].concat(), 16),
        ([b"<stream:stream".as_slice(), &[b' '; 4096]].concat(), 1),
    ] {
        let mut rest = &header[..];
        let error = read_proxy_header(&mut rest).await.expect_err("no header");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let taken = header.len() - rest.len();
        assert!(taken <= most, "{taken} bytes of {most}: {error}");
    }
    // Whoever goes amid it.
    for header in [V1, V2] {
        for cut in 0..header.len() {
            let error = read_proxy_header(&mut &header[..cut]).await;
            let error = error.expect_err("cut").kind();
            assert_eq!(error, io::ErrorKind::UnexpectedEof, "{cut} of {header:?}");
        }
    }
}

#[tokio::test]
async fn a_proxy_header_has_one_time_for_all_of_its_bytes() {
    let context = context(&["127.0.0.0/8"]);
    let (ours, from, mut theirs) = connection().await;
    let served = serve(Arc::clone(&context), ListenerKind::S2s, ours, from);
    let slowly = async {
        for byte in V1 {
            theirs.write_all(&[*byte]).await?;
            // Never silent for long; all of it takes several times as long as it may.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        io::Result::Ok(())
    };
    tokio::select! {
        () = served => {}
        sent = slowly => panic!("it is waited for until the end: {sent:?}"),
    }
    assert!(is_counted(&context, "ProxyHeaderTimeout"));
    assert!(context.unauthenticated.is_empty());
    // The place among those who are waited for is free again.
    let places: Vec<_> =
        std::iter::from_fn(|| context.unauthenticated.await_proxy_header()).collect();
    assert_eq!(places.len(), crate::net::unauthenticated::TOTAL);
}

#[tokio::test]
async fn who_may_not_say_it_or_comes_while_too_many_wait_is_not_waited_for() {
    for (sources, reason) in [
        (["192.0.2.0/24"], "ProxyHeaderUntrusted"),
        (["127.0.0.0/8"], "Unauthenticated"),
    ] {
        let context = context(&sources);
        let waiting = std::iter::from_fn(|| context.unauthenticated.await_proxy_header());
        let waiting: Vec<_> = waiting.collect();
        let (ours, from, mut theirs) = connection().await;
        theirs.write_all(V1).await.expect("sent");
        let served = serve(Arc::clone(&context), ListenerKind::S2s, ours, from);
        let at_once = futures::FutureExt::now_or_never(served);
        assert!(
            at_once.is_some() && is_counted(&context, reason),
            "{reason}"
        );
        assert!(context.unauthenticated.is_empty());
        drop(waiting);
    }
}
