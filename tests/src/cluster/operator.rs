//! The operator as a process against a real API server, and pods that only say their status.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use xmpp_edge_crds::kinds::EdgePool;

use super::{
    AdminTls, ApiServer, Clock, ClusterIdentity, Namespace, account::operator_account_with_sidecars,
};
use crate::{edge, process::Daemon, wait};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running operator; killed when dropped.
pub struct Operator {
    daemon: Daemon,
    admin: SocketAddr,
}

impl Operator {
    /// Starts one in a namespace, with the account and the rights that the chart gives it, and waits
    /// until it has read everything. It watches the namespace alone unless `arguments` say otherwise.
    ///
    /// # Errors
    /// When it or Helm is not built, or it does not get ready.
    pub async fn start(namespace: &Namespace<'_>, arguments: &[&str]) -> Result<Self> {
        let account = account_for(namespace, arguments).await?;
        Self::start_as(namespace.server, &account, &namespace.name, arguments).await
    }

    /// Starts one as somebody.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_as(
        server: &ApiServer,
        identity: &ClusterIdentity,
        namespace: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut operator = Self::launch(server, identity, namespace, arguments)?;
        operator.ready().await?;
        Ok(operator)
    }

    /// As [`Self::start`], by a clock of its own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_by(
        clock: &Clock,
        namespace: &Namespace<'_>,
        arguments: &[&str],
    ) -> Result<Self> {
        let account = account_for(namespace, arguments).await?;
        let (server, name) = (namespace.server, &namespace.name);
        let environment = clock.environment();
        let mut operator = Self::spawn(server, &account, name, arguments, &environment)?;
        operator.ready().await?;
        Ok(operator)
    }

    /// Starts one without waiting.
    ///
    /// # Errors
    /// When it is not built.
    pub fn launch(
        server: &ApiServer,
        identity: &ClusterIdentity,
        namespace: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::spawn(server, identity, namespace, arguments, &[])
    }

    fn spawn(
        server: &ApiServer,
        identity: &ClusterIdentity,
        namespace: &str,
        arguments: &[&str],
        more: &[(&'static str, String)],
    ) -> Result<Self> {
        let file = format!("operator-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let kubeconfig = server.kubeconfig_file(&file, identity, namespace)?;
        let mut all = vec!["run".to_owned(), "--admin-listen=127.0.0.1:0".to_owned()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let log: PathBuf = server.directory().join(format!("{file}.log"));
        let mut environment = vec![
            ("KUBECONFIG", kubeconfig.display().to_string()),
            ("RUST_LOG", "info,xmpp_edge_operator=debug".to_owned()),
        ];
        environment.extend(more.iter().cloned());
        let daemon = Daemon::start(&file, &edge::binary()?, &all, &environment, &log)?;
        Ok(Self {
            daemon,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends or does not say it.
    pub async fn ready(&mut self) -> Result<()> {
        const LINE: &str = "ready: admin port ";
        self.daemon.await_line(LINE, wait::GENEROUS).await?;
        let log = self.daemon.log();
        let line = log.lines().find_map(|line| line.strip_prefix(LINE));
        self.admin = line.context("the line is there")?.trim().parse()?;
        Ok(())
    }

    /// Where its admin port is, once it is ready.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// One value of its metrics: the sum over those of this name whose labels have all of `labels`;
    /// `None` where there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<Option<f64>> {
        let text = self.get("/metrics").await?;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (of, held) = series.split_once('{').unwrap_or((series, ""));
            let fits = of == name && labels.iter().all(|label| held.contains(label));
            fits.then(|| value.parse::<f64>().ok()).flatten()
        });
        Ok(values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value)))
    }

    /// Ends it in order; the exit code.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(mut self) -> Result<Option<i32>> {
        self.daemon.signal(Signal::TERM);
        let ended = self.daemon.terminate(wait::GENEROUS).await?;
        Ok(ended.code())
    }

    /// Body of an answer of its admin port, whatever the HTTP status.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> Result<String> {
        use tokio::io::AsyncReadExt;
        let mut socket = TcpStream::connect(self.admin).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: operator\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        Ok(body.to_owned())
    }
}

/// A pod of a pool as the API server has it; what answers on its port is somebody else's.
pub struct PodObject {
    name: String,
    api: Api<Pod>,
}

impl PodObject {
    /// One of `pool` that is not ready, whose admin port is `port` of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no such pool, or the API server refuses it.
    pub async fn create(namespace: &Namespace<'_>, pool: &str, port: u16) -> Result<Self> {
        let pools: Api<EdgePool> = namespace.api();
        let owner = pools.get(pool).await?.controller_owner_ref(&());
        let owner = serde_json::to_value(owner.context("the API server gave it a uid")?)?;
        Self::create_owned(namespace, pool, port, Some(owner)).await
    }

    /// As [`Self::create`], with the labels of `pool` and this owner, or none.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create_owned(
        namespace: &Namespace<'_>,
        pool: &str,
        port: u16,
        owner: Option<Value>,
    ) -> Result<Self> {
        let name = format!("{pool}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let api: Api<Pod> = namespace.api();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "ownerReferences": owner.into_iter().collect::<Vec<_>>(), "labels": {
                "app.kubernetes.io/managed-by": "xmpp-edge-operator", "xmpp-edge.dev/pool": pool}},
            "spec": {"containers": [{"name": "proxy", "image": "none",
                "ports": [{"name": "admin", "containerPort": port}]}]},
        });
        api.create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        Ok(Self { name, api })
    }

    /// Whether the kubelet would call it ready.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn set_ready(&self, ready: bool) -> Result<()> {
        let state = if ready { "True" } else { "False" };
        let status = json!({"status": {
            "phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": state}],
        }});
        let parameters = PatchParams::default();
        self.api
            .patch_status(&self.name, &parameters, &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    /// The pod is gone.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn delete(&self) -> Result<()> {
        let now = DeleteParams::default().grace_period(0);
        self.api.delete(&self.name, &now).await?;
        Ok(())
    }
}

