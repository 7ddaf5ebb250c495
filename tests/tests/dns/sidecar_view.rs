//! B-44: a sidecar's DNS view as `dig` sees it, with a real name server, BIND and Knot, behind it.

use std::{net::SocketAddr, process::Command, sync::Arc};

use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};
use xmpp_edge_crds::sidecar_config::{OtherGatewayDocument, SidecarConfig, SidecarDocument};
use xmpp_edge_proxy::dns_view::{Rules, View};
use xmpp_edge_tests::primary::{Primary, Software};

/// More than fits into any answer over UDP.
const LARGE: usize = 40;

struct RunningView {
    address: SocketAddr,
    view: Arc<View>,
    _stop: DropGuard,
}

impl RunningView {
    async fn start(upstream: SocketAddr) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let view = View::new(Rules::unknown(), move || vec![upstream]);
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&view).serve(udp, tcp, stop.clone()));
        Self {
            address,
            view,
            _stop: stop.drop_guard(),
        }
    }

    /// What `dig` prints for these arguments.
    async fn dig(&self, arguments: &str) -> String {
        let address = self.address;
        let arguments = arguments.to_owned();
        let asked = move || {
            let output = Command::new("dig")
                .arg(format!("@{}", address.ip()))
                .args(["-p", &address.port().to_string(), "+time=10", "+tries=1"])
                .args(arguments.split(' '))
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        tokio::task::spawn_blocking(asked).await.unwrap()
    }

    /// The answers alone, sorted.
    async fn short(&self, arguments: &str) -> Vec<String> {
        let said = self.dig(&format!("+short {arguments}")).await;
        let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn config() -> SidecarConfig {
    let own = vec!["org.example".to_owned()];
    let mut document = SidecarDocument::new("chat", "org.example", own);
    document.other_gateways = vec![OtherGatewayDocument {
        domains: vec!["lab.example".to_owned()],
        address: Some("ejabberd.inside.example:5269".to_owned()),
    }];
    SidecarConfig::parse(document.to_json().as_bytes(), "test").unwrap()
}

#[tokio::test]
async fn b_44_every_row_of_the_view_and_what_it_forwards_are_what_dig_expects() {
    let texts: String = (0..LARGE)
        .map(|n| format!("large IN TXT \"{n} {}\"\n", "x".repeat(100)))
        .collect();
    let records = format!(
        "ejabberd IN A 192.0.2.7\nejabberd IN AAAA 2001:db8::7\n\
         _xmpp-server._tcp IN SRV 0 0 5269 elsewhere.inside.example.\n{texts}"
    );
    for software in Software::ALL {
        let upstream = Primary::start(software, &[("inside.example", &records)])
            .await
            .unwrap();
        let served = RunningView::start(upstream.address()).await;
        for name in [
            "_xmpp-server._tcp.partner.example",
            "_xmpps-server._tcp.org.example",
        ] {
            let said = served.dig(&format!("{name} SRV")).await;
            assert!(said.contains("status: SERVFAIL"), "{said}");
        }
        let loopback = ["127.0.0.1".parse().unwrap()];
        served
            .view
            .swap(Rules::of_sidecar(&config(), &loopback, 23456));
        let sidecar = "0 0 23456 sidecar.xmpp-edge.internal.";
        for (asked, expected) in [
            ("_xmpp-server._tcp.partner.example SRV", sidecar),
            // What the name server has of it leads around the edge, and is not asked.
            ("_xmpp-server._tcp.inside.example SRV", sidecar),
            ("_xmpp-server._tcp.org.example SRV", "0 0 0 ."),
            ("_xmpps-server._tcp.partner.example SRV", "0 0 0 ."),
            (
                "_xmpp-server._tcp.lab.example SRV",
                "0 0 5269 ejabberd.inside.example.",
            ),
            ("sidecar.xmpp-edge.internal A", "127.0.0.1"),
            ("ejabberd.inside.example A", "192.0.2.7"),
            ("ejabberd.inside.example AAAA", "2001:db8::7"),
        ] {
            for over in ["+notcp", "+tcp"] {
                let answers = served.short(&format!("{over} {asked}")).await;
                assert_eq!(answers, [expected], "{software:?} {over} {asked}");
            }
        }
        let said = served.dig("nobody.inside.example A").await;
        assert!(said.contains("status: NXDOMAIN"), "{said}");
        // Truncated as it came; who asks again over TCP has the whole.
        let said = served.dig("+ignore +noedns large.inside.example TXT").await;
        assert!(
            said.contains("flags: qr") && said.contains(" tc "),
            "{said}"
        );
        let whole = served.short("large.inside.example TXT").await;
        assert_eq!(whole.len(), LARGE, "{software:?}");
    }
}
