//! The edge as a process: manifests in a directory, `xmpp-edge-operator standalone`, and its admin
//! port.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{lab::Lab, peer::ClientTls, pki::Leaf, process::Daemon, wait};

/// Names the operator's binary where it is not beside the tests' own.
pub const BINARY: &str = "XMPP_EDGE_OPERATOR";

const ADMIN_PORT: u16 = 9090;
/// Port where inside servers reach the edge.
pub const INTERNAL_PORT: u16 = 23456;

/// One edge in a lab.
pub struct Edge {
    place: Place,
    daemon: Option<Daemon>,
}

/// Where an edge lives.
#[derive(Clone, Debug)]
pub struct Place {
    /// Address of the public listeners (5269, 5270).
    pub bind: Ipv4Addr,
    /// Address of the internal listener, the admin port and the DNS view.
    pub internal_bind: Ipv4Addr,
    /// Its resolver.
    pub resolver: SocketAddr,
    /// DNSSEC keys in place of the root's.
    pub trust_anchors: Option<PathBuf>,
    /// `text`, or `json`.
    pub log_format: &'static str,
    /// Folder of manifests, state and log.
    pub directory: PathBuf,
}

impl Place {
    /// Host parts `public` and `internal` of the lab, resolving by the lab's DNS.
    pub fn in_lab(lab: &Lab, public: u8, internal: u8) -> Self {
        Self {
            bind: lab.ip(public),
            internal_bind: lab.ip(internal),
            resolver: lab.dns().address(),
            trust_anchors: None,
            log_format: "text",
            directory: lab.path(&format!("edge-{public}")),
        }
    }
}

impl Edge {
    /// Writes the manifests and starts the edge; returns once `/readyz` says so.
    ///
    /// # Errors
    /// When the binary is missing or it does not get ready in time; carries the end of its log.
    pub async fn start(place: Place, manifests: &[Value]) -> Result<Self> {
        fs::create_dir_all(place.directory.join("manifests"))?;
        fs::create_dir_all(place.directory.join("state"))?;
        let mut edge = Self {
            place,
            daemon: None,
        };
        for manifest in manifests {
            edge.apply(manifest)?;
        }
        edge.launch().await?;
        Ok(edge)
    }

