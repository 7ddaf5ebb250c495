//! The sidecar as a process, on a loopback address of a lab.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    edge::{self, Place},
    lab::Lab,
    pod,
    process::Daemon,
    wait,
};

/// The proxy's binary, which the sidecar is too.
///
/// # Errors
/// When there is none; says how to get one.
pub fn program() -> Result<PathBuf> {
    edge::binary_named("xmpp-edge-proxy", pod::BINARY)
}

const ADMIN_PORT: u16 = 9091;

/// The sidecar's process and its folders.
pub struct Sidecar {
    daemon: Option<Daemon>,
    directory: PathBuf,
    address: Ipv4Addr,
    resolver: SocketAddr,
    instance: String,
    /// The server, in place of what its document says.
    pub server: Option<SocketAddr>,
    /// Edges to dial beside those of its document.
    pub edges: Vec<SocketAddr>,
}

impl Sidecar {
    /// On host part `host` of the lab, not started.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn in_lab(lab: &Lab, host: u8) -> Result<Self> {
        Self::at(lab, lab.ip(host), &format!("prosody-{host}"))
    }

    /// As [`Self::in_lab`], on this loopback address, as this instance.
    ///
    /// # Errors
    /// As there.
    pub fn at(lab: &Lab, address: Ipv4Addr, instance: &str) -> Result<Self> {
        let directory = lab.path(&format!("sidecar-{instance}"));
        fs::create_dir_all(directory.join("given"))?;
        Ok(Self {
            daemon: None,
            directory,
            address,
            resolver: lab.dns().address(),
            instance: instance.to_owned(),
            server: None,
            edges: Vec::new(),
        })
    }

    /// What it calls itself.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Where its DNS view answers.
    pub fn dns(&self) -> SocketAddr {
        SocketAddr::from((self.address, 53))
    }

    /// A file of its own: `given/` is copied, `state/` is kept.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What `sidecar key` prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn key(&self) -> Result<String> {
        let output = Command::new(program()?)
            .args(["sidecar", "key", "--state"])
            .arg(self.path("state"))
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Copies what the state of the edge at this place has for it, as an administrator does.
    ///
    /// # Errors
    /// When it has nothing.
    pub fn copy_from(&self, edge: &Place, gateway: &str) -> Result<()> {
        let state = edge.directory.join("state/sidecars");
        let from = state.join(gateway);
        for file in ["sidecar.json", "ca.crt"] {
            let to = self.path("given").join(file);
            fs::copy(from.join(file), to).with_context(|| from.display().to_string())?;
        }
        Ok(())
    }

    /// Dials this edge too, whose internal CA is another.
    ///
    /// # Errors
    /// When the edge has nothing for it.
    pub fn dials_also(&mut self, edge: &Place, gateway: &str) -> Result<()> {
        let further = edge.directory.join("state/sidecars").join(gateway);
        let trusted = self.path("given/ca.crt");
        let both = fs::read_to_string(&trusted)? + &fs::read_to_string(further.join("ca.crt"))?;
        fs::write(&trusted, both)?;
        let address = SocketAddr::from((edge.internal_bind, edge::INTERNAL_PORT));
        self.edges.push(address);
        Ok(())
    }

    /// Starts it; returns once its admin port is open.
    ///
    /// # Errors
    /// When it ends before; carries the end of its log.
    pub async fn start(&mut self) -> Result<()> {
        let path = |name: &str| self.path(name).display().to_string();
        let admin = format!("{}:{ADMIN_PORT}", self.address);
        let mut arguments = [
            "sidecar",
            "--config",
            &path("given/sidecar.json"),
            "--state",
            &path("state"),
            "--bind",
            &self.address.to_string(),
            "--dns",
            &self.dns().to_string(),
            "--resolver",
            &self.resolver.to_string(),
            "--admin",
            &admin,
            "--instance",
            &self.instance,
        ]
        .map(str::to_owned)
        .to_vec();
        let server = self.server.map(|server| ("--server", server));
        let edges = self.edges.iter().map(|edge| ("--edge", *edge));
        for (option, address) in server.into_iter().chain(edges) {
            arguments.extend([option.to_owned(), address.to_string()]);
        }
        let level = std::env::var("EDGE_LOG").unwrap_or_else(|_| "info".into());
        let mut daemon = Daemon::start(
            &format!("sidecar {}", self.instance),
            &program()?,
            &arguments,
            &[("RUST_LOG", level)],
            &self.path("log.txt"),
        )?;
        daemon
            .until("the sidecar is alive", wait::GENEROUS, async || {
                (self.get("/healthz").await.ok()?.0 == 200).then_some(())
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it does not end by itself, with exit code 0.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            let status = daemon.terminate(wait::GENEROUS).await?;
            ensure!(
                status.success(),
                "it ended with {status}: {}",
                daemon.tail()
            );
        }
        Ok(())
    }

    /// SIGKILL.
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

    /// `GET path` on its admin port: status code and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        self.get_with(path, None).await
    }

    /// As [`Self::get`], with a token.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get_with(&self, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        edge::get(SocketAddr::from((self.address, ADMIN_PORT)), path, token).await
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log.txt")).unwrap_or_default()
    }
}
