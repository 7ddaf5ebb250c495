//! Stands before a primary and changes its records whenever somebody is about to update them: what an
//! update was decided on is never what it meets, and the primary itself says so.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::primary::Editor;

/// Opcode UPDATE in the third byte of a message (RFC 1035 section 4.1.1, RFC 2136 section 1.3).
const UPDATE: u8 = 5 << 3;
const OPCODE: u8 = 0b0111_1000;

/// The running forwarder; it stops with the value.
pub struct Interferer {
    address: SocketAddr,
    interference: Arc<Interference>,
    task: JoinHandle<()>,
}

struct Interference {
    editor: Editor,
    owner: String,
    wanted: AtomicBool,
    updates: AtomicU32,
}

impl Interferer {
    /// Forwards TCP to the primary of `editor`; before each update the record set at `owner` gets
    /// another record, `SRV 99 N 5269 other.`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(editor: Editor, owner: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let interference = Arc::new(Interference {
            editor,
            owner: owner.to_owned(),
            wanted: AtomicBool::new(true),
            updates: AtomicU32::new(0),
        });
        let shared = interference.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // Either side may have hung up.
                    let _ = shared.relay(client).await;
                });
            }
        });
        Ok(Self {
            address,
            interference,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it only forwards.
    pub fn desist(&self) {
        self.interference.wanted.store(false, Ordering::SeqCst);
    }

    /// Updates that came by so far.
    pub fn updates(&self) -> u32 {
        self.interference.updates.load(Ordering::SeqCst)
    }
}

impl Drop for Interferer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Interference {
    /// One question after the other, each with its answer.
    async fn relay(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut upstream = TcpStream::connect(self.editor.server()).await?;
        loop {
            let question = message(&mut client).await?;
            if question.get(2).is_some_and(|byte| byte & OPCODE == UPDATE) {
                self.before_update().await;
            }
            send(&mut upstream, &question).await?;
            let answer = message(&mut upstream).await?;
            send(&mut client, &answer).await?;
        }
    }

    async fn before_update(&self) {
        let number = self.updates.fetch_add(1, Ordering::SeqCst);
        if self.wanted.load(Ordering::SeqCst) {
            let owner = &self.owner;
            let edit = format!("update add {owner} 60 SRV 99 {number} 5269 other.");
            // Where it fails the update meets what it was decided on, and the test fails.
            let _ = self.editor.edit(&edit).await;
        }
    }
}

async fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    stream
        .write_all(&[&length.to_be_bytes()[..], bytes].concat())
        .await
}