    /// Starts the process (again) and waits for `/readyz`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn launch(&mut self) -> Result<()> {
        self.begin()?;
        self.gets_ready().await
    }

    /// Starts the process (again), and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin(&mut self) -> Result<()> {
        let binary = binary()?;
        let Place {
            bind,
            internal_bind,
            resolver,
            trust_anchors,
            log_format,
            directory,
        } = &self.place;
        let path = |name: &str| directory.join(name).display().to_string();
        let mut arguments = [
            "--log-format",
            log_format,
            "standalone",
            "--manifests",
            &path("manifests"),
            "--state",
            &path("state"),
            "--bind",
            &bind.to_string(),
            "--internal-bind",
            &internal_bind.to_string(),
            "--resolver",
            &resolver.to_string(),
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(anchors) = trust_anchors {
            arguments.extend(["--trust-anchors".to_owned(), anchors.display().to_string()]);
        }
        let level = std::env::var("EDGE_LOG").unwrap_or_else(|_| "info".into());
        let daemon = Daemon::start(
            &format!("edge at {bind}"),
            &binary,
            &arguments,
            &[("RUST_LOG", level)],
            &directory.join("log.txt"),
        )?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Waits for `/readyz`.
    ///
    /// # Errors
    /// When the process is not there, ends or takes too long; carries the end of its log.
    pub async fn gets_ready(&mut self) -> Result<()> {
        self.says("the edge is ready", |code, _| code == 200).await
    }

    /// Waits until `/readyz` answers with such a status code and text.
    ///
    /// # Errors
    /// As [`Self::gets_ready`].
    pub async fn says(&mut self, what: &str, fits: impl Fn(u16, &str) -> bool) -> Result<()> {
        let mut daemon = self.daemon.take().context("the edge does not run")?;
        daemon
            .until(what, wait::GENEROUS, async || {
                let (code, text) = self.get("/readyz").await.ok()?;
                fits(code, &text).then_some(())
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Writes one manifest to a file of its own; a running edge follows within 2 s.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn apply(&self, manifest: &Value) -> Result<()> {
        let text = serde_json::to_string_pretty(manifest)?;
        self.write(&file_name(manifest)?, &text)
    }

    /// Changes a manifest that is there; a running edge follows within 2 s.
    ///
    /// # Errors
    /// When there is none of that kind and name, or it cannot be written.
    pub fn edit(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let path = self.manifest(&format!("{kind}-{name}.yaml"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut manifest = serde_json::from_str(&text)?;
        change(&mut manifest);
        self.apply(&manifest)
    }

    /// Takes a manifest away.
    ///
    /// # Errors
    /// When there is none of that kind and name.
    pub fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let path = self.manifest(&format!("{kind}-{name}.yaml"));
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    /// Writes any text as a manifest file, complete at once (rename).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let half = self.place.directory.join("next");
        fs::write(&half, text)?;
        fs::rename(&half, self.manifest(file))?;
        Ok(())
    }

    fn manifest(&self, file: &str) -> PathBuf {
        self.place.directory.join("manifests").join(file)
    }

    /// Where it lives.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// PEM of the internal CA, for servers inside to trust.
    ///
    /// # Errors
    /// When the edge has not written it.
    pub fn internal_ca(&self) -> Result<String> {
        self.state_file("internal-ca.pem")
    }

    /// The certificate that the edge keeps for the gateway whose first domain is `domain`.
    ///
    /// # Errors
    /// When the edge has not written it.
    pub fn gateway_identity(&self, domain: &str) -> Result<Leaf> {
        Ok(Leaf {
            certificate: self.state_file(&format!("gateways/{domain}/tls.crt"))?,
            key: self.state_file(&format!("gateways/{domain}/tls.key"))?,
        })
    }

    fn state_file(&self, name: &str) -> Result<String> {
        let path = self.place.directory.join("state").join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// `GET path` on the admin port: status code and body.
    ///
    /// # Errors
    /// When it does not answer within 5 s.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let admin = SocketAddr::from((self.place.internal_bind, ADMIN_PORT));
        wait::within(path, Duration::from_secs(5), get(admin, path, None)).await
    }

    /// `/status`.
    ///
    /// # Errors
    /// When it does not answer or answers no JSON.
    pub async fn status(&self) -> Result<Value> {
        let (code, body) = self.get("/status").await?;
        if code != 200 {
            bail!("/status: {code} {body}");
        }
        serde_json::from_str(&body).with_context(|| body)
    }

    /// The streams of `/status` on one side (`Partner`, `Gateway`).
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn streams(&self, side: &str) -> Result<Vec<Value>> {
        let status = self.status().await?;
        let streams = status["streams"]
            .as_array()
            .context("no streams in /status")?;
        Ok(streams
            .iter()
            .filter(|s| s["side"] == side)
            .cloned()
            .collect())
    }

    /// Sum of all series of `xmpp_edge_<name>` whose labels contain all of `labels` (each as
    /// `key="value"`); 0 where there is none.
    ///
    /// # Errors
    /// When `/metrics` does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let (_, body) = self.get("/metrics").await?;
        let name = format!("xmpp_edge_{name}");
        Ok(body
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(&name)?;
                let (series, value) = rest.rsplit_once(' ')?;
                let here = series.is_empty() || series.starts_with('{');
                (here && labels.iter().all(|label| series.contains(label)))
                    .then(|| value.parse::<f64>().ok())?
            })
            .sum::<f64>())
    }

    /// SIGTERM, then starts again.
    ///
    /// # Errors
    /// When it does not end in order or not get ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// SIGTERM; an error when it does not end with exit code 0 within 40 s.
    ///
    /// # Errors
    /// As said.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            let status = daemon.terminate(wait::GENEROUS).await?;
            if !status.success() {
                bail!("the edge ended with {status}: {}", daemon.tail());
            }
        }
        Ok(())
    }

    /// SIGKILL; it stays down until [`Self::launch`].
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.freeze();
        }
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.thaw();
        }
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::id)
    }

    /// CPU time of all of its threads.
    pub fn cpu(&self) -> Duration {
        self.daemon
            .as_ref()
            .map_or(Duration::ZERO, Daemon::group_cpu)
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_kib(&self) -> Result<u64> {
        let pid = self.pid().context("the edge does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse()
                    .ok()
            })
            .context("no VmRSS")
    }

    /// Everything it logged, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.directory.join("log.txt")).unwrap_or_default()
    }
}

/// `GET path`: status code and body. With a bearer it is asked by TLS, as a token goes nowhere in clear; who
/// answers is not asked.
pub(crate) async fn get(
    admin: SocketAddr,
    path: &str,
    token: Option<&str>,
) -> Result<(u16, String)> {
    if token.is_some() {
        return ask(admin_connection(admin).await?, path, token).await;
    }
    ask(TcpStream::connect(admin).await?, path, token).await
}

/// TLS with an admin port; who answers is not asked.
///
/// # Errors
/// When it does not speak TLS.
pub async fn admin_connection(admin: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let (config, name) = ClientTls::new(None, None).config()?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(admin).await?;
    Ok(connector.connect(name, stream).await?)
}

/// As [`get`], on a connection.
pub(crate) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    token: Option<&str>,
) -> Result<(u16, String)> {
    let bearer = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\n{bearer}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP head")?;
    let code = head.split(' ').nth(1).context("no status code")?.parse()?;
    let body = if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Ok((code, body))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        let Some(chunk) = rest.get(..size) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

/// The operator's binary.
///
/// # Errors
/// When there is none; says how to get one.
pub fn binary() -> Result<PathBuf> {
    binary_named("xmpp-edge-operator", BINARY)
}

/// One of the binaries that are tested; `variable` of the environment may say where it is.
///
/// # Errors
/// When there is none; says how to get one.
pub(crate) fn binary_named(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let beside = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    beside.with_context(|| {
        format!(
            "no {name} beside {}: cargo build -p {name}, or name it in {variable}",
            own.display()
        )
    })
}

fn file_name(manifest: &Value) -> Result<String> {
    let kind = manifest["kind"].as_str().context("a manifest has a kind")?;
    let name = manifest["metadata"]["name"]
        .as_str()
        .context("a manifest has a name")?;
    Ok(format!("{kind}-{name}.yaml"))
}

/// A manifest of one of our kinds.
pub fn manifest(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// A ConfigMap or a Secret (`stringData`).
pub fn texts(kind: &str, name: &str, entries: &BTreeMap<&str, String>) -> Value {
    let field = if kind == "Secret" {
        "stringData"
    } else {
        "data"
    };
    json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name }, field: entries })
}
