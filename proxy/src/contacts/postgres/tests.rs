//! Several replicas on a real PostgreSQL server, started here from Debian's binaries.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::*;
use crate::contacts::{ContactChange, ContactEvent};

const USER: &str = "alice@org.example";

/// A server with a data directory of its own; dies with the test.
struct PostgresServer {
    directory: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl PostgresServer {
    fn new() -> Self {
        Self::with_encoding("UTF8")
    }

    fn with_encoding(encoding: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let mut server = Self {
            directory,
            bin: binaries(),
            port,
            process: None,
        };
        let made = server
            .command("initdb")
            .args([
                "--auth=trust",
                "--username=edge",
                "--no-sync",
                "--locale=C",
                "--encoding",
                encoding,
                "-D",
            ])
            .arg(server.data())
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        drop(free);
        server.start();
        server
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// PostgreSQL refuses to run as root: then its own user does.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.directory.path());
        command
    }

    fn start(&mut self) {
        let mut sockets = std::ffi::OsString::from("unix_socket_directories=");
        sockets.push(self.directory.path());
        let process = self
            .command("postgres")
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-p"])
            .arg(self.port.to_string())
            .arg("-c")
            .arg(sockets)
            .arg("-D")
            .arg(self.data())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.unwrap());
    }

    /// Fast shutdown: clients are cut off.
    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let id = process.id().to_string();
            Command::new("kill").args(["-INT", &id]).status().unwrap();
            process.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!(
            "postgres://edge@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    fn database(&self) -> Database {
        Database::parse(&self.url(), None).unwrap()
    }

