//! The edge in process, between its two servers.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::EdgeConfig;
use xmpp_edge_proxy::{
    app::{self, RunOptions, ServeError},
    config::{ConfigInputs, ConfigSecrets, ConfigUpdate},
};
use zeroize::Zeroizing;

use super::{
    Confirms, Plan, Unproved,
    connection::Stream,
    server::{Served, Server},
    within,
};

pub struct Lab {
    public: SocketAddr,
    internal: SocketAddr,
    admin: u16,
    pub gateway: Server,
    pub partner: Server,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
    inputs: watch::Sender<ConfigUpdate>,
    _state: tempfile::TempDir,
}

impl Lab {
    pub async fn start(number: u8, plan: Plan) -> Self {
        let of = |last: u8, port| SocketAddr::from(([127, 90, number, last], port));
        let acks = plan.gateway_acks;
        let partner = Server::open(
            of(2, 5269),
            Served {
                acks: plan.partner_acks,
                confirms: plan.partner_confirms,
                ends: plan.partner_ends,
                on_second: plan.partner_on_second,
                turned_away: AtomicUsize::new(plan.partner_turns_away),
                slow: plan.partner_is_slow,
                ..Served::default()
            },
        );
        let gateway = Server::open(
            of(3, 5269),
            Served {
                acks,
                confirms: plan.gateway_confirms,
                ends: plan.gateway_ends,
                deaf: plan.deaf_connections,
                ..Served::default()
            },
        );
        let inputs = inputs(number, &plan);
        let (sender, receiver) = watch::channel(inputs.into());
        let state = tempfile::tempdir().expect("a directory");
        let options = RunOptions {
            bind: vec![of(1, 0).ip()],
            internal_bind: vec![of(1, 0).ip()],
            // Nothing is looked up: every address is fixed.
            resolver: Some(of(1, 53)),
            trust_anchors: Default::default(),
            state_dir: state.path().to_owned(),
            pod: None,
            peer_keys: None,
            further_metrics: None,
            control: None,
            outdated_sidecars: None,
        };
        let shutdown = CancellationToken::new();
        // Never told: without certificate it is not ready, and listens all the same.
        let (ready, _) = oneshot::channel();
        let running = tokio::spawn(app::run(options, receiver, shutdown.clone(), ready));
        Self {
            public: of(1, 5269),
            internal: of(1, 23456),
            admin: plan.admin,
            gateway,
            partner,
            shutdown,
            running,
            inputs: sender,
            _state: state,
        }
    }

    pub async fn connect_partner(&self) -> Stream {
        self.connect(self.public).await
    }

    /// A connection to the admin port.
    pub async fn connect_admin(&self) -> Stream {
        self.connect(SocketAddr::new(self.public.ip(), self.admin))
            .await
    }

