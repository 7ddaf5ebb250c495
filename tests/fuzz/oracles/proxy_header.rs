//! What must hold for any bytes that a load balancer, or someone who poses as one, may send.

use xmpp_edge_proxy::net::proxy_protocol::{ProxyHeaderError, parse};

/// The answer never claims bytes that are not there, and once final it stays the same whatever follows.
pub fn check(data: &[u8]) {
    let whole = parse(data);
    for end in 0..data.len().min(1200) {
        match parse(&data[..end]) {
            Ok(None) => {}
            Ok(Some(header)) => {
                assert!(header.len <= end);
                assert_eq!(whole, Ok(Some(header)));
            }
            Err(error) => assert_eq!(whole, Err::<Option<_>, ProxyHeaderError>(error)),
        }
    }
    if let Ok(Some(header)) = whole {
        assert!(header.len <= data.len());
    }
}
