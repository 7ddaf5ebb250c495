//! The store of one replica: a redb file in a directory of its own. Each write is one durable
//! transaction, so that a kill at any time leaves the last one whole.
//!
//! A file that cannot be opened, read or written costs nobody more than its contents: contacts go on in memory, changes
//! wait, bounded, and the file is opened anew, again and again (after one fault of the disk redb takes nothing more).

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use tokio::sync::watch;

use super::{
    Contact, Contacts,
    pending::{ContactBatch, Pending},
    store::{ContactStore, FailureLines, GATHER, StoreError, StoreHealth},
};

/// Bare address of the user, of the remote → [`Contact::encode`].
const CONTACTS: TableDefinition<(&str, &str), u8> = TableDefinition::new("contacts-v1");

const FILE: &str = "contacts.redb";

/// The whole is in the index: the file's own cache serves writes only.
const CACHE_BYTES: usize = 8 << 20;

/// Pauses after a failure (disk full), from the first to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Opens the file, or makes it.
type OpenDatabase = Arc<dyn Fn() -> Result<Database, StoreError> + Send + Sync>;

impl ContactStore {
    /// Opens or makes the store in `directory`, loads it, and starts the task that writes. Where that fails, contacts are
    /// in memory alone for now, [`StoreHealth`] and the log say why, and it is tried again. Needs a tokio runtime; blocks
    /// for the time of loading (about a second for a million contacts).
    #[must_use]
    pub fn embedded(directory: &Path) -> Self {
        let directory = directory.to_owned();
        let path = directory.join(FILE);
        Self::on(path, Arc::new(move || open(&directory)))
    }

    fn on(path: PathBuf, open: OpenDatabase) -> Self {
        let contacts = Arc::new(Contacts::stored());
        let (health, health_seen) = watch::channel(StoreHealth::default());
        let (stop, stopped) = watch::channel(false);
        let first = begin(&open, &path, Some(&contacts));
        let mut writer = StoreWriter {
            open,
            database: None,
            path,
            health,
            lines: FailureLines::default(),
        };
        match writer.take_up(first) {
            Ok(database) => writer.database = Some(database),
            Err(error) => writer.note(Some(error)),
        }
        let task = tokio::spawn(writer.run(Arc::clone(&contacts), stopped));
        Self::new(contacts, health_seen, None, stop, task)
    }
}

/// Only the process's own user may see who talks to whom.
fn open(directory: &Path) -> Result<Database, StoreError> {
    let unusable = |source| StoreError::Directory {
        path: directory.to_owned(),
        source,
    };
    let mut make = fs::DirBuilder::new();
    make.recursive(true).mode(0o700);
    make.create(directory).map_err(unusable)?;
    close_to_others(directory);
    let path = directory.join(FILE);
    let mut file = fs::OpenOptions::new();
    file.write(true).create_new(true).mode(0o600);
    let is_new = match file.open(&path) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            close_to_others(&path);
            false
        }
        Err(source) => return Err(StoreError::Directory { path, source }),
    };
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(&path)
        .inspect_err(|error| {
            // Half made (the disk is full), it would look damaged ever after. Another process may have been faster
            // to open it: then it is that one's.
            if is_new && !matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                let _ = fs::remove_file(&path);
            }
        })
        .map_err(|source| match source {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.clone() },
            source => StoreError::Open {
                path: path.clone(),
                source,
            },
        })
}

/// What an older version made for all to read. The group's bits are the node's: a volume's group may have them (`fsGroup`).
/// Who may not change them has somebody else's file, whose bits are not ours to judge.
fn close_to_others(path: &Path) {
    if let Ok(metadata) = fs::metadata(path) {
        let mode = metadata.permissions().mode();
        if mode & 0o007 != 0 {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode & !0o007));
        }
    }
}

/// What came of opening the file.
struct OpenedStore {
    database: Result<Database, StoreError>,
    loaded: bool,
}

/// Opens the file, and loads it where that was not done yet: what can be read counts where nothing can be written.
fn begin(open: &OpenDatabase, path: &Path, unread: Option<&Contacts>) -> OpenedStore {
    let opened = open();
    let not_loaded = |database| OpenedStore {
        database,
        loaded: false,
    };
    let Some(contacts) = unread else {
        return not_loaded(opened);
    };
    let loaded = match &opened {
        Ok(database) => load(database, contacts),
        Err(_) => match Database::builder().open_read_only(path) {
            Ok(database) => load(&database, contacts),
            Err(_) => return not_loaded(opened),
        },
    };
    match loaded {
        Ok(()) => OpenedStore {
            database: opened,
            loaded: true,
        },
        Err(source) => not_loaded(Err(StoreError::Embedded {
            path: path.to_owned(),
            source: Box::new(source),
        })),
    }
}

