//! Edges and sidecars in process, whole or in part, between the scripted servers of [`crate::peers`].

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Value, json};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{EdgeConfig, SidecarServers},
};
use xmpp_edge_proxy::{
    app::{self, RunOptions, ServeError},
    config::{ActiveConfig, ConfigInputs, ConfigSecrets, ConfigUpdate, sidecar::SidecarSettings},
    contacts::ContactStore,
    dns::{Dialer, Resolver},
    negotiation::{Pair, Side},
    routing::{acknowledgement::AckTracker, batch::BatchBuilder},
    stream::{
        connect,
        context::StreamContext,
        trunk::{self, outdated::OutdatedSidecar},
    },
    telemetry::config_status::Telemetry,
};
use zeroize::Zeroizing;

use super::pki::{OWN, Pki, Shown};
use crate::peers::{Stream, within};

/// Address number `last` of the test of this number.
pub fn at(number: u8, last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 91, number, last], port))
}

/// A running engine, with threads of its own: all of it can be killed at once.
pub struct Engine {
    threads: Option<Runtime>,
    pub address: SocketAddr,
    /// Sidecars that it says to refuse for their version.
    pub outdated: watch::Receiver<Vec<OutdatedSidecar>>,
    inputs: watch::Sender<ConfigUpdate>,
    shutdown: CancellationToken,
    running: Option<JoinHandle<Result<(), ServeError>>>,
    _state: tempfile::TempDir,
}

impl Engine {
    pub fn start(address: SocketAddr, inputs: ConfigInputs) -> Self {
        let (sender, receiver) = watch::channel(inputs.into());
        let state = tempfile::tempdir().expect("a directory");
        let (tell, outdated) = watch::channel(Vec::new());
        let options = RunOptions {
            bind: vec![address.ip()],
            internal_bind: vec![address.ip()],
            // Nothing is looked up: every address is fixed.
            resolver: Some(SocketAddr::new(address.ip(), 53)),
            trust_anchors: Default::default(),
            state_dir: state.path().to_owned(),
            pod: None,
            peer_keys: None,
            further_metrics: None,
            control: None,
            outdated_sidecars: Some(tell),
        };
        let shutdown = CancellationToken::new();
        let (ready, _) = oneshot::channel();
        let threads = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads");
        Self {
            address: SocketAddr::new(address.ip(), 23456),
            running: Some(threads.spawn(app::run(options, receiver, shutdown.clone(), ready))),
            threads: Some(threads),
            outdated,
            inputs: sender,
            shutdown,
            _state: state,
        }
    }

    /// Another configuration comes into force.
    pub fn change(&self, change: impl FnOnce(&mut EdgeConfig)) {
        self.inputs.send_modify(|offer| {
            let inputs = offer.inputs.as_mut().expect("it was begun with");
            let config = Arc::make_mut(&mut inputs.config);
            config.generation += 1;
            change(config);
        });
    }

    /// A stream from an own domain, authenticated by dialback.
    pub async fn inside_stream(&self, from: &str, to: &str) -> Stream {
        Stream::authenticated(self.address, from, to).await
    }

    /// A stream from a partner's domain, authenticated by dialback.
    pub async fn partner_stream(&self, from: &str, to: &str) -> Stream {
        let address = SocketAddr::new(self.address.ip(), 5269);
        Stream::authenticated(address, from, to).await
    }

    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let running = self.running.take().expect("it runs");
        within("the engine's end", running)
            .await
            .expect("no panic")
            .expect("an orderly end");
    }
}

