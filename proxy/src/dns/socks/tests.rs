#![allow(clippy::unwrap_used)]

use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// What a scripted proxy does: reads so many bytes, says this; `None` hangs from there.
type Script = Vec<(usize, Option<&'static [u8]>)>;

async fn outcome(script: Script, credentials: bool, limit: Duration) -> Result<(), EgressFault> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for (reads, says) in script {
            let mut read = vec![0; reads];
            if socket.read_exact(&mut read).await.is_err() {
                return;
            }
            match says {
                Some(says) => socket.write_all(says).await.unwrap(),
                None => std::future::pending().await,
            }
        }
    });
    let fault = connect(&address.to_string(), credentials, limit).await;
    proxy.abort();
    fault
}

async fn connect(proxy: &str, credentials: bool, limit: Duration) -> Result<(), EgressFault> {
    let config = EgressProxy {
        address: HostPort::parse(proxy, None).unwrap(),
        name_resolution: NameResolution::Proxy,
        has_credentials: credentials,
    };
    let credentials = EgressCredentials::parse(Some(b"edge"), Some(b"pw")).ok();
    let credentials = credentials.filter(|_| config.has_credentials);
    let resolver = Resolver::at("127.0.0.1:9".parse().unwrap()).unwrap();
    let open: Connect = Arc::new(|address| crate::dns::socket::open(address).boxed());
    let endpoint = Endpoint::Name("xmpp.partner.example".parse().unwrap(), 5269);
    let proxy = SocksProxy::new(config, credentials);
    let connected = proxy.connect(&resolver, &open, &endpoint, limit).await;
    connected.map(|_| ())
}

const GENEROUS: Duration = Duration::from_secs(60);
/// Octets of the request for `xmpp.partner.example`.
const REQUEST: usize = 4 + 1 + 20 + 2;

#[tokio::test]
async fn s20_whatever_the_proxy_answers_is_told_in_words() {
    let greeting = |says: &'static [u8]| -> (usize, Option<&'static [u8]>) { (3, Some(says)) };
    let none = greeting(b"\x05\x00");
    let reply = |says: &'static [u8]| vec![none, (REQUEST, Some(says))];
    for (script, label, text) in [
        (
            vec![greeting(b"\x05\xff")],
            "EgressAuthentication",
            "it wants a user name",
        ),
        (
            vec![greeting(b"\x05\x02")],
            "EgressAuthentication",
            "it wants a user name",
        ),
        (
            vec![greeting(b"\x04\x00")],
            "EgressMalformed",
            "does not speak SOCKS5",
        ),
        (
            vec![greeting(b"HTTP/1.1 400 Bad Request\r\n\r\n")],
            "EgressMalformed",
            "does not speak SOCKS5",
        ),
        (
            vec![greeting(b"\x05\x01")],
            "EgressMalformed",
            "a method that was not offered",
        ),
        (
            vec![greeting(b"\x05")],
            "EgressFailed",
            "it ended the connection",
        ),
        (vec![none], "EgressFailed", "it ended the connection"),
        (
            reply(b"\x05\x01\x00\x01\0\0\0\0\0\0"),
            "EgressFailed",
            "general SOCKS server failure (SOCKS reply 1)",
        ),
        (
            reply(b"\x05\x02\x00\x01\0\0\0\0\0\0"),
            "EgressNotAllowed",
            "connection not allowed by ruleset (SOCKS reply 2)",
        ),
        (
            reply(b"\x05\x03\x00\x01\0\0\0\0\0\0"),
            "EgressTargetUnreachable",
            "network unreachable (SOCKS reply 3)",
        ),
        (
            reply(b"\x05\x04\x00\x01\0\0\0\0\0\0"),
            "EgressTargetUnreachable",
            "host unreachable (SOCKS reply 4)",
        ),
        (
            reply(b"\x05\x05\x00\x01\0\0\0\0\0\0"),
            "EgressTargetUnreachable",
            "connection refused (SOCKS reply 5)",
        ),
        (
            reply(b"\x05\x06\x00\x01\0\0\0\0\0\0"),
            "EgressTargetUnreachable",
            "TTL expired (SOCKS reply 6)",
        ),
        (
            reply(b"\x05\x07\x00\x01\0\0\0\0\0\0"),
            "EgressFailed",
            "command not supported (SOCKS reply 7)",
        ),
        (
            reply(b"\x05\x08\x00\x01\0\0\0\0\0\0"),
            "EgressFailed",
            "address type not supported (SOCKS reply 8)",
        ),
        (
            reply(b"\x05\x63\x00\x01\0\0\0\0\0\0"),
            "EgressMalformed",
            "its reply has no meaning",
        ),
        (
            reply(b"\x05\x00\x07\x01\0\0\0\0\0\0"),
            "EgressMalformed",
            "does not speak SOCKS5",
        ),
        (
            reply(b"\x05\x00\x00\x09\0\0\0\0\0\0"),
            "EgressMalformed",
            "does not speak SOCKS5",
        ),
        (
            reply(b"\x05\x00\x00\x03\xffshort"),
            "EgressFailed",
            "it ended the connection",
        ),
    ] {
        let fault = outcome(script, false, GENEROUS).await.unwrap_err();
        assert_eq!(fault.label(), label, "{fault}");
        assert!(fault.to_string().contains(text), "{fault}");
    }
}

