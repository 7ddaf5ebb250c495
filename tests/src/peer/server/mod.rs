//! A listening server whose behaviour is a table: it answers as receiving and authoritative server
//! and keeps every stanza. Tests that need another order of things accept by [`Peer::accept`].

mod behaviour;
mod connection;

pub use behaviour::{Behaviour, Encryption, Verdict};

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{PATIENCE, Session};
use crate::xml::Element;

/// A stanza that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Number of the connection, from 1.
    pub connection: usize,
    pub stanza: Element,
}

/// What a test makes a connection do beside its behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Writes these bytes.
    Send(String),
    /// Ends our side of the connection.
    HalfClose,
    /// Ends the connection at once, without a word.
    Drop,
    /// Reads nothing any more.
    Freeze,
    /// Reads again.
    Thaw,
}

/// What is known of one connection.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `from` and `to` of the last header.
    pub from: String,
    pub to: String,
    pub tls: Option<Session>,
    /// `External`, `Dialback`, or empty.
    pub method: &'static str,
    /// Keys received by `db:result`: from, to, the id that we gave the stream, key.
    pub keys: Vec<(String, String, String, String)>,
    /// Keys that we were asked about by `db:verify`.
    pub asked: usize,
    pub ended: bool,
    /// It reads nothing.
    pub frozen: bool,
    /// All bytes, decrypted.
    pub text: String,
    /// Bytes of what was received that are in `text`.
    noted: usize,
}

#[derive(Default)]
struct State {
    behaviour: Mutex<Option<Behaviour>>,
    stanzas: Mutex<Vec<Received>>,
    connections: Mutex<BTreeMap<usize, Seen>>,
    keys: Mutex<Vec<String>>,
    commands: Mutex<BTreeMap<usize, mpsc::UnboundedSender<Command>>>,
    count: AtomicUsize,
    changed: Notify,
}

/// The server; it stops with the value, connections included.
pub struct PeerServer {
    address: SocketAddr,
    state: Arc<State>,
    task: Option<JoinHandle<()>>,
    /// Dropped, it kills.
    killer: Option<oneshot::Sender<()>>,
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl PeerServer {
    /// Listens on `address`; TLS that comes at once is served as direct TLS.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn listen(address: SocketAddr, behaviour: Behaviour) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        let state = Arc::new(State::default());
        *state.behaviour.lock() = Some(behaviour);
        let (killer, killed) = oneshot::channel();
        let task = tokio::spawn(connection::serve(listener, Arc::clone(&state), killed));
        Ok(Self {
            address,
            state,
            task: Some(task),
            killer: Some(killer),
        })
    }

    /// Stops as a killed process does: it takes and acknowledges nothing more, and its address is free.
    pub async fn kill(mut self) {
        drop(self.killer.take());
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it behaves towards connections that come from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        if let Some(behaviour) = &mut *self.state.behaviour.lock() {
            change(behaviour);
        }
    }

    /// As authoritative server, knows this key as its own.
    pub fn made(&self, key: &str) {
        self.state.keys.lock().push(key.to_owned());
    }

    /// Makes a connection do something; one that has ended does nothing.
    pub fn tell(&self, connection: usize, command: Command) {
        if let Some(commands) = self.state.commands.lock().get(&connection) {
            let _ = commands.send(command);
        }
    }

    /// Makes a connection read nothing more; what arrives after this returns is not read.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn freeze(&self, connection: usize) -> Result<()> {
        self.tell(connection, Command::Freeze);
        self.until("the connection is frozen", |_| {
            let connections = self.state.connections.lock();
            connections.get(&connection).is_some_and(|seen| seen.frozen)
        })
        .await?;
        Ok(())
    }

    /// As [`Self::tell`], all connections.
    pub fn tell_all(&self, command: &Command) {
        for commands in self.state.commands.lock().values() {
            let _ = commands.send(command.clone());
        }
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.state.count.load(Ordering::SeqCst)
    }

    /// The number of the connection that brought the last stanza; 0 before the first.
    pub fn last_connection(&self) -> usize {
        let stanzas = self.state.stanzas.lock();
        stanzas.last().map_or(0, |received| received.connection)
    }

    /// Every connection so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.connections.lock().values().cloned().collect()
    }

    /// Everything received on all connections.
    pub fn transcript(&self) -> String {
        self.seen().into_iter().map(|seen| seen.text).collect()
    }

    /// All stanzas so far.
    pub fn stanzas(&self) -> Vec<Received> {
        self.state.stanzas.lock().clone()
    }

    /// The first stanza that `wanted` accepts, now or later.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn stanza(&self, what: &str, wanted: impl Fn(&Element) -> bool) -> Result<Received> {
        let found = timeout(PATIENCE, async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = self
                    .state
                    .stanzas
                    .lock()
                    .iter()
                    .find(|received| wanted(&received.stanza))
                    .cloned();
                if let Some(found) = found {
                    return found;
                }
                changed.await;
            }
        })
        .await;
        found.with_context(|| {
            let have: Vec<_> = self.seen().into_iter().map(|s| s.text).collect();
            format!("{}: no {what}; connections: {have:#?}", self.address)
        })
    }

    /// The stanza of this `id`.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn stanza_id(&self, id: &str) -> Result<Element> {
        self.stanza(&format!("stanza {id}"), |e| e.attribute("id") == Some(id))
            .await
            .map(|received| received.stanza)
    }

    /// Waits until the connections are as `wanted` says.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Seen]) -> bool) -> Result<Vec<Seen>> {
        timeout(PATIENCE, async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let seen = self.seen();
                if wanted(&seen) {
                    return seen;
                }
                changed.await;
            }
        })
        .await
        .with_context(|| format!("{what}: {:#?}", self.seen()))
    }
}