    async fn connect(&self, address: SocketAddr) -> Stream {
        let stream = within("a connection to the edge", async {
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    return stream;
                }
                tokio::task::yield_now().await;
                assert!(!self.running.is_finished(), "the edge has ended");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        Stream::new(stream)
    }

    /// A stream from the partner's domain, authenticated by dialback.
    pub async fn partner_stream(&self) -> Stream {
        let stream = self.connect_partner().await;
        stream.authenticate("partner.example", "org.example").await
    }

    /// A stream from an own domain to a partner's, authenticated by dialback.
    pub async fn inside_stream(&self, from: &str, to: &str) -> Stream {
        let stream = self.connect(self.internal).await;
        stream.authenticate(from, to).await
    }

    /// Another configuration comes into force.
    pub fn change(&self, change: impl FnOnce(&mut EdgeConfig)) {
        self.inputs.send_modify(|offer| {
            let inputs = offer.inputs.as_mut().expect("it was begun with");
            // The edge holds the one before: this is another.
            let config = Arc::make_mut(&mut inputs.config);
            config.generation += 1;
            change(config);
        });
    }

    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// The edge no longer accepts: it drains.
    pub async fn refuses_connections(&self) {
        within("the listener's end", async {
            while TcpStream::connect(self.public).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// `GET path` on the admin port, whole.
    pub async fn get(&self, path: &str) -> String {
        get(SocketAddr::new(self.public.ip(), self.admin), path).await
    }

    /// Whoever offers configurations is gone.
    pub fn lose_the_configuration(&mut self) {
        self.inputs = watch::channel(ConfigUpdate::default()).0;
    }

    /// Why the edge ended.
    pub async fn failure(self) -> ServeError {
        within("the edge's end", self.running)
            .await
            .expect("no panic")
            .expect_err("it ends for a reason")
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        within("the edge's end", self.running)
            .await
            .expect("no panic")
            .expect("an orderly end");
    }
}

/// `GET path` on the admin port at `address`, whole.
pub async fn get(address: SocketAddr, path: &str) -> String {
    let answered = async {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it is read");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it is answered");
        answer
    };
    within("an answer of the admin port", answered).await
}

/// A server that answers for its keys, by itself.
pub fn server_at(address: SocketAddr) -> Server {
    Server::open(address, Served::default())
}

/// A server that answers for its keys and confirms so what it gets.
pub fn server_that(address: SocketAddr, confirms: Confirms) -> Server {
    Server::open(
        address,
        Served {
            confirms,
            ..Served::default()
        },
    )
}

/// A server that gets the keys of these domains not verified.
pub fn server_without(
    address: SocketAddr,
    unproved: impl IntoIterator<Item = (&'static str, Unproved)>,
) -> Server {
    Server::open(
        address,
        Served {
            unproved: unproved.into_iter().collect(),
            ..Served::default()
        },
    )
}

/// The partner's server alone, which answers for its keys.
pub fn partner_server(number: u8, plan: &Plan) -> Server {
    Server::open(
        SocketAddr::from(([127, 90, number, 2], 5269)),
        Served {
            acks: plan.partner_acks,
            ..Served::default()
        },
    )
}

/// An organisation and a partner of two domains each, both in plaintext at fixed addresses.
pub fn inputs(number: u8, plan: &Plan) -> ConfigInputs {
    let of = |last: u8, port| SocketAddr::from(([127, 90, number, last], port));
    let timeout = match plan.queue_timeout_seconds {
        0 => 20,
        seconds => seconds,
    };
    let mut config = serde_json::json!({
        "version": {"major": 1, "minor": 0}, "generation": 1,
        "namespace": "default", "pool": "edge", "site": "a", "fqdn": "edge.org.example",
        "domains": ["org.example", "org2.example"],
        "namespaceDomains": ["org.example", "org2.example"],
        "listeners": {"s2s": 5269, "directTls": 0, "internal": 23456, "admin": plan.admin, "dns": 0},
        "gateways": [{
            "domains": ["org.example", "org2.example"], "mode": "Direct",
            "address": of(3, 5269).to_string(),
            "negotiation": {"tls": "NotSupported", "sasl": "NotSupported", "dialback": true},
            "methods": ["TcpDialback"],
        }],
        "partners": [{
            "name": "partner", "domains": ["partner.example", "partner2.example"], "partnerType": "Federated",
            "negotiation": {"tls": "NotSupported", "sasl": "NotSupported", "dialback": true},
            "methods": ["TcpDialback"], "enableKeepAlive": true, "connectionLimit": 20,
            "proxyFqdn": of(2, 5269).to_string(),
        }],
        "access": {
            "policies": [{
                "name": "all", "scope": "Global", "enableFederationAccess": true,
                "enableXmppAccess": true, "enablePublicCloudAccess": true, "mode": "Enforce",
            }],
            "homeSites": {"org.example": "a", "org2.example": "a"},
        },
        "settings": {"queueTimeoutSeconds": timeout},
        "contacts": "Embedded",
    });
    if plan.never_by_ping {
        config["partners"][0]["confirmByPing"] = false.into();
    }
    if plan.partner_connection_limit > 0 {
        config["partners"][0]["connectionLimit"] = plan.partner_connection_limit.into();
    }
    if plan.max_stanza_bytes > 0 {
        config["settings"]["maxStanzaBytes"] = plan.max_stanza_bytes.into();
    }
    ConfigInputs {
        document_sha256: None,
        config: Arc::new(serde_json::from_value(config).expect("a configuration")),
        materials: Arc::new(ConfigSecrets {
            certificate: None,
            internal_ca: authority(),
            issuer: None,
            dialback_secret: Zeroizing::new(b"a secret of the lab".to_vec()),
            dialback_previous: None,
            admin_token: None,
            contacts_url: None,
            contacts_ca: None,
            egress_credentials: None,
            sip_pairs: Default::default(),
        }),
        edge_dials: None,
    }
}

fn authority() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.self_signed(&key).expect("a certificate").pem()
}
