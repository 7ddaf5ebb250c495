//! A pool's pod as a process: where there is no node, this runs what the pool's controllers ask for.
//!
//! The pod object is the controllers' own. Its volumes are filled from the API server, as the pod
//! names them, and follow it; its readiness is what `/readyz` of the process says. Only addresses are
//! the test's, on loopback. A pool has one replica here.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    Namespace,
    volumes::{Files, projected},
};
use crate::{
    edge::{Place, get},
    pod::Pod,
    wait,
};

/// As often as a kubelet would ask `/readyz`, and a little more.
const PAUSE: Duration = Duration::from_millis(300);
const ADMIN_PORT: u16 = 9090;

/// What runs the pod; with the value the process ends.
pub struct ProcessPod {
    place: Place,
    down: Arc<AtomicBool>,
    fault: Arc<Mutex<Option<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProcessPod {
    /// Runs the pod of `pool` at `place` from now on, whenever there is one.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn run(namespace: &Namespace<'_>, pool: &str, place: Place) -> Result<Self> {
        let down = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let fault = Arc::new(Mutex::new(None));
        let kubelet = Kubelet {
            client: namespace.client.clone(),
            namespace: namespace.name.clone(),
            pool: pool.to_owned(),
            place: place.clone(),
            process: None,
            mounted: BTreeMap::new(),
            down: down.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (told, until) = (fault.clone(), ended.clone());
        let thread = std::thread::Builder::new()
            .name(format!("pod of {pool}"))
            .spawn(move || runtime.block_on(kubelet.run(&told, &until)))?;
        Ok(Self {
            place,
            down,
            fault,
            ended,
            thread: Some(thread),
        })
    }

    /// The process is killed, and when it is the pod is said to be not ready, until
    /// [`Self::come_back`].
    ///
    /// # Errors
    /// When it still answers after a while.
    pub async fn vanish(&self) -> Result<()> {
        self.down.store(true, Ordering::SeqCst);
        let admin = SocketAddr::from((self.place.internal_bind, ADMIN_PORT));
        wait::until("the process is gone", wait::GENEROUS, async || {
            TcpStream::connect(admin).await.is_err().then_some(())
        })
        .await
    }

    /// Undoes [`Self::vanish`].
    pub fn come_back(&self) {
        self.down.store(false, Ordering::SeqCst);
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// `/status`, with the token that is mounted.
    ///
    /// # Errors
    /// When it does not answer within 5 s.
    pub async fn status(&self) -> Result<Value> {
        let token = fs::read_to_string(self.place.directory.join("secrets/admin-token"))?;
        let admin = SocketAddr::from((self.place.internal_bind, ADMIN_PORT));
        let answer = get(admin, "/status", Some(token.trim()));
        let (code, body) = tokio::time::timeout(Duration::from_secs(5), answer).await??;
        serde_json::from_str(&body).with_context(|| format!("{code} {body}"))
    }

    /// `/metrics`.
    ///
    /// # Errors
    /// When it does not answer within 5 s.
    pub async fn metrics(&self) -> Result<String> {
        let admin = SocketAddr::from((self.place.internal_bind, ADMIN_PORT));
        let answer = get(admin, "/metrics", None);
        Ok(tokio::time::timeout(Duration::from_secs(5), answer)
            .await??
            .1)
    }

    /// The streams of `/status` on one side (`Partner`, `Gateway`).
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn streams(&self, side: &str) -> Result<Vec<Value>> {
        let status = self.status().await?;
        let streams = status["streams"].as_array().cloned().unwrap_or_default();
        Ok(streams
            .into_iter()
            .filter(|it| it["side"] == side)
            .collect())
    }

    /// What the process logged, and what could not be done last.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.place.directory.join("log.txt")).unwrap_or_default();
        format!("{log}\n{:?}", self.fault.lock())
    }
}

impl Drop for ProcessPod {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Its panic was told already.
            let _ = thread.join();
        }
    }
}

