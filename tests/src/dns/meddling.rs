//! A forwarder that does not hand on what it got: as one that knows no DNSSEC, or as a forger.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use hickory_proto::{
    op::{Message, Query},
    rr::{RData, Record, RecordType},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

/// How long the resolver behind it is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What it does to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// Signatures and proofs of absence are left out.
    Strip,
    /// SRV records get another port, under the old signature.
    Forge,
    /// TLSA records are left out: NOERROR, without a proof.
    HideTlsa,
}

/// The running forwarder; it stops with the value.
pub struct Meddler {
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Meddler {
    /// Forwards from port 53 of `ip` to `upstream`, by UDP; over TCP it answers nothing.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub async fn start(
        ip: impl Into<IpAddr>,
        upstream: SocketAddr,
        meddling: Meddling,
    ) -> Result<Self> {
        let address = SocketAddr::new(ip.into(), 53);
        let udp = UdpSocket::bind(address)
            .await
            .context("bind DNS over UDP")?;
        let tcp = TcpListener::bind(address)
            .await
            .context("bind DNS over TCP")?;
        let serve = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let Ok((length, client)) = udp.recv_from(&mut buffer).await else {
                    continue;
                };
                if let Ok(answer) = forwarded(&buffer[..length], upstream, meddling).await {
                    let _ = udp.send_to(&answer, client).await;
                }
            }
        });
        let close = tokio::spawn(async move {
            loop {
                drop(tcp.accept().await);
            }
        });
        Ok(Self {
            address,
            tasks: vec![serve, close],
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn forwarded(question: &[u8], upstream: SocketAddr, meddling: Meddling) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind((IpAddr::from([127, 0, 0, 1]), 0)).await?;
    socket.connect(upstream).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await??;
    let mut message = Message::from_vec(&buffer[..length])?;
    match meddling {
        Meddling::Strip => {
            for section in [
                &mut message.answers,
                &mut message.authorities,
                &mut message.additionals,
            ] {
                section.retain(|record: &Record| !of_dnssec(record.record_type()));
            }
        }
        Meddling::HideTlsa => {
            let asked = |record: &Query| record.query_type() == RecordType::TLSA;
            if message.queries.iter().any(asked) {
                message.answers.clear();
                message.authorities.clear();
            }
        }
        Meddling::Forge => {
            for record in &mut message.answers {
                if let RData::SRV(srv) = &mut record.data {
                    srv.port ^= 1;
                }
            }
        }
    }
    message.metadata.authentic_data = false;
    Ok(message.to_vec()?)
}

fn of_dnssec(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3
    )
}
