//! Real SOCKS5 servers: microsocks, which wants a user name and a password, and Dante, which has a set of
//! rules.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use tokio::net::TcpStream;

use crate::{lab::Lab, process::Daemon, wait};

/// Port of each.
pub const SOCKS_PORT: u16 = 1080;
/// User name and password of [`SocksServer::microsocks`].
pub const USER: &str = "edge";
pub const PASSWORD: &str = "hunter2";

/// A running SOCKS server.
pub struct SocksServer {
    address: SocketAddr,
    daemon: Option<Daemon>,
}

impl SocksServer {
    /// microsocks at host part `host` of the lab. It resolves names by a file of its own.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn microsocks(lab: &Lab, host: u8, names: &[(&str, Ipv4Addr)]) -> Result<Self> {
        let ip = lab.ip(host);
        let hosts = lab.path(&format!("hosts-{host}"));
        let lines = names.iter().map(|(name, ip)| format!("{ip} {name}\n"));
        fs::write(&hosts, lines.collect::<String>())?;
        let script = "mount --bind \"$0\" /etc/hosts && exec microsocks \"$@\"";
        let arguments = [
            "--mount",
            "sh",
            "-c",
            script,
            &hosts.display().to_string(),
            "-i",
            &ip.to_string(),
            "-p",
            &SOCKS_PORT.to_string(),
            "-u",
            USER,
            "-P",
            PASSWORD,
        ];
        Self::start("microsocks", "unshare", &arguments, ip, lab).await
    }

    /// Whether this machine has Dante: Debian 13 does not.
    #[must_use]
    pub fn has_dante() -> bool {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| folder.join("danted").is_file())
    }

    /// Dante at host part `host` of the lab: everybody may connect to anywhere but `forbidden`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn dante(lab: &Lab, host: u8, forbidden: Ipv4Addr) -> Result<Self> {
        let ip = lab.ip(host);
        let file = lab.path(&format!("danted-{host}.conf"));
        let rules = format!(
            "logoutput: stderr\n\
             internal: {ip} port = {SOCKS_PORT}\n\
             external: {ip}\n\
             clientmethod: none\n\
             socksmethod: none\n\
             user.privileged: root\n\
             user.unprivileged: nobody\n\
             client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
             socks block {{ from: 0.0.0.0/0 to: {forbidden}/32 }}\n\
             socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect }}\n"
        );
        fs::write(&file, rules)?;
        let pid = lab.path(&format!("danted-{host}.pid"));
        let arguments = [
            "-f",
            &file.display().to_string(),
            "-p",
            &pid.display().to_string(),
        ];
        Self::start("Dante", "danted", &arguments, ip, lab).await
    }

    async fn start(
        name: &str,
        program: &str,
        arguments: &[&str],
        ip: Ipv4Addr,
        lab: &Lab,
    ) -> Result<Self> {
        let address = SocketAddr::from((ip, SOCKS_PORT));
        let arguments: Vec<_> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let log = lab.path(&format!("{name}-{ip}.log"));
        let mut daemon = Daemon::start(name, Path::new(program), &arguments, &[], &log)?;
        daemon
            .until(&format!("{name} listens"), wait::GENEROUS, async || {
                TcpStream::connect(address).await.ok().map(drop)
            })
            .await?;
        Ok(Self {
            address,
            daemon: Some(daemon),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections are accepted by the system, and nobody answers.
    pub fn freeze(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.freeze();
        }
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.thaw();
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end in order.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.terminate(Duration::from_secs(10)).await?;
        }
        Ok(())
    }
}