struct Kubelet {
    client: Client,
    namespace: String,
    pool: String,
    place: Place,
    /// The process, and the pod that it is.
    process: Option<(Pod, String)>,
    /// By volume: what is in it.
    mounted: BTreeMap<&'static str, Files>,
    down: Arc<AtomicBool>,
}

impl Kubelet {
    async fn run(mut self, fault: &Mutex<Option<String>>, ended: &AtomicBool) {
        while !ended.load(Ordering::SeqCst) {
            let done = self.step().await;
            *fault.lock() = done.err().map(|error| format!("{error:#}"));
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn step(&mut self) -> Result<()> {
        if self.down.load(Ordering::SeqCst)
            && let Some((process, _)) = &mut self.process
        {
            process.kill();
        }
        let pods: Api<PodObject> = Api::namespaced(self.client.clone(), &self.namespace);
        let ours = ListParams::default().labels(&format!("xmpp-edge.dev/pool={}", self.pool));
        let Some(object) = newest(pods.list(&ours).await?.items) else {
            return Ok(());
        };
        let object = &object;
        if self.down.load(Ordering::SeqCst) {
            if let Some((_, uid)) = &mut self.process {
                uid.clear();
            }
            return self.is_ready(&pods, object, false).await;
        }
        self.start(object).await?;
        for volume in ["config", "secrets"] {
            self.mount(object, volume).await?;
        }
        let ready = match &self.process {
            Some((process, _)) => {
                let answer = process.get("/readyz").await;
                answer.is_ok_and(|(code, _)| code == 200)
            }
            None => false,
        };
        self.is_ready(&pods, object, ready).await
    }

    /// A process for each pod: one that replaces another starts anew, and so does one that ended.
    async fn start(&mut self, object: &PodObject) -> Result<()> {
        let uid = object.uid().unwrap_or_default();
        match &mut self.process {
            Some((process, of)) => {
                if *of == uid && !process.is_down() {
                    return Ok(());
                }
                process.kill();
                process.launch().await?;
                *of = uid;
            }
            none => *none = Some((Pod::start(self.place.clone()).await?, uid)),
        }
        Ok(())
    }

    async fn mount(&mut self, object: &PodObject, volume: &'static str) -> Result<()> {
        let Some(spec) = &object.spec else {
            return Ok(());
        };
        let files = projected(&self.client, &self.namespace, spec, volume).await?;
        let before = self.mounted.get(volume).cloned().unwrap_or_default();
        let Some((process, _)) = self.process.as_mut().filter(|_| files != before) else {
            return Ok(());
        };
        let gone = before.keys().filter(|name| !files.contains_key(*name));
        let changes: Vec<(&str, Option<&[u8]>)> = files
            .iter()
            .map(|(name, content)| (name.as_str(), Some(content.as_slice())))
            .chain(gone.map(|name| (name.as_str(), None)))
            .collect();
        match volume {
            "config" => process.config.change(&changes)?,
            _ => process.secrets.change(&changes)?,
        }
        self.mounted.insert(volume, files);
        Ok(())
    }

    async fn is_ready(&self, pods: &Api<PodObject>, object: &PodObject, ready: bool) -> Result<()> {
        let state = if ready { "True" } else { "False" };
        if says_ready(object, state) {
            return Ok(());
        }
        let ip = self.place.internal_bind;
        let status = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": state}],
        }});
        let parameters = PatchParams::default();
        pods.patch_status(&object.name_any(), &parameters, &Patch::Merge(&status))
            .await?;
        Ok(())
    }
}

/// The pod that is there and not on its way out.
fn newest(pods: Vec<PodObject>) -> Option<PodObject> {
    pods.into_iter()
        .find(|pod| pod.metadata.deletion_timestamp.is_none())
}

fn says_ready(object: &PodObject, state: &str) -> bool {
    let conditions = object.status.iter().flat_map(|it| &it.conditions).flatten();
    conditions
        .filter(|it| it.type_ == "Ready")
        .any(|it| it.status == state)
}
