//! The store behind the index: loads at start, takes changes with a bounded delay, flushes at stop.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};

use super::{Contacts, Database};

/// How long changes are gathered before a write; with the write itself within 50 ms.
pub(super) const GATHER: Duration = Duration::from_millis(15);

/// Least time between two lines about a store that fails.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

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
    #[error(
        "contacts: no usable connection string of the database is known ({0}): see the Secret that spec.contacts.postgres names"
    )]
    NoDatabase(String),
    #[error("contacts: {waiting} changes could not be written before the end")]
    NotFlushed { waiting: usize },
}

impl StoreError {
    /// Whether the database refuses what it was given, and would again: SQLSTATE classes 22, data exception (a character
    /// that its encoding lacks), and 54, program limit exceeded (too long for its index).
    pub(super) fn is_of_the_data(&self) -> bool {
        let Self::Postgres { source, .. } = self else {
            return false;
        };
        let code = source.code().map(tokio_postgres::error::SqlState::code);
        code.is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
    }
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

/// Which failures of a store get a line: each that is new, or came back, and no more than one a minute.
#[derive(Debug, Default)]
pub(super) struct FailureLines {
    told: Option<(String, Instant)>,
    /// The store was well since.
    was_well: bool,
}

impl FailureLines {
    pub(super) fn is_due(&mut self, failure: &str, now: Instant) -> bool {
        let is_news = match &self.told {
            None => true,
            Some((told, at)) => {
                (self.was_well || told != failure)
                    && now.saturating_duration_since(*at) >= BETWEEN_LINES
            }
        };
        if is_news {
            self.told = Some((failure.to_owned(), now));
            self.was_well = false;
        }
        is_news
    }

    /// The store is well; says whether that is news to whoever reads the lines.
    pub(super) fn is_over(&mut self) -> bool {
        self.told.is_some() && !std::mem::replace(&mut self.was_well, true)
    }
}

/// No more than one line a minute.
#[derive(Debug, Default)]
pub(super) struct LinesInTime(Option<Instant>);

impl LinesInTime {
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|told| told.elapsed() >= BETWEEN_LINES);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

/// The index with its store and the task between them.
#[derive(Debug)]
pub struct ContactStore {
    contacts: Arc<Contacts>,
    health: watch::Receiver<StoreHealth>,
    /// Where the shared contacts are; none: the store is embedded.
    database: Option<watch::Sender<Result<Database, String>>>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ContactStore {
    pub(super) fn new(
        contacts: Arc<Contacts>,
        health: watch::Receiver<StoreHealth>,
        database: Option<watch::Sender<Result<Database, String>>>,
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
            drop(sender.send_replace(Ok(database)));
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
        match self.contacts.waiting() {
            0 => Ok(()),
            waiting => Err(StoreError::NotFlushed { waiting }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_fails_gets_a_line_a_cause_and_no_more_than_one_a_minute() {
        let mut lines = FailureLines::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!lines.is_over(), "nothing was told");
        assert!(lines.is_due("full", start));
        assert!(!lines.is_due("full", after(3600)), "it is known");
        assert!(lines.is_due("read-only", after(3600)));
        // To and fro within the minute.
        for second in 3601..3659 {
            assert!(!lines.is_due("full", after(second)));
        }
        assert!(lines.is_over() && !lines.is_over());
        assert!(!lines.is_due("read-only", after(3659)));
        assert!(lines.is_due("read-only", after(3660)), "it came back");
    }
}