#[tokio::test]
async fn s20_a_bound_address_of_any_kind_is_taken_and_the_password_is_judged() {
    let long: &'static [u8] = {
        let mut bytes = b"\x05\x00\x00\x03\xff".to_vec();
        bytes.extend([b'x'; 255]);
        bytes.extend([0, 0]);
        bytes.leak()
    };
    for bound in [
        &b"\x05\x00\x00\x01\0\0\0\0\0\0"[..],
        b"\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x05\x00\x00\x03\x00\0\0",
        long,
    ] {
        let script = vec![(3, Some(&b"\x05\x00"[..])), (REQUEST, Some(bound))];
        outcome(script, false, GENEROUS).await.unwrap();
        let script = vec![
            (4, Some(&b"\x05\x02"[..])),
            (1 + 1 + 4 + 1 + 2, Some(b"\x01\x00")),
            (REQUEST, Some(bound)),
        ];
        outcome(script, true, GENEROUS).await.unwrap();
        // The version of SOCKS in place of that of the negotiation, in one packet with what follows or not.
        let script = vec![
            (4, Some(&b"\x05\x02\x05"[..])),
            (1 + 1 + 4 + 1 + 2, Some(b"\x00")),
            (REQUEST, Some(bound)),
        ];
        outcome(script, true, GENEROUS).await.unwrap();
    }
    let neither = vec![(4, Some(&b"\x05\x02"[..])), (9, Some(b"\x04\x00"))];
    let fault = outcome(neither, true, GENEROUS).await.unwrap_err();
    assert_eq!(fault.label(), "EgressMalformed", "{fault}");
    let wrong = vec![(4, Some(&b"\x05\x02"[..])), (9, Some(b"\x01\x01"))];
    let fault = outcome(wrong, true, GENEROUS).await.unwrap_err();
    assert_eq!(fault.label(), "EgressAuthentication");
    assert!(
        fault.is_refusal()
            && fault
                .to_string()
                .contains("refused the user name or the password")
    );
}

#[tokio::test]
async fn s20_a_proxy_that_hangs_or_is_away_is_waited_for_as_any_target() {
    let limit = Duration::from_millis(200);
    for script in [
        vec![(3, None)],
        vec![(3, Some(&b"\x05\x00"[..])), (REQUEST, None)],
        // A reply that never ends.
        vec![
            (3, Some(&b"\x05\x00"[..])),
            (REQUEST, Some(b"\x05\x00\x00\x03\xff")),
            (1, None),
        ],
    ] {
        let fault = outcome(script, false, limit).await.unwrap_err();
        assert_eq!(fault.label(), "EgressTimeout", "{fault}");
        assert!(!fault.is_refusal());
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap().to_string();
    drop(gone);
    let fault = connect(&address, false, GENEROUS).await.unwrap_err();
    assert_eq!(fault.label(), "EgressUnreachable");
    let text = fault.to_string();
    assert!(text.contains("refused"), "{text}");
}