/// It writes nothing: a full disk can be read.
fn load(database: &impl ReadableDatabase, contacts: &Contacts) -> Result<(), redb::Error> {
    let read = database.begin_read()?;
    let table = match read.open_table(CONTACTS) {
        Ok(table) => Some(table),
        // Nothing was ever written.
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    contacts.begin_load();
    if let Some(table) = table {
        for row in table.iter()? {
            let (pair, code) = row?;
            let (user, remote) = pair.value();
            contacts.adopt(user, remote, Contact::decode(code.value()));
        }
    }
    contacts.end_load();
    Ok(())
}

/// Applies a batch to what is stored and makes it durable.
fn write(database: &Database, batch: &ContactBatch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(CONTACTS)?;
        for ((user, remote), change) in batch {
            let pair = (&**user, &**remote);
            let stored = table
                .get(pair)?
                .and_then(|code| Contact::decode(code.value()));
            match change.transition.apply(stored) {
                Some(state) => table.insert(pair, Contact::encode(Some(state)))?,
                None => table.remove(pair)?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

struct StoreWriter {
    open: OpenDatabase,
    /// None: it is to be opened.
    database: Option<Database>,
    path: PathBuf,
    health: watch::Sender<StoreHealth>,
    lines: FailureLines,
}

impl StoreWriter {
    async fn run(mut self, contacts: Arc<Contacts>, mut stopped: watch::Receiver<bool>) {
        let Some(pending) = contacts.pending() else {
            return;
        };
        let mut abandoned = false;
        let mut pause = RETRY_FIRST;
        loop {
            let stopping = abandoned || *stopped.borrow_and_update();
            if pending.len() == 0 && stopping {
                return;
            }
            if pending.len() == 0 && self.database.is_some() {
                tokio::select! {
                    () = pending.changed() => tokio::time::sleep(GATHER).await,
                    change = stopped.changed() => abandoned = change.is_err(),
                }
                continue;
            }
            let flushed = self.flush(&contacts, pending).await;
            let is_well = flushed.is_ok();
            self.note(flushed.err());
            if is_well {
                pause = RETRY_FIRST;
                continue;
            }
            if abandoned {
                return;
            }
            let shortest = if stopping { RETRY_FIRST } else { pause };
            tokio::select! {
                () = tokio::time::sleep(shortest) => {}
                change = stopped.changed(), if !stopping => abandoned = change.is_err(),
            }
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// Writes all that waits; opens the file first where the last use of it failed.
    async fn flush(
        &mut self,
        contacts: &Arc<Contacts>,
        pending: &Pending,
    ) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen(contacts).await?,
        };
        let batch = pending.take(usize::MAX);
        if batch.is_empty() {
            self.database = Some(database);
            return Ok(());
        }
        let writing = tokio::task::spawn_blocking(move || {
            // After a fault this one takes nothing more: it is closed here.
            write(&database, &batch).map(|()| database)
        });
        let failure = match writing.await {
            Ok(Ok(database)) => {
                self.database = Some(database);
                pending.written();
                return Ok(());
            }
            Ok(Err(source)) => StoreError::Embedded {
                path: self.path.clone(),
                source: Box::new(source),
            },
            Err(error) => self.broken_off(&error),
        };
        pending.failed();
        Err(failure)
    }

    async fn reopen(&self, contacts: &Arc<Contacts>) -> Result<Database, StoreError> {
        let (open, path) = (Arc::clone(&self.open), self.path.clone());
        let unread = (!self.health.borrow().loaded).then(|| Arc::clone(contacts));
        let begun = tokio::task::spawn_blocking(move || begin(&open, &path, unread.as_deref()));
        let begun = begun.await.map_err(|error| self.broken_off(&error))?;
        self.take_up(begun)
    }

    fn take_up(&self, begun: OpenedStore) -> Result<Database, StoreError> {
        if begun.loaded {
            self.health.send_if_modified(|health| {
                let is_news = !health.loaded;
                health.loaded = true;
                is_news
            });
        }
        begun.database
    }

    fn broken_off(&self, error: &tokio::task::JoinError) -> StoreError {
        StoreError::Directory {
            path: self.path.clone(),
            source: std::io::Error::other(error.to_string()),
        }
    }

    fn note(&mut self, failure: Option<StoreError>) {
        let failure = failure.map(|error| error.to_string());
        match &failure {
            Some(error) if self.lines.is_due(error, Instant::now()) => {
                tracing::warn!(%error, "contacts are in memory alone until the store takes them, which is tried again");
            }
            None if self.lines.is_over() => tracing::info!("the contacts' store is well again"),
            _ => {}
        }
        self.health.send_if_modified(|health| {
            let changed = health.failure != failure;
            health.failure = failure;
            changed
        });
    }
}

#[cfg(test)]
mod tests;
