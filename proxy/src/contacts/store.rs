//! The store behind the index: loads at start, takes changes with a bounded delay, flushes at stop.

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};

use super::{Contacts, Database};

/// How long changes are gathered before a write; with the write itself within 50 ms.
pub(super) const GATHER: Duration = Duration::from_millis(15);

/// Why contacts cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("contacts: cannot use directory {path}: {source}")]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "contacts: {path} is in use by another process: one replica alone may have it; several need spec.contacts.postgres"
    )]
    InUse { path: PathBuf },
    #[error(
        "contacts: cannot open {path}: {source}; restore it from a backup, or move it away to start with no contacts (users' servers announce theirs again at login)"
    )]
    Open {
        path: PathBuf,
        source: redb::DatabaseError,
    },
    #[error("contacts: {path}: {source}")]
    Embedded {
        path: PathBuf,
        source: Box<redb::Error>,
    },
    #[error("contacts: PostgreSQL {host}: {}", cause(.source))]
    Postgres {
        host: String,
        source: tokio_postgres::Error,
    },
    #[error("contacts: PostgreSQL {host} did not answer within {seconds} s")]
    PostgresTimeout { host: String, seconds: u64 },
    #[error("contacts: {waiting} changes could not be written before the end")]
    NotFlushed { waiting: usize },
}

/// The error with what is behind it: tokio-postgres says "db error" alone.
fn cause(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// How the store is; only informs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether what the store held at start is in the index: before, contacts look like strangers.
    pub loaded: bool,
    /// The newest failure since the last success.
    pub failure: Option<String>,
}

/// The index with its store and the task between them.
#[derive(Debug)]
pub struct ContactStore {
    contacts: Arc<Contacts>,
    health: watch::Receiver<StoreHealth>,
    /// Where the shared contacts are; none: the store is embedded.
    database: Option<watch::Sender<Database>>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ContactStore {
    pub(super) fn new(
        contacts: Arc<Contacts>,
        health: watch::Receiver<StoreHealth>,
        database: Option<watch::Sender<Database>>,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
    ) -> Self {
        Self {
            contacts,
            health,
            database,
            stop,
            task: Mutex::new(Some(task)),
        }
    }

    #[must_use]
    pub fn contacts(&self) -> &Arc<Contacts> {
        &self.contacts
    }

    /// Follow this to tell how the store is.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    /// Goes on with this database: a password or an authority was changed, or the server moved. What
    /// waits is written there. Nothing for an embedded store.
    pub fn move_to(&self, database: Database) {
        if let Some(sender) = &self.database {
            sender.send_replace(database);
        }
    }

    /// Writes what waits and ends the task. Contacts recorded later stay in memory.
    ///
    /// # Errors
    /// [`StoreError::NotFlushed`] where the store did not take all of it within 5 s.
    pub async fn stop(&self) -> Result<(), StoreError> {
        let task = self.task.lock().take();
        self.stop.send_replace(true);
        if let Some(mut task) = task
            && tokio::time::timeout(Duration::from_secs(5), &mut task)
                .await
                .is_err()
        {
            task.abort();
        }
        match self
            .contacts
            .pending()
            .map_or(0, super::pending::Pending::len)
        {
            0 => Ok(()),
            waiting => Err(StoreError::NotFlushed { waiting }),
        }
    }
}
