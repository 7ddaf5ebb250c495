//! A way between two hosts that can be cut and mended while both go on: connections by an address lead to another
//! one.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Leads there as long as it lives.
#[derive(Debug)]
pub struct Relay {
    is_open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// From `address` to `target`.
    ///
    /// # Errors
    /// When the address is not free.
    pub async fn start(address: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (is_open, gate) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(lead(stream, target, gate.clone()));
            }
        });
        Ok(Self { is_open, task })
    }

    /// What is open ends, and what comes is turned away.
    pub fn cut(&self) {
        self.is_open.send_replace(false);
    }

    /// Undoes [`Self::cut`].
    pub fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn lead(mut stream: TcpStream, target: SocketAddr, mut gate: watch::Receiver<bool>) {
    let through = async {
        let mut far = TcpStream::connect(target).await?;
        copy_bidirectional(&mut stream, &mut far).await
    };
    tokio::select! {
        biased;
        _ = gate.wait_for(|is_open| !is_open) => {}
        // Either end is gone: so is the other.
        _ = through => {}
    }
}
