//! The internet of one test process: a network namespace that the process itself lives in, with an
//! address for each partner, name server and client, and a wire to each node.
//!
//! Whoever enters does so with its thread; threads and processes that it starts are there too. The
//! namespace has no way out, belongs to no file, and ends with the process.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Lacking;

/// The name server that clusters forward to.
pub const DNS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);

/// The namespace.
#[derive(Debug)]
pub struct Internet {
    namespace: File,
}

impl Internet {
    /// Takes the calling thread there.
    ///
    /// # Errors
    /// When this process may have no network namespace of its own.
    pub fn enter() -> Result<&'static Self, Lacking> {
        static ONE: OnceLock<Result<Internet, String>> = OnceLock::new();
        let one = ONE.get_or_init(|| Self::make().map_err(|error| format!("{error:#}")));
        let internet = one
            .as_ref()
            .map_err(|error| Lacking::Namespaces(error.clone()))?;
        move_into_link_name_space(internet.namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| Lacking::Namespaces(error.to_string()))?;
        Ok(internet)
    }

    fn make() -> Result<Self> {
        const SCRIPT: &str =
            "ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward; echo made; read _";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-ec", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start unshare")?;
        let mut line = String::new();
        let out = child.stdout.take().context("stdout is piped")?;
        BufReader::new(out).read_line(&mut line)?;
        let namespace = File::open(format!("/proc/{}/ns/net", child.id()));
        // Its stdin ends with this.
        let ended = child.wait_with_output()?;
        ensure!(
            line.trim() == "made",
            "{}",
            String::from_utf8_lossy(&ended.stderr).trim()
        );
        Ok(Self {
            namespace: namespace?,
        })
    }

    /// The address 203.0.113.`host`, of anyone's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn address(&self, host: u8) -> Result<Ipv4Addr> {
        let address = Ipv4Addr::new(203, 0, 113, host);
        ip(&["address", "replace", &format!("{address}/32"), "dev", "lo"])?;
        Ok(address)
    }
}

/// Runs `ip` where the calling thread is.
pub(super) fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