/// Killed, where it was not stopped.
impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// The document of an edge of pool `hq` with the partner's server at address 2, after `change`.
pub fn edge(number: u8, pki: &Pki, change: impl FnOnce(&mut Value)) -> ConfigInputs {
    let partner = |name: &str, domains: &[&str]| {
        json!({
            "name": name, "domains": domains, "partnerType": "Federated",
            "negotiation": {"tls": "NotSupported", "sasl": "NotSupported", "dialback": true},
            "methods": ["TcpDialback"], "enableKeepAlive": true, "connectionLimit": 1000,
            "proxyFqdn": at(number, 2, 5269).to_string(),
            // The scripted partner answers no pings: what was written to it is delivered.
            "confirmByPing": false,
        })
    };
    let mut document = json!({
        "version": {"major": 1, "minor": 1}, "generation": 1,
        "namespace": "default", "pool": "hq", "site": "a", "fqdn": "edge.org.example",
        "domains": OWN, "namespaceDomains": ["org.example", "org2.example", "other.example"],
        "listeners": {"s2s": 5269, "directTls": 0, "internal": 23456, "admin": 0, "dns": 0},
        "gateways": [{
            "name": "org", "domains": OWN, "mode": "Sidecar",
            "negotiation": {"tls": "Required", "sasl": "Required", "dialback": false},
            "methods": ["SaslOverTls"],
            "sidecar": {"server": "Single"},
        }],
        "partners": [
            partner("partner", &["partner.example", "partner2.example"]),
            partner("many", &["*.many.example"]),
        ],
        "access": {
            "policies": [{
                "name": "all", "scope": "Global", "enableFederationAccess": true,
                "enableXmppAccess": true, "enablePublicCloudAccess": true, "mode": "Enforce",
            }],
            "homeSites": {"org.example": "a", "org2.example": "a"},
        },
        "edges": [{
            "pool": "hq", "target": "hq.default.inside.example", "addresses": [],
            "port": 23456, "priority": 10, "weight": 100, "replicas": 1, "domains": OWN,
        }],
        "settings": {},
        "contacts": "Embedded",
    });
    change(&mut document);
    ConfigInputs {
        config: Arc::new(serde_json::from_value(document).expect("a configuration")),
        document_sha256: None,
        materials: Arc::new(ConfigSecrets {
            certificate: None,
            internal_ca: pki.root(),
            issuer: Some(pki.issuer()),
            dialback_secret: Zeroizing::new(b"a secret of the edges".to_vec()),
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

/// The settings of a sidecar beside the server at address 3, which dials these edges.
pub fn sidecar(number: u8, pki: &Pki, shown: &Shown, edges: &[SocketAddr]) -> SidecarSettings {
    let server = json!({
        "name": "org", "domains": OWN, "mode": "Direct", "address": at(number, 3, 5269).to_string(),
        "negotiation": {"tls": "NotSupported", "sasl": "NotSupported", "dialback": true},
        "methods": ["TcpDialback"],
    });
    let listeners = json!({
        "s2s": 0, "directTls": 0, "internal": 23456, "admin": 0, "dns": 0,
    });
    let edges = edges.iter().map(|edge| edge.to_string().try_into());
    SidecarSettings {
        instance: "prosody-0".parse().expect("a name"),
        version: env!("CARGO_PKG_VERSION").parse().expect("a version"),
        servers: SidecarServers::Single,
        generation: 1,
        namespace: "default".to_owned(),
        server: serde_json::from_value(server).expect("a gateway"),
        namespace_domains: vec![domain("other.example")],
        edges: edges.collect::<Result<_, _>>().expect("addresses"),
        identity: shown.pem(),
        internal_ca: pki.root(),
        leaf_issuer: Pki::of_a_sidecar(),
        admin_token: None,
        dialback_secret: Zeroizing::new(b"a secret of the sidecar".to_vec()),
        listeners: serde_json::from_value(listeners).expect("listeners"),
        settings: Default::default(),
    }
}

pub fn domain(name: &str) -> DomainName {
    DomainName::parse(name).expect("valid")
}

/// A sidecar's engine without listeners: what goes out is put into its queues by the test.
pub struct BareSidecar {
    pub context: Arc<StreamContext>,
    stop: CancellationToken,
    _state: tempfile::TempDir,
}

impl BareSidecar {
    pub fn start(settings: SidecarSettings) -> Self {
        Self::start_with(settings, |_| ())
    }

    /// As [`Self::start`], where `change` comes before anything runs.
    pub fn start_with(settings: SidecarSettings, change: impl FnOnce(&mut StreamContext)) -> Self {
        let config = ActiveConfig::build(&settings.into_inputs()).expect("a configuration");
        let resolver = Resolver::at(([127, 0, 0, 1], 9).into()).expect("an address");
        let dialer = Dialer::new(resolver.clone(), Arc::new(|_, _| false));
        let state = tempfile::tempdir().expect("a directory");
        let contacts = ContactStore::embedded(state.path());
        let (mut context, dials) = StreamContext::new(
            config,
            resolver,
            dialer,
            Arc::clone(contacts.contacts()),
            None,
            CancellationToken::new(),
            &Telemetry::default(),
        );
        change(Arc::get_mut(&mut context).expect("nobody else has it yet"));
        let stop = CancellationToken::new();
        tokio::spawn(connect::serve(Arc::clone(&context), dials, stop.clone()));
        tokio::spawn(trunk::dial::serve(Arc::clone(&context), stop.clone()));
        Self {
            context,
            stop,
            _state: state,
        }
    }

    /// `count` messages from number `first` on, as one batch; `ledger` counts those that need nothing more.
    pub fn send(&self, to: &str, first: u64, count: u64, ledger: &Arc<AckTracker>) {
        let pair = Pair {
            from: domain("org.example"),
            to: domain(to),
        };
        let mut builder = BatchBuilder::default();
        for id in first..first + count {
            let message = format!(
                "<message from='a@org.example' to='b@{to}' id='{to}:{id}'><body>x</body></message>"
            );
            builder.add(id, message.len(), |out| {
                out.extend_from_slice(message.as_bytes());
            });
        }
        let route = self.context.router.route(Side::Partner, &pair);
        let batch = builder.take(Some(ledger), std::time::Instant::now());
        self.context.router.enqueue(&route, batch.expect("some"));
    }
}

impl Drop for BareSidecar {
    fn drop(&mut self) {
        self.context.stopping.cancel();
        self.stop.cancel();
    }
}

/// A ledger that nobody is woken by.
pub fn ledger() -> Arc<AckTracker> {
    Arc::new(AckTracker::new(Arc::default()))
}

/// Until `holds`, as a look at a counter may tell it.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
