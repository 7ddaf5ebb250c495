//! The sidecar as a process, on a loopback address of a lab.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    edge::{self, Edge},
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
}

impl Sidecar {
    /// On host part `host` of the lab, not started.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn in_lab(lab: &Lab, host: u8) -> Result<Self> {
        let directory = lab.path("sidecar");
        fs::create_dir_all(directory.join("given"))?;
        Ok(Self {
            daemon: None,
            directory,
            address: lab.ip(host),
            resolver: lab.dns().address(),
        })
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

    /// Copies what the edge's state has for it, as an administrator does.
    ///
    /// # Errors
    /// When it has nothing.
    pub fn copy_from(&self, edge: &Edge, gateway: &str) -> Result<()> {
        let state = edge.place().directory.join("state/sidecars");
        let from = state.join(gateway);
        for file in ["sidecar.json", "ca.crt"] {
            let to = self.path("given").join(file);
            fs::copy(from.join(file), to).with_context(|| from.display().to_string())?;
        }
        Ok(())
    }

    /// Starts it; returns once its admin port is open.
    ///
    /// # Errors
    /// When it ends before; carries the end of its log.
    pub async fn start(&mut self) -> Result<()> {
        let path = |name: &str| self.path(name).display().to_string();
        let admin = format!("{}:{ADMIN_PORT}", self.address);
        let arguments = [
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
            "prosody-0",
        ]
        .map(str::to_owned);
        let level = std::env::var("EDGE_LOG").unwrap_or_else(|_| "info".into());
        let mut daemon = Daemon::start(
            "the sidecar",
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
