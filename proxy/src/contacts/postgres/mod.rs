//! The store of several replicas: one table in PostgreSQL.
//!
//! Writers are serialised by an advisory lock and apply transitions to what the table holds, so
//! that replicas' changes combine; each row carries the revision of its last change, in the order
//! of commits, and every replica asks for what is newer four times a second. An ended contact stays
//! as a row of state 0 for a day, so that all hear of it. While the database is away, contacts as
//! last known count, and changes wait, bounded.
//!
//! A replica that freezes with the lock in hand holds up nobody for long: the server ends its transaction. A pair that
//! the database cannot hold holds up nobody at all: it is found and left out.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use tokio::sync::watch;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

use super::{
    Contact, Contacts, Database,
    index::RecordError,
    pending::{ContactBatch, ContactKey},
    store::{ContactStore, FailureLines, GATHER, LinesInTime, StoreError, StoreHealth},
};

/// How often a replica asks for others' changes.
const POLL: Duration = Duration::from_millis(250);
/// Longest wait for one answer of the database; a load may take longer between rows, not for one.
const ANSWER: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_LAST: Duration = Duration::from_secs(10);
/// A replica that heard nothing for longer loads anew, long before ended contacts' rows go.
const RELOAD_AFTER: Duration = Duration::from_secs(12 * 3600);
/// Rows or pairs in one statement.
const CHUNK: usize = 5_000;
/// How often ended contacts' rows are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// Bounds of a transaction, in force until its end alone: a pooler in between (PgBouncer) hands the connection on, and
/// takes no such settings when a client begins. A lock is waited for less long than its holder may be silent, and both
/// less long than [`ANSWER`]. Servers before PostgreSQL 17 know no `transaction_timeout`, which also ends a transaction
/// whose client does not read.
const BOUNDS: &str = "
SELECT set_config(name, bound, true)
FROM (VALUES ('lock_timeout', '3s'), ('statement_timeout', '4s'),
    ('idle_in_transaction_session_timeout', '4s'), ('transaction_timeout', '15s')) AS bounds(name, bound)
JOIN pg_settings USING (name)";

/// Key of the advisory lock: chosen once, the same in all versions.
const LOCK: i64 = 0x786d_7070_6564_6765;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS xmpp_edge_contacts (
    local_user text COLLATE \"C\" NOT NULL,
    remote text COLLATE \"C\" NOT NULL,
    state smallint NOT NULL,
    revision bigint NOT NULL,
    changed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (local_user, remote)
);
CREATE INDEX IF NOT EXISTS xmpp_edge_contacts_by_revision ON xmpp_edge_contacts (revision);
CREATE SEQUENCE IF NOT EXISTS xmpp_edge_contacts_revisions;";

const STORED: &str = "
SELECT c.local_user, c.remote, c.state
FROM xmpp_edge_contacts c
JOIN unnest($1::text[], $2::text[]) AS wanted(local_user, remote) USING (local_user, remote)";

const UPSERT: &str = "
INSERT INTO xmpp_edge_contacts (local_user, remote, state, revision)
SELECT local_user, remote, state, nextval('xmpp_edge_contacts_revisions')
FROM unnest($1::text[], $2::text[], $3::smallint[]) AS changed(local_user, remote, state)
ON CONFLICT (local_user, remote) DO UPDATE
SET state = excluded.state, revision = excluded.revision, changed = now()
RETURNING local_user, remote, state, revision, (extract(epoch FROM changed) * 1000000)::bigint";

/// From the row on that was seen last: whether it is still there says whether this is the same history.
const NEWER: &str = "
SELECT local_user, remote, state, revision, (extract(epoch FROM changed) * 1000000)::bigint
FROM xmpp_edge_contacts
WHERE revision >= $1 ORDER BY revision LIMIT 5000";

const NEWEST: &str = "
SELECT local_user, remote, state, revision, (extract(epoch FROM changed) * 1000000)::bigint
FROM xmpp_edge_contacts ORDER BY revision DESC LIMIT 1";

