//! A pod without a cluster: `xmpp-edge-proxy run` on two folders that change as the kubelet changes
//! mounted volumes, files as links into a directory that is swapped whole.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use xmpp_edge_crds::edge_config::{EdgeConfig, StartSettings, shards};

use crate::{
    edge::{Place, ask, binary_named, get},
    process::Daemon,
    wait,
};

/// Names the proxy's binary where it is not beside the tests' own.
pub const BINARY: &str = "XMPP_EDGE_PROXY";

const ADMIN_PORT: u16 = 9090;

/// A projected volume.
pub struct Volume {
    path: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    swaps: u32,
}

impl Volume {
    /// Empty, as where every source is optional and none is there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let mut volume = Self {
            path,
            files: BTreeMap::new(),
            swaps: 0,
        };
        volume.swap()?;
        Ok(volume)
    }

    /// Changes some files, in one swap; `None` takes a file away.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn change(&mut self, files: &[(&str, Option<&[u8]>)]) -> Result<()> {
        for (name, content) in files {
            match content {
                Some(content) => self.files.insert((*name).to_owned(), content.to_vec()),
                None => self.files.remove(*name),
            };
        }
        self.swap()
    }

    /// In the kubelet's order: the payload, the swap, links for new names, links of old ones away,
    /// the old payload.
    fn swap(&mut self) -> Result<()> {
        let data = self.path.join("..data");
        let old = fs::read_link(&data).ok();
        self.swaps += 1;
        let payload = format!("..2026_11_21_{}", self.swaps);
        fs::create_dir(self.path.join(&payload))?;
        for (name, content) in &self.files {
            fs::write(self.path.join(&payload).join(name), content)?;
        }
        let next = self.path.join("..data_tmp");
        symlink(&payload, &next)?;
        fs::rename(&next, &data)?;
        for name in self.files.keys() {
            let link = self.path.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), &link)?;
            }
        }
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") && !self.files.contains_key(&name) {
                fs::remove_file(self.path.join(name))?;
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.path.join(old))?;
        }
        Ok(())
    }
}

/// One pod.
pub struct Pod {
    pub config: Volume,
    pub secrets: Volume,
    /// What its template says that it was made for, from the next launch on.
    pub made_for: Option<StartSettings>,
    place: Place,
    daemon: Option<Daemon>,
}

impl Pod {
    /// Starts the proxy on two empty volumes; returns once `/healthz` says so.
    ///
    /// # Errors
    /// When the binary is missing or it does not answer in time; carries the end of its log.
    pub async fn start(place: Place) -> Result<Self> {
        fs::create_dir_all(&place.directory)?;
        let mut pod = Self {
            config: Volume::new(place.directory.join("config"))?,
            secrets: Volume::new(place.directory.join("secrets"))?,
            made_for: None,
            place,
            daemon: None,
        };
        pod.launch().await?;
        Ok(pod)
    }

