//! The store of one replica: a redb file in a directory of its own. Each write is one durable
//! transaction, so that a kill at any time leaves the last one whole.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::watch;

use super::{
    Contact, Contacts,
    pending::{ContactBatch, Pending},
    store::{ContactStore, GATHER, StoreError, StoreHealth},
};

/// Bare address of the user, of the remote → [`Contact::encode`].
const CONTACTS: TableDefinition<(&str, &str), u8> = TableDefinition::new("contacts-v1");

const FILE: &str = "contacts.redb";

/// The whole is in the index: the file's own cache serves writes only.
const CACHE_BYTES: usize = 8 << 20;

/// Pause after a write that failed (disk full).
const RETRY: Duration = Duration::from_millis(500);

impl ContactStore {
    /// Opens or makes the store in `directory`, loads it, and starts the task that writes. Needs a
    /// tokio runtime; blocks for the time of loading (about a second for a million contacts).
    ///
    /// # Errors
    /// [`StoreError`] names the path and the remedy.
    pub fn embedded(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let path = directory.join(FILE);
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|source| match source {
                DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.clone() },
                source => StoreError::Open {
                    path: path.clone(),
                    source,
                },
            })?;
        Self::on(database, path)
    }

    fn on(database: Database, path: PathBuf) -> Result<Self, StoreError> {
        let contacts = Arc::new(Contacts::stored());
        load(&database, &contacts).map_err(|source| StoreError::Embedded {
            path: path.clone(),
            source: source.into(),
        })?;
        let (health, health_seen) = watch::channel(StoreHealth {
            loaded: true,
            failure: None,
        });
        let (stop, stopped) = watch::channel(false);
        let writer = StoreWriter {
            database: Arc::new(database),
            path,
            health,
        };
        let task = tokio::spawn(writer.run(Arc::clone(&contacts), stopped));
        Ok(Self::new(contacts, health_seen, None, stop, task))
    }
}

fn load(database: &Database, contacts: &Contacts) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(CONTACTS)?;
    write.commit()?;
    let read = database.begin_read()?;
    for row in read.open_table(CONTACTS)?.iter()? {
        let (pair, code) = row?;
        let (user, remote) = pair.value();
        contacts.adopt(user, remote, Contact::decode(code.value()));
    }
    Ok(())
}

/// Applies a batch to what is stored and makes it durable.
fn write(database: &Database, batch: &ContactBatch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(CONTACTS)?;
        for ((user, remote), transition) in batch {
            let pair = (&**user, &**remote);
            let stored = table
                .get(pair)?
                .and_then(|code| Contact::decode(code.value()));
            match transition.apply(stored) {
                Some(state) => table.insert(pair, Contact::encode(Some(state)))?,
                None => table.remove(pair)?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

struct StoreWriter {
    database: Arc<Database>,
    path: PathBuf,
    health: watch::Sender<StoreHealth>,
}

impl StoreWriter {
    async fn run(self, contacts: Arc<Contacts>, mut stopped: watch::Receiver<bool>) {
        let Some(pending) = contacts.pending() else {
            return;
        };
        let mut abandoned = false;
        loop {
            let stopping = abandoned || *stopped.borrow_and_update();
            if !stopping && pending.len() == 0 {
                tokio::select! {
                    () = pending.changed() => tokio::time::sleep(GATHER).await,
                    change = stopped.changed() => abandoned = change.is_err(),
                }
                continue;
            }
            let written = self.flush(pending).await;
            if stopping && (abandoned || (written && pending.len() == 0)) {
                return;
            }
            if !written {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Whether all that waited is on disk.
    async fn flush(&self, pending: &Pending) -> bool {
        let batch = pending.take(usize::MAX);
        if batch.is_empty() {
            return true;
        }
        let database = Arc::clone(&self.database);
        let result = tokio::task::spawn_blocking(move || write(&database, &batch)).await;
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        match &failure {
            None => pending.written(),
            Some(error) => {
                pending.failed();
                tracing::warn!(path = %self.path.display(), %error, "contacts could not be written, will be tried again");
            }
        }
        let written = failure.is_none();
        self.health.send_if_modified(|health| {
            let changed = health.failure != failure;
            health.failure = failure;
            changed
        });
        written
    }
}

#[cfg(test)]
mod tests;