const SWEEP_ENDED: &str =
    "DELETE FROM xmpp_edge_contacts WHERE state = 0 AND changed < now() - interval '1 day'";

impl ContactStore {
    /// Connects in the background: until the table is loaded ([`StoreHealth::loaded`]), contacts
    /// look like strangers. Needs a tokio runtime. The role needs `CREATE` in its schema once, unless
    /// the table is made for it.
    #[must_use]
    pub fn postgres(database: Database) -> Self {
        Self::shared(Ok(database))
    }

    /// The same before it is known where the database is, and why not: contacts are in memory and wait for
    /// [`Self::move_to`].
    #[must_use]
    pub fn without_database(why: String) -> Self {
        Self::shared(Err(why))
    }

    fn shared(database: Result<Database, String>) -> Self {
        let contacts = Arc::new(Contacts::stored());
        let (health, health_seen) = watch::channel(StoreHealth::default());
        let (stop, stopped) = watch::channel(false);
        let (tell, moves) = watch::channel(database);
        let replica = Replica {
            at: None,
            database: moves,
            contacts: Arc::clone(&contacts),
            health,
            stopped,
            seen: None,
            most: CHUNK,
            lines: FailureLines::default(),
            left_out: LinesInTime::default(),
            written: None,
            encoding: None,
        };
        let task = tokio::spawn(replica.run());
        Self::new(contacts, health_seen, Some(tell), stop, task)
    }
}

/// How far a replica has read.
struct SeenChanges {
    /// The newest row; none: there was none.
    newest: Option<SeenRow>,
    at: Instant,
}

/// A change as the database has it. Another history has another, even under the same number.
#[derive(PartialEq, Eq)]
struct SeenRow {
    user: String,
    remote: String,
    revision: i64,
    /// Microseconds since 1970.
    changed: i64,
}

impl SeenRow {
    /// Of the five columns of [`NEWER`], [`NEWEST`] and [`UPSERT`].
    fn of(row: &Row) -> Self {
        Self {
            user: row.get(0),
            remote: row.get(1),
            revision: row.get(3),
            changed: row.get(4),
        }
    }

    /// Whether `row` is this change, or one of the same pair after it.
    fn goes_on_in(&self, row: &Row) -> bool {
        let later = row.get::<_, i64>(3) > self.revision;
        *self == Self::of(row)
            || later
                && (row.get::<_, &str>(0), row.get::<_, &str>(1)) == (&*self.user, &*self.remote)
    }
}

struct Replica {
    /// Where it is now, and where it shall be; or why that is not known.
    at: Option<Database>,
    database: watch::Receiver<Result<Database, String>>,
    contacts: Arc<Contacts>,
    health: watch::Sender<StoreHealth>,
    stopped: watch::Receiver<bool>,
    seen: Option<SeenChanges>,
    /// Pairs in the next write: fewer while one is looked for that the database cannot hold.
    most: usize,
    lines: FailureLines,
    left_out: LinesInTime,
    /// The newest change of our own, until it is among the seen ones.
    written: Option<SeenRow>,
    /// The encoding that was told of: one that is not UTF8.
    encoding: Option<String>,
}

