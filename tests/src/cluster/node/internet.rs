//! The internet of one test process: a network namespace that the process itself lives in, with an
//! address for each partner, name server and client, and a wire to each node.
//!
//! Whoever enters does so with its thread; threads and processes that it starts are there too. The
//! namespace has no way out, belongs to no file, and ends with the process.

use std::{net::Ipv4Addr, process::Command, sync::OnceLock};

use anyhow::{Result, ensure};

use super::Lacking;
use crate::network::Network;

/// The name server that clusters forward to.
pub const DNS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);

/// The namespace.
#[derive(Debug)]
pub struct Internet {
    network: Network,
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
        let entered = internet.network.enter();
        entered.map_err(|error| Lacking::Namespaces(format!("{error:#}")))?;
        Ok(internet)
    }

    fn make() -> Result<Self> {
        let network = Network::new("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        Ok(Self { network })
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