    async fn client(&self) -> Client {
        let config: tokio_postgres::Config = self.url().parse().unwrap();
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .expect("this test needs PostgreSQL: apt-get install postgresql");
    let bin = versions
        .map(|version| version.unwrap().path().join("bin"))
        .max();
    bin.filter(|bin| Path::exists(&bin.join("postgres")))
        .expect("PostgreSQL's binaries")
}

/// Waits for `reached`; gives up long after any promise is broken.
async fn eventually(what: &str, reached: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

async fn loaded(store: &ContactStore) {
    eventually("loaded", || store.health().borrow().loaded).await;
}

fn record(store: &ContactStore, remote: &str, event: ContactEvent) {
    let change = ContactChange {
        user: USER.into(),
        remote: remote.into(),
        event,
    };
    store.contacts().record(&change).unwrap();
}

fn state(store: &ContactStore, remote: &str) -> Option<Contact> {
    store.contacts().state(USER, remote)
}

#[tokio::test]
async fn p_15_contacts_hold_on_every_replica_whatever_happens_to_the_database() {
    let mut server = PostgresServer::new();
    // Both at once, before the server is up: each waits, and each makes the same table.
    let a = ContactStore::postgres(server.database());
    let b = ContactStore::postgres(server.database());
    loaded(&a).await;
    loaded(&b).await;

    // What one records, the other knows; ends as well.
    record(&a, "bob@u.example", ContactEvent::UserFollows);
    eventually("b hears of a contact", || {
        state(&b, "bob@u.example") == Some(Contact::To)
    })
    .await;
    record(&b, "bob@u.example", ContactEvent::UserUnfollows);
    eventually("a hears of its end", || {
        state(&a, "bob@u.example").is_none()
    })
    .await;

    // Two replicas end one half each at the same time: together that ends the contact.
    record(&a, "eve@u.example", ContactEvent::UserFollows);
    record(&a, "eve@u.example", ContactEvent::UserLetsFollow);
    eventually("b knows both halves", || {
        state(&b, "eve@u.example") == Some(Contact::Both)
    })
    .await;
    record(&a, "eve@u.example", ContactEvent::UserUnfollows);
    record(&b, "eve@u.example", ContactEvent::UserWithdraws);
    eventually("the contact ends on both", || {
        state(&a, "eve@u.example").is_none() && state(&b, "eve@u.example").is_none()
    })
    .await;

    // A replica that starts later loads what holds.
    for at in 0..500 {
        record(&a, &format!("r{at}@u.example"), ContactEvent::UserWrites);
    }
    a.stop().await.unwrap();
    let c = ContactStore::postgres(server.database());
    loaded(&c).await;
    assert_eq!(c.contacts().len(), 500);
    eventually("b has heard all", || b.contacts().len() == 500).await;

    // The database goes away: what is known counts, what is new waits, and it is named.
    server.stop();
    eventually("b notices", || b.health().borrow().failure.is_some()).await;
    assert!(b.contacts().has_added(USER, "r7@u.example"));
    record(&b, "new@u.example", ContactEvent::UserFollows);
    record(&c, "r7@u.example", ContactEvent::UserUnfollows);
    assert!(
        b.contacts().has_added(USER, "new@u.example"),
        "counts here at once"
    );
    server.start();
    eventually("c hears of what b held back", || {
        c.contacts().has_added(USER, "new@u.example")
    })
    .await;
    eventually("b hears of what c held back", || {
        !b.contacts().has_added(USER, "r7@u.example")
    })
    .await;
    eventually("b is well again", || b.health().borrow().failure.is_none()).await;

    // An older database is put in place: what it does not hold is forgotten.
    let admin = server.client().await;
    let restored = "BEGIN; TRUNCATE xmpp_edge_contacts; \
        INSERT INTO xmpp_edge_contacts VALUES ('alice@org.example', 'old@u.example', 2, 1); COMMIT;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'xmpp-edge-proxy'";
    admin.batch_execute(restored).await.unwrap();
    eventually("b follows the restored database", || {
        b.contacts().len() == 1 && b.contacts().has_added(USER, "old@u.example")
    })
    .await;
    b.stop().await.unwrap();
    c.stop().await.unwrap();
}

#[tokio::test]
async fn a_role_that_may_not_create_uses_what_was_made_for_it_and_a_moved_store_takes_all_along() {
    let server = PostgresServer::new();
    let maker = ContactStore::postgres(server.database());
    loaded(&maker).await;
    record(&maker, "bob@u.example", ContactEvent::UserFollows);
    maker.stop().await.unwrap();
    let admin = server.client().await;
    let grants = "CREATE ROLE narrow LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
        GRANT SELECT, INSERT, UPDATE, DELETE ON xmpp_edge_contacts TO narrow;
        GRANT USAGE ON SEQUENCE xmpp_edge_contacts_revisions TO narrow;";
    admin.batch_execute(grants).await.unwrap();
    let url = server.url().replace("edge@", "narrow@");
    let store = ContactStore::postgres(Database::parse(&url, None).unwrap());
    loaded(&store).await;
    assert!(store.contacts().has_added(USER, "bob@u.example"));

    // To another server: what holds there counts, what was only here does not.
    let other = PostgresServer::new();
    let there = ContactStore::postgres(other.database());
    loaded(&there).await;
    record(&there, "carol@u.example", ContactEvent::UserFollows);
    there.stop().await.unwrap();
    store.move_to(other.database());
    eventually("the other server's contacts", || {
        store.contacts().has_added(USER, "carol@u.example")
            && !store.contacts().has_added(USER, "bob@u.example")
    })
    .await;
    record(&store, "dave@u.example", ContactEvent::UserFollows);
    store.stop().await.unwrap();
    let held = "SELECT count(*) FROM xmpp_edge_contacts WHERE remote = 'dave@u.example'";
    let row = other.client().await.query_one(held, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_quoting_it() {
    for url in [
        "",
        "postgres://u:hunter2@h:port/x",
        "hunter2",
        "user=u password=hunter2 x",
    ] {
        let error = Database::parse(url, None).unwrap_err().to_string();
        assert!(
            error.contains("postgres://") && !error.contains("hunter2"),
            "{error}"
        );
    }
}

/// What the database holds of contacts with this address.
async fn held(server: &PostgresServer, remote: &str) -> i64 {
    let count = "SELECT count(*) FROM xmpp_edge_contacts WHERE remote = $1 AND state <> 0";
    let client = server.client().await;
    client.query_one(count, &[&remote]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_replica_that_freezes_with_the_lock_holds_up_the_others_for_seconds_only() {
    let server = PostgresServer::new();
    let database = server.database();
    let a = ContactStore::postgres(server.database());
    loaded(&a).await;
    let (_tell, moves) = watch::channel(Ok(database.clone()));
    let (health, _) = watch::channel(StoreHealth::default());
    let (_stop, stopped) = watch::channel(false);
    let frozen = Replica {
        at: Some(database.clone()),
        database: moves,
        contacts: Arc::new(Contacts::stored()),
        health,
        stopped,
        seen: None,
        most: CHUNK,
        lines: FailureLines::default(),
        left_out: LinesInTime::default(),
        encoding: None,
        written: None,
    };
    let mut client = frozen.connect(database).await.unwrap();
    // It never says another word.
    let _held = frozen.begin_locked(&mut client).await.unwrap();
    // One that starts needs no lock.
    let b = ContactStore::postgres(server.database());
    loaded(&b).await;
    assert!(b.health().borrow().failure.is_none());
    record(&a, "bob@u.example", ContactEvent::UserFollows);
    eventually("b hears of it all the same", || {
        b.contacts().has_added(USER, "bob@u.example")
    })
    .await;
    a.stop().await.unwrap();
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_contact_that_the_database_cannot_hold_holds_up_no_other() {
    let server = PostgresServer::with_encoding("LATIN1");
    let store = ContactStore::postgres(server.database());
    loaded(&store).await;
    // No character of LATIN1; and too long for an index, with nothing to compress.
    let odd = "\u{436}@u.example";
    let mut seed = 7_u64;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b"abcdefghijklmnopqrstuvwxyz012345"[usize::try_from(seed >> 59).unwrap()])
    });
    let long: String = noise.take(3000).collect();
    for at in 0..40 {
        record(
            &store,
            &format!("r{at}@u.example"),
            ContactEvent::UserWrites,
        );
    }
    record(&store, odd, ContactEvent::UserWrites);
    record(&store, &long, ContactEvent::UserWrites);
    for at in 40..80 {
        record(
            &store,
            &format!("r{at}@u.example"),
            ContactEvent::UserWrites,
        );
    }
    eventually("all is settled", || store.contacts().waiting() == 0).await;
    for at in 0..80 {
        assert_eq!(held(&server, &format!("r{at}@u.example")).await, 1, "{at}");
    }
    let lost: Vec<_> = store.contacts().not_recorded().collect();
    assert!(lost.contains(&(RecordError::NotStorable, 2)), "{lost:?}");
    assert!(store.contacts().has_added(USER, odd), "it counts for now");
    assert!(store.health().borrow().failure.is_none());
    store.stop().await.unwrap();
}

#[tokio::test]
async fn a_database_that_lost_the_newest_changes_is_followed_as_a_whole() {
    let server = PostgresServer::new();
    let store = ContactStore::postgres(server.database());
    loaded(&store).await;
    let admin = server.client().await;
    // A standby takes over that lacks the newest change, and has gone on since; with the session (a pooler in between
    // keeps it) and without.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'xmpp-edge-proxy'";
    for (number, cut) in ["SELECT 1", cut].into_iter().enumerate() {
        let lost = format!("lost{number}@u.example");
        record(
            &store,
            &format!("kept{number}@u.example"),
            ContactEvent::UserWrites,
        );
        eventually("it is written", || store.contacts().waiting() == 0).await;
        record(&store, &lost, ContactEvent::UserWrites);
        eventually("it is written", || store.contacts().waiting() == 0).await;
        let promoted = format!(
            "BEGIN;
            UPDATE xmpp_edge_contacts SET remote = 'other{number}@u.example', changed = now() + interval '1 s' WHERE remote = '{lost}';
            INSERT INTO xmpp_edge_contacts SELECT local_user, 'later{number}@u.example', 2, nextval('xmpp_edge_contacts_revisions') FROM xmpp_edge_contacts LIMIT 1;
            COMMIT; {cut}"
        );
        admin.batch_execute(&promoted).await.unwrap();
        let has = |remote: &str| {
            let contacts = store.contacts();
            contacts.has_added(USER, &format!("{remote}{number}@u.example"))
        };
        eventually("what the new server holds is known, and no more", || {
            has("kept") && has("other") && has("later") && !has("lost")
        })
        .await;
    }
    store.stop().await.unwrap();
}

#[tokio::test]
async fn a_database_that_nobody_has_named_yet_is_waited_for() {
    let server = PostgresServer::new();
    let maker = ContactStore::postgres(server.database());
    loaded(&maker).await;
    record(&maker, "bob@u.example", ContactEvent::UserFollows);
    maker.stop().await.unwrap();
    let store = ContactStore::without_database("none was given".into());
    eventually("it says what is missing", || {
        let failure = store.health().borrow().failure.clone();
        failure.is_some_and(|text| text.contains("none was given"))
    })
    .await;
    record(&store, "eve@u.example", ContactEvent::UserFollows);
    store.move_to(server.database());
    loaded(&store).await;
    assert!(store.contacts().has_added(USER, "bob@u.example"));
    assert!(store.contacts().has_added(USER, "eve@u.example"));
    store.stop().await.unwrap();
    assert_eq!(held(&server, "eve@u.example").await, 1);
}