/// Why a session with the database ended.
enum End {
    Stopped,
    /// There is another database.
    Moved,
    Failed(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What came of a write.
struct WrittenPairs {
    /// The last row, where one was changed.
    newest: Option<SeenRow>,
    /// What the pairs are after it.
    pairs: Vec<(ContactKey, Option<Contact>)>,
}

/// Why a write failed.
enum WriteRefused {
    /// For what is in it: it would again.
    Pairs(StoreError),
    Write(StoreError),
}

impl WriteRefused {
    fn of_pairs(error: StoreError) -> Self {
        if error.is_of_the_data() {
            Self::Pairs(error)
        } else {
            Self::Write(error)
        }
    }
}

impl From<StoreError> for WriteRefused {
    fn from(error: StoreError) -> Self {
        Self::Write(error)
    }
}

impl Replica {
    async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let started = Instant::now();
            let error = match self.session().await {
                End::Stopped => return,
                End::Moved => {
                    backoff = BACKOFF_FIRST;
                    continue;
                }
                End::Failed(error) => error,
            };
            let text = error.to_string();
            self.health.send_if_modified(|health| {
                let changed = health.failure.as_ref() != Some(&text);
                health.failure = Some(text.clone());
                changed
            });
            if self.lines.is_due(&text, Instant::now()) {
                tracing::warn!(error = %text, "contacts as last known count until the database is back");
            }
            if self.is_stopping() {
                return;
            }
            if started.elapsed() > BACKOFF_LAST {
                backoff = BACKOFF_FIRST;
            }
            let jitter = backoff.mul_f64((RandomState::new().hash_one(0) % 1000) as f64 / 2000.0);
            let mut stopped = self.stopped.clone();
            let mut database = self.database.clone();
            tokio::select! {
                () = tokio::time::sleep(backoff + jitter) => {}
                _ = stopped.changed() => {}
                Ok(()) = database.changed() => {}
            }
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    /// One connection, from connecting to its end.
    async fn session(&mut self) -> End {
        match self.serve().await {
            Ok(end) => end,
            Err(error) => End::Failed(error),
        }
    }

    async fn serve(&mut self) -> Result<End, StoreError> {
        let next = self.database.borrow_and_update().clone();
        let next = next.map_err(StoreError::NoDatabase)?;
        if self.at.as_ref().is_none_or(|at| !next.is_same_place(at)) {
            self.seen = None;
        }
        self.at = Some(next.clone());
        let mut client = self.connect(next).await?;
        self.prepare(&mut client).await?;
        self.catch_up(&client).await?;
        self.health.send_replace(StoreHealth {
            loaded: true,
            failure: None,
        });
        if self.lines.is_over() {
            tracing::info!("the contacts' store is well again");
        }
        let contacts = Arc::clone(&self.contacts);
        let Some(pending) = contacts.pending() else {
            return Ok(End::Stopped);
        };
        let mut swept: Option<Instant> = None;
        loop {
            let stopping = self.is_stopping();
            while pending.len() > 0 {
                self.flush(&mut client).await?;
            }
            if stopping {
                return Ok(End::Stopped);
            }
            if self.database.has_changed().unwrap_or(false) {
                return Ok(End::Moved);
            }
            self.poll(&client, false).await?;
            if swept.is_none_or(|at| at.elapsed() > SWEEP) {
                self.answer(client.execute(SWEEP_ENDED, &[])).await?;
                swept = Some(Instant::now());
            }
            let mut stopped = self.stopped.clone();
            tokio::select! {
                () = pending.changed() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(POLL) => {}
                _ = stopped.changed() => {}
            }
        }
    }

    /// An abandoned store counts as stopped.
    fn is_stopping(&self) -> bool {
        *self.stopped.borrow() || self.stopped.has_changed().is_err()
    }

    async fn connect(&self, at: Database) -> Result<Client, StoreError> {
        let mut config = at.config;
        config.connect_timeout(CONNECT).tcp_user_timeout(ANSWER * 2);
        config.application_name("xmpp-edge-proxy");
        let connecting = config.connect(at.tls);
        let (client, connection) = self.answer(connecting).await?;
        // Ends with the client; what it fails of, the client's next call says.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the contacts' database ended");
            }
        });
        Ok(client)
    }

    async fn prepare(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let row = self
            .answer(client.query_one("SHOW server_encoding", &[]))
            .await?;
        let encoding: String = row.get(0);
        // SQL_ASCII converts nothing.
        let is_whole = matches!(encoding.as_str(), "UTF8" | "SQL_ASCII");
        if !is_whole && self.encoding.as_ref() != Some(&encoding) {
            tracing::warn!(
                host = self.host(),
                encoding,
                "the contacts' database cannot hold all addresses: contacts with other characters last until the next start; make a database with ENCODING 'UTF8'"
            );
        }
        self.encoding = (!is_whole).then_some(encoding);
        // A role that may not create can still use a table that was made for it; and nobody need wait for the lock.
        if self.is_made(&*client).await? {
            return Ok(());
        }
        let transaction = self.begin_locked(client).await?;
        // CREATE IF NOT EXISTS alone fails where two replicas start at once.
        if !self.is_made(&transaction).await? {
            self.answer(transaction.batch_execute(SCHEMA)).await?;
        }
        self.answer(transaction.commit()).await
    }

    async fn is_made(&self, client: &impl GenericClient) -> Result<bool, StoreError> {
        let there = "SELECT to_regclass('xmpp_edge_contacts') IS NOT NULL \
            AND to_regclass('xmpp_edge_contacts_revisions') IS NOT NULL";
        Ok(self.answer(client.query_one(there, &[])).await?.get(0))
    }

    /// A transaction with [`BOUNDS`] that holds the lock of all writers.
    async fn begin_locked<'c>(
        &self,
        client: &'c mut Client,
    ) -> Result<Transaction<'c>, StoreError> {
        let transaction = self.answer(client.transaction()).await?;
        self.answer(transaction.execute(BOUNDS, &[])).await?;
        self.answer(transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]))
            .await?;
        Ok(transaction)
    }

    /// What changed while we were away; all of it where that was long, or never, or where it cannot be told whether the
    /// database still has what we wrote last.
    async fn catch_up(&mut self, client: &Client) -> Result<(), StoreError> {
        match &self.seen {
            Some(seen) if seen.at.elapsed() < RELOAD_AFTER && self.written.is_none() => {
                self.poll(client, true).await
            }
            _ => self.load(client).await,
        }
    }

    async fn load(&mut self, client: &Client) -> Result<(), StoreError> {
        let newest = self.answer(client.query_opt(NEWEST, &[])).await?;
        let all = "SELECT local_user, remote, state FROM xmpp_edge_contacts WHERE state <> 0";
        let none: [&str; 0] = [];
        self.contacts.begin_load();
        let rows = self.answer(client.query_raw(all, none)).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = self.answer(rows.try_next()).await? {
            let (user, remote, state) = pair(&row);
            self.contacts.adopt(user, remote, state);
        }
        self.contacts.end_load();
        self.written = None;
        self.seen = Some(SeenChanges {
            newest: newest.as_ref().map(SeenRow::of),
            at: Instant::now(),
        });
        Ok(())
    }

    /// What changed since; all anew where what was seen last is not there any more: the database was restored from a
    /// backup, or a standby took over that had not got all. Within a session (`is_new` false) the last pair may have been
    /// changed again, and counts as the same history.
    async fn poll(&mut self, client: &Client, is_new: bool) -> Result<(), StoreError> {
        let mut must_be_there = is_new;
        loop {
            let seen = self.seen.as_ref().and_then(|seen| seen.newest.as_ref());
            let revision = seen.map_or(0, |seen| seen.revision);
            let rows = self.answer(client.query(NEWER, &[&revision])).await?;
            if let Some(seen) = seen {
                let goes_on = if must_be_there {
                    rows.first().is_some_and(|row| *seen == SeenRow::of(row))
                } else {
                    rows.iter().any(|row| seen.goes_on_in(row))
                };
                if !goes_on {
                    return self.load(client).await;
                }
            }
            must_be_there = false;
            let is_own = |own: &mut SeenRow| rows.iter().any(|row| own.goes_on_in(row));
            self.written.take_if(is_own);
            // The first may be the one that was seen last: taken in, or counted as one for which there is no room.
            let news = rows.iter().filter(|row| {
                let is_known = |seen: &SeenRow| *seen == SeenRow::of(row);
                !seen.is_some_and(is_known)
            });
            for row in news {
                let (user, remote, state) = pair(row);
                self.contacts.adopt(user, remote, state);
            }
            let newest = rows.last().map(SeenRow::of);
            if let Some(seen) = &mut self.seen {
                seen.newest = newest.or(seen.newest.take());
                seen.at = Instant::now();
            }
            if rows.len() < CHUNK {
                // A pooler lets a session go on at another server than the one that took it.
                return match self.written {
                    Some(_) => self.load(client).await,
                    None => Ok(()),
                };
            }
        }
    }

    /// Writes what waits in one transaction; it waits again where that fails. Where the database refuses what is in it,
    /// the next one is half as large, so that one pair alone is left out in the end.
    async fn flush(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let contacts = Arc::clone(&self.contacts);
        let Some(pending) = contacts.pending() else {
            return Ok(());
        };
        let batch = pending.take(self.most);
        match self.write(client, &batch).await {
            Ok(WrittenPairs { newest, pairs }) => {
                pending.written();
                self.written = newest.or(self.written.take());
                self.most = (self.most * 2).min(CHUNK);
                for ((user, remote), state) in pairs {
                    self.contacts.adopt(&user, &remote, state);
                }
                Ok(())
            }
            Err(WriteRefused::Pairs(error)) if batch.len() == 1 => {
                pending.written();
                contacts.count_not_recorded(RecordError::NotStorable);
                for (user, remote) in batch.keys().filter(|_| self.left_out.is_due()) {
                    tracing::warn!(
                        %error, user = %user.escape_debug(), remote = %remote.escape_debug(),
                        "the contacts' database cannot hold an address: the contact lasts until the next start"
                    );
                }
                Ok(())
            }
            Err(refused) => {
                let half = (batch.len() / 2).max(1);
                drop(batch);
                pending.failed();
                match refused {
                    WriteRefused::Pairs(_) => {
                        self.most = half;
                        Ok(())
                    }
                    WriteRefused::Write(error) => Err(error),
                }
            }
        }
    }

    /// What the pairs are after it: others may have had a part in that.
    async fn write(
        &self,
        client: &mut Client,
        batch: &ContactBatch,
    ) -> Result<WrittenPairs, WriteRefused> {
        let transaction = self.begin_locked(client).await?;
        let users: Vec<&str> = batch.keys().map(|(user, _)| &**user).collect();
        let remotes: Vec<&str> = batch.keys().map(|(_, remote)| &**remote).collect();
        let rows = self
            .answer(transaction.query(STORED, &[&users, &remotes]))
            .await
            .map_err(WriteRefused::of_pairs)?;
        let stored: std::collections::HashMap<(&str, &str), Option<Contact>> = rows
            .iter()
            .map(|row| {
                let (user, remote, state) = pair(row);
                ((user, remote), state)
            })
            .collect();
        let mut pairs = Vec::with_capacity(batch.len());
        let (mut users, mut remotes, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for ((user, remote), change) in batch {
            let before = stored.get(&(&**user, &**remote)).copied().flatten();
            let after = change.transition.apply(before);
            if after != before {
                users.push(&**user);
                remotes.push(&**remote);
                states.push(i16::from(Contact::encode(after)));
            }
            pairs.push(((user.clone(), remote.clone()), after));
        }
        let mut newest = None;
        if !users.is_empty() {
            let written = self
                .answer(transaction.query(UPSERT, &[&users, &remotes, &states]))
                .await
                .map_err(WriteRefused::of_pairs)?;
            let rows = written.iter().map(SeenRow::of);
            newest = rows.max_by_key(|row| row.revision);
        }
        self.answer(transaction.commit()).await?;
        Ok(WrittenPairs { newest, pairs })
    }

    fn host(&self) -> String {
        self.at
            .as_ref()
            .map_or_else(String::new, |at| at.host.clone())
    }

    async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(StoreError::Postgres {
                host: self.host(),
                source,
            }),
            Err(_) => Err(StoreError::PostgresTimeout {
                host: self.host(),
                seconds: ANSWER.as_secs(),
            }),
        }
    }
}

/// The first three columns of every query here.
fn pair(row: &Row) -> (&str, &str, Option<Contact>) {
    let state: i16 = row.get(2);
    (
        row.get(0),
        row.get(1),
        Contact::decode(u8::try_from(state).unwrap_or(1)),
    )
}

#[cfg(test)]
mod tests;