    /// Starts the process (again).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn launch(&mut self) -> Result<()> {
        let binary = binary_named("xmpp-edge-proxy", BINARY)?;
        let path = |name: &str| self.place.directory.join(name).display().to_string();
        let arguments = [
            "--log-format",
            self.place.log_format,
            "run",
            "--config",
            &path("config"),
            "--secrets",
            &path("secrets"),
            "--state",
            &path("state"),
            "--bind",
            &self.place.bind.to_string(),
            "--internal-bind",
            &self.place.internal_bind.to_string(),
            "--resolver",
            &self.place.resolver.to_string(),
        ]
        .map(str::to_owned);
        let level = std::env::var("EDGE_LOG").unwrap_or_else(|_| "info".into());
        let made_for = self.made_for.as_ref().map(ToString::to_string);
        let mut variables = vec![("RUST_LOG", level)];
        variables.extend(made_for.map(|text| ("XMPP_EDGE_MADE_FOR", text)));
        let mut daemon = Daemon::start(
            &format!("pod at {}", self.place.bind),
            &binary,
            &arguments,
            &variables,
            &self.place.directory.join("log.txt"),
        )?;
        daemon
            .until("the pod is alive", wait::GENEROUS, async || {
                let (code, _) = self.get("/healthz").await.ok()?;
                (code == 200).then_some(())
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Puts a whole document into the configuration's volume.
    ///
    /// # Errors
    /// When it cannot be encoded or written.
    pub fn configure(&mut self, config: &EdgeConfig) -> Result<()> {
        let shards = shards::encode(config)?.shards;
        let names: Vec<_> = (0..shards.len()).map(|n| format!("shard-{n}")).collect();
        let files: Vec<_> = names
            .iter()
            .zip(&shards)
            .map(|(name, shard)| (name.as_str(), Some(shard.as_slice())))
            .collect();
        self.config.change(&files)
    }

    /// `GET path` on the admin port, without a token.
    ///
    /// # Errors
    /// When it does not answer within 5 s.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        self.get_as(path, None).await
    }

    /// `GET path` with this bearer.
    ///
    /// # Errors
    /// As there.
    pub async fn get_as(&self, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        let admin = SocketAddr::from((self.place.internal_bind, ADMIN_PORT));
        wait::within(path, Duration::from_secs(5), get(admin, path, token)).await
    }

    /// `GET path` with this bearer, in clear.
    ///
    /// # Errors
    /// As there.
    pub async fn get_in_clear(&self, path: &str, token: &str) -> Result<(u16, String)> {
        let admin = SocketAddr::from((self.place.internal_bind, ADMIN_PORT));
        let asked = async { ask(TcpStream::connect(admin).await?, path, Some(token)).await };
        wait::within(path, Duration::from_secs(5), asked).await
    }

    /// `/status`, with this bearer.
    ///
    /// # Errors
    /// When it does not answer or answers no JSON.
    pub async fn status(&self, token: &str) -> Result<Value> {
        let (code, body) = self.get_as("/status", Some(token)).await?;
        if code != 200 {
            bail!("/status: {code} {body}");
        }
        serde_json::from_str(&body).context(body)
    }

    /// Waits until `/readyz` answers `code` with a text that has all of `wanted` and none of
    /// `unwanted`.
    ///
    /// # Errors
    /// What it says instead, and the end of the log.
    pub async fn readiness(&self, code: u16, wanted: &[&str], unwanted: &[&str]) -> Result<()> {
        let what = format!("/readyz: {code}, {wanted:?} and not {unwanted:?}");
        let found = wait::until(&what, Duration::from_secs(10), || async {
            let (found, text) = self.get("/readyz").await.ok()?;
            let right = found == code
                && wanted.iter().all(|it| text.contains(it))
                && !unwanted.iter().any(|it| text.contains(it));
            right.then_some(())
        })
        .await;
        if found.is_err() {
            let now = self.get("/readyz").await;
            return found.with_context(|| format!("{now:?}\n{}", self.log()));
        }
        found
    }

    /// The id of the process, while there is one.
    pub fn process(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::id)
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it has not in time; carries the end of its log.
    pub async fn ends(&mut self) -> Result<ExitStatus> {
        let mut daemon = self.daemon.take().context("there is no process")?;
        let ended = wait::until("the pod ends by itself", wait::GENEROUS, || {
            let status = daemon.exited();
            async move { status }
        });
        ended.await.with_context(|| daemon.tail())
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.signal(rustix::process::Signal::TERM);
        }
    }

    /// Whether there is no process, or it ended by itself.
    pub fn is_down(&mut self) -> bool {
        let daemon = self.daemon.as_mut();
        daemon.is_none_or(|daemon| daemon.exited().is_some())
    }

    /// SIGKILL; it stays down until [`Self::launch`].
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGTERM; an error when it does not end with exit code 0.
    ///
    /// # Errors
    /// As said.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            let status = daemon.terminate(wait::GENEROUS).await?;
            if !status.success() {
                bail!("the pod ended with {status}: {}", daemon.tail());
            }
        }
        Ok(())
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.directory.join("log.txt")).unwrap_or_default()
    }

    /// Where its admin port is.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::from((self.place.internal_bind, ADMIN_PORT))
    }

    /// A listener of the public side.
    pub fn public(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.place.bind, port))
    }

    /// The internal listener.
    pub fn internal(&self) -> SocketAddr {
        SocketAddr::from((self.place.internal_bind, crate::edge::INTERNAL_PORT))
    }
}

/// A document of one own domain with its gateway and one partner; change what the test wants
/// otherwise.
pub struct Document {
    pub own: String,
    pub gateway: SocketAddr,
    pub partner: String,
    /// PEM of who issues the partner's certificates.
    pub roots: String,
    pub partner_type: &'static str,
    pub suspended: bool,
    pub contacts: &'static str,
}

impl Document {
    /// The document as this generation.
    ///
    /// # Panics
    /// When the fields make no document.
    pub fn generation(&self, generation: u64) -> EdgeConfig {
        let methods = json!(["SaslOverTls"]);
        let negotiation = json!({"tls": "Required", "sasl": "Required", "dialback": false});
        serde_json::from_value(json!({
            "version": {"major": 1, "minor": 0}, "generation": generation,
            "namespace": "org", "pool": "edge", "site": "here", "fqdn": "edge.example",
            "domains": [self.own], "namespaceDomains": [self.own],
            "listeners": {"s2s": 5269, "directTls": 5270, "internal": 23456, "admin": 9090, "dns": 0},
            "gateways": [{
                "domains": [self.own], "mode": "Direct", "address": self.gateway.to_string(),
                "negotiation": negotiation, "methods": methods,
            }],
            "partners": [{
                "name": "partner", "domains": [self.partner], "partnerType": self.partner_type,
                "negotiation": negotiation, "methods": methods, "suspended": self.suspended,
                "enableKeepAlive": true, "connectionLimit": 20,
            }],
            "access": {
                "policies": [{
                    "name": "everyone", "scope": "Global", "enableFederationAccess": true,
                    "enableXmppAccess": true, "enablePublicCloudAccess": true,
                }],
                "homeSites": {&self.own: "here"},
            },
            "settings": {},
            "trustCa": self.roots,
            "contacts": self.contacts,
        }))
        .expect("the fields make a document")
    }
}