/// The chart's account for an operator of `namespace` with these arguments.
async fn account_for(namespace: &Namespace<'_>, arguments: &[&str]) -> Result<ClusterIdentity> {
    const WATCH: &str = "--watch-namespace";
    let together = arguments.iter();
    let together = together.filter_map(|it| it.strip_prefix(WATCH)?.strip_prefix('='));
    let apart = arguments.windows(2).filter(|pair| pair[0] == WATCH);
    let watched: Vec<&str> = together.chain(apart.map(|pair| pair[1])).collect();
    let sidecars = arguments.iter();
    let sidecars =
        sidecars.filter_map(|it| it.strip_prefix("--sidecar-namespace=")?.split_once('='));
    let sidecars: BTreeMap<String, Vec<String>> = sidecars
        .map(|(place, gateways)| {
            let gateways = gateways.split(',').map(str::to_owned);
            (place.to_owned(), gateways.collect())
        })
        .collect();
    let (server, home) = (namespace.server, &namespace.name);
    operator_account_with_sidecars(server, home, &watched, &sidecars).await
}

/// A pod object that is ready, and a port that answers for it as a proxy's admin port does.
pub struct FakePod {
    object: PodObject,
    status: Arc<Mutex<Value>>,
    asked: Arc<AtomicU32>,
    server: JoinHandle<()>,
}

impl Drop for FakePod {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakePod {
    /// A ready pod of `pool` that has loaded `generation`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn start(namespace: &Namespace<'_>, pool: &str, generation: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let object = PodObject::create(namespace, pool, port).await?;
        let tls = admin_tls(namespace, pool, pool);
        Self::answer(object, listener, tls, generation).await
    }

    /// As [`Self::start`], with the labels of `pool` and this owner, or none.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn start_owned(
        namespace: &Namespace<'_>,
        pool: &str,
        generation: u64,
        owner: Option<Value>,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let object = PodObject::create_owned(namespace, pool, port, owner).await?;
        let tls = admin_tls(namespace, pool, pool);
        Self::answer(object, listener, tls, generation).await
    }

    /// As [`Self::start`], with the intermediate of another pool: what a pod of that one could show.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn start_with_issuer_of(
        namespace: &Namespace<'_>,
        pool: &str,
        other: &str,
        generation: u64,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let object = PodObject::create(namespace, pool, port).await?;
        let tls = admin_tls(namespace, pool, other);
        Self::answer(object, listener, tls, generation).await
    }

    async fn answer(
        object: PodObject,
        listener: TcpListener,
        tls: AdminTls,
        generation: u64,
    ) -> Result<Self> {
        let asked = Arc::new(AtomicU32::new(0));
        let status = Arc::new(Mutex::new(json!({
            "pool": tls.pool, "version": "0",
            "config": {"generation": generation, "loadedTime": "2026-01-01T00:00:00Z", "rejected": null},
            "certificate": null, "streams": [], "partners": [], "gateways": [],
        })));
        let server = tokio::spawn(serve(listener, tls, status.clone(), asked.clone()));
        object.set_ready(true).await?;
        Ok(Self {
            object,
            status,
            asked,
            server,
        })
    }

    /// Whether the kubelet would call it ready.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn set_ready(&self, ready: bool) -> Result<()> {
        self.object.set_ready(ready).await
    }

    /// How often it was asked for anything.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// What it answers from now on: one field of `/status`.
    pub fn say(&self, field: &str, value: Value) {
        self.status.lock()[field] = value;
    }

    /// It has loaded another generation.
    pub fn load(&self, generation: u64) {
        self.status.lock()["config"]["generation"] = json!(generation);
    }

    /// The pod is gone.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn delete(&self) -> Result<()> {
        self.object.delete().await
    }
}

fn admin_tls(namespace: &Namespace<'_>, pool: &str, issuer: &str) -> AdminTls {
    AdminTls {
        secrets: namespace.api(),
        namespace: namespace.name.clone(),
        pool: pool.to_owned(),
        issuer: issuer.to_owned(),
    }
}

/// What a proxy says of a partner that would be spoken with by its certificate.
fn probed(domain: &str) -> String {
    json!({"domain": domain, "from": null, "services": [], "fallback": true, "secure": false, "dnssec": null,
        "targets": [], "method": "SaslOverTls", "presumed": false, "why": ["a pod looked"], "error": null})
    .to_string()
}

/// Answers every request with the status, but one to probe.
async fn serve(
    listener: TcpListener,
    tls: AdminTls,
    status: Arc<Mutex<Value>>,
    asked: Arc<AtomicU32>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (status, tls, asked) = (status.clone(), tls.clone(), asked.clone());
        tokio::spawn(async move {
            // It is asked again once it has what it needs, or never by who does not believe it.
            let Ok(acceptor) = tls.acceptor().await else {
                return;
            };
            let Ok(socket) = acceptor.accept(socket).await else {
                return;
            };
            asked.fetch_add(1, Ordering::SeqCst);
            let (reader, mut writer) = tokio::io::split(socket);
            let mut lines = BufReader::new(reader).lines();
            let mut question = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.is_empty() {
                    break;
                }
                if question.is_empty() {
                    question = line;
                }
            }
            let body = match question.strip_prefix("POST /probe?domain=") {
                Some(rest) => probed(rest.split([' ', '&']).next().unwrap_or_default()),
                None => status.lock().to_string(),
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            // The operator may have given up.
            let _ = writer.write_all(answer.as_bytes()).await;
            let _ = writer.shutdown().await;
        });
    }
}
