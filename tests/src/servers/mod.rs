//! Real XMPP servers, each on its own loopback address with generated configuration.

mod debian_13;
mod ejabberd;
mod prosody;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::{client::Client, pki::Leaf, process::Daemon, wait};

/// Port of STARTTLS s2s on each server's address.
pub const S2S_PORT: u16 = 5269;
/// Port of direct TLS s2s, where [`Spec::direct_tls`] says so.
pub const DIRECT_TLS_PORT: u16 = 5270;
/// Port of clients, without TLS.
pub const C2S_PORT: u16 = 5222;

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This machine's: 0.12 on Debian 12.
    Prosody,
    /// This machine's: 23.01 on Debian 12; no bidi, no XEP-0198 between servers.
    Ejabberd,
    /// 13.0, of Debian 13.
    Prosody13,
    /// 24.12, of Debian 13.
    Ejabberd24,
}

/// How a server authenticates its peers and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS and SASL EXTERNAL, no dialback.
    Certificates,
    /// TLS, dialback allowed; with certificates that the peer does not trust, dialback it is.
    TlsDialback,
    /// No TLS at all, dialback.
    TcpDialback,
}

/// What a server does to confirm what it got, and to keep what was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// Prosody with XEP-0198 as packaged: nothing is sent again, 500 are kept. ejabberd without
    /// dialback.
    AsPackaged,
    /// As the README asks of servers inside: Prosody sends unacknowledged stanzas again, and keeps
    /// many; ejabberd, without XEP-0198, answers dialback on the streams it reads.
    Resending,
}

/// All that a server's configuration depends on.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The one domain it serves.
    pub domain: String,
    /// Its address; every listener is there.
    pub ip: Ipv4Addr,
    /// Its DNS resolver; port 53.
    pub resolver: Ipv4Addr,
    /// Several resolvers in its place, each with its port (Prosody only).
    pub resolvers: Vec<SocketAddr>,
    /// Its certificate.
    pub identity: Leaf,
    /// PEM bundle: whom it trusts between servers.
    pub trust: String,
    /// Local parts of its users; the password is [`crate::client::PASSWORD`].
    pub users: Vec<String>,
    pub security: Security,
    /// Listens on [`DIRECT_TLS_PORT`] too.
    pub direct_tls: bool,
    /// XEP-0288 (Prosody only).
    pub bidi: bool,
    /// What it does so that less is lost.
    pub acknowledge: Acknowledge,
    /// Logs every stanza, bodies too (Prosody only).
    pub trace: bool,
}

/// A server under test.
pub struct Server {
    kind: Kind,
    spec: Spec,
    directory: PathBuf,
    daemon: Option<Daemon>,
}

impl Server {
    /// Writes the configuration under `directory` and starts the server; ready means that its
    /// ports answer and its users exist.
    ///
    /// # Errors
    /// When it does not get ready within [`wait::GENEROUS`]; carries the end of its log.
    pub async fn start(kind: Kind, spec: Spec, directory: &Path) -> Result<Self> {
        let directory = directory.join(&spec.domain);
        fs::create_dir_all(&directory)?;
        let mut server = Self {
            kind,
            spec,
            directory,
            daemon: None,
        };
        server.configure()?;
        server.launch().await?;
        Ok(server)
    }

    /// Which implementation it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it was configured from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    fn configure(&self) -> Result<()> {
        let Leaf { certificate, key } = &self.spec.identity;
        self.write("certificate.pem", certificate)?;
        self.write("key.pem", key)?;
        self.write("both.pem", &format!("{certificate}{key}"))?;
        self.write("trust.pem", &self.spec.trust)?;
        match self.kind {
            Kind::Prosody | Kind::Prosody13 => prosody::configure(self),
            Kind::Ejabberd | Kind::Ejabberd24 => ejabberd::configure(self),
        }
    }

    /// Starts the process again on the same configuration and data, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn launch(&mut self) -> Result<()> {
        let log = self.path("log.txt");
        let mut daemon = match self.kind {
            Kind::Prosody | Kind::Prosody13 => prosody::launch(self, &log),
            Kind::Ejabberd | Kind::Ejabberd24 => ejabberd::launch(self, &log),
        }?;
        let mut ports = vec![C2S_PORT, S2S_PORT];
        ports.extend(self.spec.direct_tls.then_some(DIRECT_TLS_PORT));
        let marker = match self.kind {
            Kind::Prosody | Kind::Prosody13 => None,
            Kind::Ejabberd | Kind::Ejabberd24 => Some(self.path(ejabberd::READY)),
        };
        let what = format!("{} is ready", self.spec.domain);
        daemon
            .until(&what, 2 * wait::GENEROUS, async || {
                for port in &ports {
                    TcpStream::connect((self.spec.ip, *port)).await.ok()?;
                }
                marker
                    .as_ref()
                    .is_none_or(|path| path.exists())
                    .then_some(())
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops in order (SIGTERM) and starts again.
    ///
    /// # Errors
    /// When it does not stop or not come back in time.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// Starts again with another bundle of whom it trusts between servers, and what it asks of them.
    ///
    /// # Errors
    /// As [`Self::restart`].
    pub async fn trusts(&mut self, pem: String, security: Security) -> Result<()> {
        self.spec.trust = pem;
        self.spec.security = security;
        self.configure()?;
        self.restart().await
    }

    /// Stops in order (SIGTERM).
    ///
    /// # Errors
    /// When it does not stop within 20 s (it is killed then).
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.terminate(Duration::from_secs(20)).await?;
        }
        Ok(())
    }

    /// SIGKILL; it stays down until [`Self::launch`].
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGSTOP: alive to TCP, silent to everyone.
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

    /// Where clients connect.
    pub fn c2s(&self) -> SocketAddr {
        SocketAddr::from((self.spec.ip, C2S_PORT))
    }

    /// Logs `user` (a local part) in with resource `test`.
    ///
    /// # Errors
    /// As [`Client::login`].
    pub async fn login(&self, user: &str) -> Result<Client> {
        Client::login(self.c2s(), &format!("{user}@{}", self.spec.domain), "test").await
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log.txt")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }
}
