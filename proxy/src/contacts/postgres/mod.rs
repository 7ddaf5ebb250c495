//! The store of several replicas: one table in PostgreSQL.
//!
//! Writers are serialised by an advisory lock and apply transitions to what the table holds, so
//! that replicas' changes combine; each row carries the revision of its last change, in the order
//! of commits, and every replica asks for what is newer four times a second. An ended contact stays
//! as a row of state 0 for a day, so that all hear of it. While the database is away, contacts as
//! last known count, and changes wait, bounded.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use tokio::sync::watch;
use tokio_postgres::{Client, Row};

use super::{
    Contact, Contacts, Database,
    pending::ContactBatch,
    store::{ContactStore, GATHER, StoreError, StoreHealth},
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
SET state = excluded.state, revision = excluded.revision, changed = now()";

const NEWER: &str = "
SELECT local_user, remote, state, revision FROM xmpp_edge_contacts
WHERE revision > $1 ORDER BY revision LIMIT 5000";

const SWEEP_ENDED: &str =
    "DELETE FROM xmpp_edge_contacts WHERE state = 0 AND changed < now() - interval '1 day'";

impl ContactStore {
    /// Connects in the background: until the table is loaded ([`StoreHealth::loaded`]), contacts
    /// look like strangers. Needs a tokio runtime. The role needs `CREATE` in its schema once, unless
    /// the table is made for it.
    #[must_use]
    pub fn postgres(database: Database) -> Self {
        let contacts = Arc::new(Contacts::stored());
        let (health, health_seen) = watch::channel(StoreHealth::default());
        let (stop, stopped) = watch::channel(false);
        let (tell, moves) = watch::channel(database.clone());
        let replica = Replica {
            at: database,
            database: moves,
            contacts: Arc::clone(&contacts),
            health,
            stopped,
            seen: None,
            loaded: false,
        };
        let task = tokio::spawn(replica.run());
        Self::new(contacts, health_seen, Some(tell), stop, task)
    }
}

/// How far a replica has read.
#[derive(Clone, Copy)]
struct SeenChanges {
    revision: i64,
    at: Instant,
}

struct Replica {
    /// Where it is now, and where it shall be.
    at: Database,
    database: watch::Receiver<Database>,
    contacts: Arc<Contacts>,
    health: watch::Sender<StoreHealth>,
    stopped: watch::Receiver<bool>,
    seen: Option<SeenChanges>,
    /// Something was loaded before, from here or elsewhere.
    loaded: bool,
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
            let news = self.health.send_if_modified(|health| {
                let changed = health.failure.as_ref() != Some(&text);
                health.failure = Some(text.clone());
                changed
            });
            if news {
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
        if !next.is_same_place(&self.at) {
            self.seen = None;
        }
        self.at = next;
        let mut client = self.connect().await?;
        self.prepare(&mut client).await?;
        self.catch_up(&client).await?;
        self.health.send_replace(StoreHealth {
            loaded: true,
            failure: None,
        });
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
            self.poll(&client).await?;
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

    async fn connect(&self) -> Result<Client, StoreError> {
        let mut config = self.at.config.clone();
        config.connect_timeout(CONNECT).tcp_user_timeout(ANSWER * 2);
        config.application_name("xmpp-edge-proxy");
        let connecting = config.connect(self.at.tls.clone());
        let (client, connection) = self.answer(connecting).await?;
        // Ends with the client; what it fails of, the client's next call says.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the contacts' database ended");
            }
        });
        Ok(client)
    }

    async fn prepare(&self, client: &mut Client) -> Result<(), StoreError> {
        let transaction = self.answer(client.transaction()).await?;
        // CREATE IF NOT EXISTS alone fails where two replicas start at once.
        self.answer(transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]))
            .await?;
        // A role that may not create can still use a table that was made for it.
        let there = "SELECT to_regclass('xmpp_edge_contacts') IS NOT NULL \
            AND to_regclass('xmpp_edge_contacts_revisions') IS NOT NULL";
        let row = self.answer(transaction.query_one(there, &[])).await?;
        if !row.get::<_, bool>(0) {
            self.answer(transaction.batch_execute(SCHEMA)).await?;
        }
        self.answer(transaction.commit()).await
    }

    /// What changed while we were away; all of it where that was long, or never, or where the
    /// database is an older one (restored from a backup).
    async fn catch_up(&mut self, client: &Client) -> Result<(), StoreError> {
        let newest = "SELECT coalesce(max(revision), 0) FROM xmpp_edge_contacts";
        let newest: i64 = self.answer(client.query_one(newest, &[])).await?.get(0);
        match self.seen {
            Some(seen) if seen.at.elapsed() < RELOAD_AFTER && seen.revision <= newest => {
                self.poll(client).await
            }
            _ => self.load(client, newest, self.loaded).await,
        }
    }

    async fn load(&mut self, client: &Client, newest: i64, again: bool) -> Result<(), StoreError> {
        let all = "SELECT local_user, remote, state FROM xmpp_edge_contacts WHERE state <> 0";
        let none: [&str; 0] = [];
        let rows = self.answer(client.query_raw(all, none)).await?;
        let mut rows = std::pin::pin!(rows);
        let mut held = HashSet::new();
        while let Some(row) = self.answer(rows.try_next()).await? {
            let (user, remote, state) = pair(&row);
            self.contacts.adopt(user, remote, state);
            if again {
                held.insert((user.to_owned(), remote.to_owned()));
            }
        }
        if again {
            self.contacts
                .retain(|user, remote| held.contains(&(user.to_owned(), remote.to_owned())));
        }
        self.loaded = true;
        self.seen = Some(SeenChanges {
            revision: newest,
            at: Instant::now(),
        });
        Ok(())
    }

    async fn poll(&mut self, client: &Client) -> Result<(), StoreError> {
        loop {
            let revision = self.seen.map_or(0, |seen| seen.revision);
            let rows = self.answer(client.query(NEWER, &[&revision])).await?;
            let mut revision = revision;
            for row in &rows {
                let (user, remote, state) = pair(row);
                self.contacts.adopt(user, remote, state);
                revision = row.get(3);
            }
            self.seen = Some(SeenChanges {
                revision,
                at: Instant::now(),
            });
            if rows.len() < CHUNK {
                return Ok(());
            }
        }
    }

    /// Writes what waits in one transaction; it waits again where that fails.
    async fn flush(&self, client: &mut Client) -> Result<(), StoreError> {
        let Some(pending) = self.contacts.pending() else {
            return Ok(());
        };
        let batch = pending.take(CHUNK);
        match self.write(client, &batch).await {
            Ok(changed) => {
                pending.written();
                for ((user, remote), state) in changed {
                    self.contacts.adopt(&user, &remote, state);
                }
                Ok(())
            }
            Err(error) => {
                pending.failed();
                Err(error)
            }
        }
    }

    /// What the pairs are after it: others may have had a part in that.
    async fn write(
        &self,
        client: &mut Client,
        batch: &ContactBatch,
    ) -> Result<Vec<((Box<str>, Box<str>), Option<Contact>)>, StoreError> {
        let transaction = self.answer(client.transaction()).await?;
        self.answer(transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]))
            .await?;
        let users: Vec<&str> = batch.keys().map(|(user, _)| &**user).collect();
        let remotes: Vec<&str> = batch.keys().map(|(_, remote)| &**remote).collect();
        let rows = self
            .answer(transaction.query(STORED, &[&users, &remotes]))
            .await?;
        let stored: std::collections::HashMap<(&str, &str), Option<Contact>> = rows
            .iter()
            .map(|row| {
                let (user, remote, state) = pair(row);
                ((user, remote), state)
            })
            .collect();
        let mut results = Vec::with_capacity(batch.len());
        let (mut users, mut remotes, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for ((user, remote), transition) in batch {
            let before = stored.get(&(&**user, &**remote)).copied().flatten();
            let after = transition.apply(before);
            if after != before {
                users.push(&**user);
                remotes.push(&**remote);
                states.push(i16::from(Contact::encode(after)));
            }
            results.push(((user.clone(), remote.clone()), after));
        }
        if !users.is_empty() {
            self.answer(transaction.execute(UPSERT, &[&users, &remotes, &states]))
                .await?;
        }
        self.answer(transaction.commit()).await?;
        Ok(results)
    }

    async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(StoreError::Postgres {
                host: self.at.host.clone(),
                source,
            }),
            Err(_) => Err(StoreError::PostgresTimeout {
                host: self.at.host.clone(),
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
