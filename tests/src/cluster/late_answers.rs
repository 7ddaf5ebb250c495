//! A way to the API server on which answers come late and watches do not: as far away or as loaded as a
//! managed control plane can be.
//!
//! A client is given `http://` of a port here; what it says goes on over TLS as it is, so that its
//! token proves who it is.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};
use tokio_rustls::TlsConnector;

use super::ClusterIdentity;

/// A running one; it ends when dropped.
pub struct LateAnswers {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl LateAnswers {
    /// Starts one before the server of `identity`. Answers to all but watches are held back for
    /// `delay`.
    ///
    /// # Errors
    /// When the server's root is none, or no port can be had.
    pub async fn start(identity: &ClusterIdentity, delay: Duration) -> Result<Self> {
        let server = identity.server.strip_prefix("https://").context("https")?;
        let server: SocketAddr = server.parse()?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(identity.authority.as_bytes()) {
            roots.add(root?)?;
        }
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let connector = connector.clone();
                // A connection that breaks is the client's to see.
                tokio::spawn(async move {
                    let _ = carry(client, server, connector, delay).await;
                });
            }
        });
        Ok(Self { address, task })
    }

    /// The same somebody, who goes this way.
    #[must_use]
    pub fn before(&self, identity: &ClusterIdentity) -> ClusterIdentity {
        ClusterIdentity {
            server: format!("http://{}", self.address),
            ..identity.clone()
        }
    }
}

impl Drop for LateAnswers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    connector: TlsConnector,
    delay: Duration,
) -> Result<()> {
    let socket = TcpStream::connect(server).await?;
    let server = connector
        .connect(ServerName::from(server.ip()), socket)
        .await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let watching = AtomicBool::new(false);
    let asked = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let read = from_client.read(&mut bytes).await?;
            let chunk = &bytes[..read];
            // A request's head comes in one piece; a body begins with no method.
            if let Some(head) = head(chunk) {
                watching.store(head.contains("watch=true"), Ordering::Relaxed);
            }
            to_server.write_all(chunk).await?;
            to_server.flush().await?;
            if read == 0 {
                return to_server.shutdown().await;
            }
        }
    };
    let answered = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let read = from_server.read(&mut bytes).await?;
            if !watching.load(Ordering::Relaxed) {
                sleep(delay).await;
            }
            to_client.write_all(&bytes[..read]).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
        }
    };
    tokio::try_join!(asked, answered)?;
    Ok(())
}

/// The first line of a request that begins here.
fn head(chunk: &[u8]) -> Option<&str> {
    let methods = ["GET ", "POST ", "PUT ", "PATCH ", "DELETE "];
    let line = chunk.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    methods
        .iter()
        .any(|method| line.starts_with(method))
        .then_some(line)
}
