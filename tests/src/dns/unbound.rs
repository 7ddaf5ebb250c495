//! A real resolver, Unbound, that walks down from the root of a [`SignedTree`].

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::Result;

use super::signed::SignedTree;
use crate::process::Daemon;

const UNBOUND: &str = "/usr/sbin/unbound";
/// What a start may take.
const START: Duration = Duration::from_secs(20);

/// The running resolver.
pub struct Unbound {
    address: SocketAddr,
    _daemon: Daemon,
}

impl Unbound {
    /// Resolves on port 53 of `ip`; `validating`: from the tree's trust anchors, and says so (AD).
    /// Else it hands on what it finds, signatures too.
    ///
    /// # Errors
    /// When it does not get ready; carries the end of its log.
    pub async fn start(
        ip: Ipv4Addr,
        directory: &Path,
        tree: &SignedTree,
        validating: bool,
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let anchors = tree.anchors().display();
        let modules = if validating {
            format!("module-config: \"validator iterator\"\n    trust-anchor-file: \"{anchors}\"")
        } else {
            "module-config: \"iterator\"".to_owned()
        };
        let text = format!(
            "server:
    directory: \"{directory}\"
    chroot: \"\"
    username: \"\"
    pidfile: \"\"
    use-syslog: no
    logfile: \"\"
    verbosity: 1
    do-daemonize: no
    num-threads: 1
    interface: {ip}
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    do-ip6: no
    root-hints: \"{hints}\"
    {modules}
remote-control:
    control-enable: no
",
            directory = directory.display(),
            hints = tree.hints().display(),
        );
        let configuration = directory.join("unbound.conf");
        fs::write(&configuration, text)?;
        let mut daemon = Daemon::start(
            &format!("unbound at {ip}"),
            Path::new(UNBOUND),
            &[
                "-d".to_owned(),
                "-c".to_owned(),
                configuration.display().to_string(),
            ],
            &[],
            &directory.join("unbound.log"),
        )?;
        daemon.await_line("start of service", START).await?;
        Ok(Self {
            address: SocketAddr::from((ip, 53)),
            _daemon: daemon,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
