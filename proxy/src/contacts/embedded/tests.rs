//! The embedded store across restarts, kills and power cuts.
#![allow(clippy::unwrap_used)]

use std::io;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::*;
use crate::contacts::{ContactChange, ContactEvent, Transition, pending::WaitingChange};

/// That a user follows somebody, on nobody's account.
fn follows() -> WaitingChange {
    WaitingChange {
        transition: Transition::of(ContactEvent::UserFollows),
        holder: None,
    }
}

fn change(user: &str, remote: &str, event: ContactEvent) -> ContactChange {
    ContactChange {
        user: user.into(),
        remote: remote.into(),
        event,
    }
}

/// Waits until the store has taken all; the test's time limit is the only one.
async fn settled(store: &ContactStore) {
    while store.contacts().pending().unwrap().len() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn p_15_contacts_and_their_ends_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = ContactStore::embedded(directory.path());
    for at in 0..200 {
        let remote = format!("r{at}@u.example");
        let added = change("alice@org.example", &remote, ContactEvent::UserFollows);
        store.contacts().record(&added).unwrap();
    }
    settled(&store).await;
    let ended = change(
        "alice@org.example",
        "r7@u.example",
        ContactEvent::UserUnfollows,
    );
    store.contacts().record(&ended).unwrap();
    let kept = change(
        "alice@org.example",
        "r8@u.example",
        ContactEvent::RemoteWithdraws,
    );
    store.contacts().record(&kept).unwrap();
    store.stop().await.unwrap();
    drop(store);

    let again = ContactStore::embedded(directory.path());
    assert_eq!(again.contacts().len(), 199);
    assert!(
        !again
            .contacts()
            .has_added("alice@org.example", "r7@u.example")
    );
    let state = again.contacts().state("alice@org.example", "r8@u.example");
    assert_eq!(state, Some(Contact::Neither));
    assert!(
        !again
            .contacts()
            .has_added("bob@org.example", "r8@u.example")
    );
}

#[tokio::test]
async fn what_was_written_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let store = ContactStore::embedded(directory.path());
    for at in 0..50 {
        let added = change(
            &format!("u{at}@org.example"),
            "r@u.example",
            ContactEvent::UserWrites,
        );
        store.contacts().record(&added).unwrap();
    }
    settled(&store).await;
    // A killed process leaves the file as it is at that moment: open, not closed.
    let killed = tempfile::tempdir().unwrap();
    std::fs::copy(directory.path().join(FILE), killed.path().join(FILE)).unwrap();
    let again = ContactStore::embedded(killed.path());
    assert_eq!(again.contacts().len(), 50);
    store.stop().await.unwrap();
}

/// Waits for a state of the store; gives up long after any promise is broken.
async fn becomes(store: &ContactStore, is: impl Fn(&StoreHealth) -> bool) {
    let mut health = store.health();
    let seen = tokio::time::timeout(Duration::from_secs(60), health.wait_for(|now| is(now)));
    let reached = seen.await.is_ok();
    assert!(reached, "{:?}", store.health().borrow());
}

#[tokio::test]
async fn a_store_that_cannot_be_used_names_its_path_and_the_remedy_and_contacts_go_on_in_memory() {
    let failure = |store: &ContactStore| {
        let health = store.health().borrow().clone();
        assert!(!health.loaded);
        let added = change("a@org.example", "r@u.example", ContactEvent::UserWrites);
        store.contacts().record(&added).unwrap();
        assert!(store.contacts().has_added("a@org.example", "r@u.example"));
        health.failure.unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let first = ContactStore::embedded(directory.path());
    let second = ContactStore::embedded(directory.path());
    let error = failure(&second);
    assert!(error.contains("postgres"), "{error}");
    // The other process ends: what it left and what came meanwhile are there.
    let theirs = change("b@org.example", "r@u.example", ContactEvent::UserWrites);
    first.contacts().record(&theirs).unwrap();
    first.stop().await.unwrap();
    drop(first);
    becomes(&second, |health| health.loaded && health.failure.is_none()).await;
    assert!(second.contacts().has_added("b@org.example", "r@u.example"));
    second.stop().await.unwrap();
    drop(second);
    let third = ContactStore::embedded(directory.path());
    assert_eq!(third.contacts().len(), 2);

    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join(FILE), [7_u8; 9000]).unwrap();
    let store = ContactStore::embedded(broken.path());
    let error = failure(&store);
    assert!(
        error.contains(FILE) && error.contains("move it away"),
        "{error}"
    );
    // Moved away, it is made anew without a restart.
    std::fs::remove_file(broken.path().join(FILE)).unwrap();
    becomes(&store, |health| health.loaded && health.failure.is_none()).await;
    settled(&store).await;

    let file = tempfile::NamedTempFile::new().unwrap();
    let error = failure(&ContactStore::embedded(&file.path().join("sub")));
    assert!(error.contains("sub"), "{error}");
}

#[tokio::test]
async fn who_talks_to_whom_is_for_the_process_alone_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("contacts");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = directory.join(FILE);
    drop(ContactStore::embedded(&directory));
    assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
    // As an older version, and a volume's group, left it.
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o775)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o664)).unwrap();
    let again = ContactStore::embedded(&directory);
    assert_eq!((mode(&directory), mode(&file)), (0o770, 0o660));
    drop(again);
}

#[tokio::test]
async fn a_disk_that_failed_is_written_again_once_it_is_well() {
    let disk = RecordingDisk::default();
    let opened = disk.clone();
    let open: OpenDatabase = Arc::new(move || {
        let made = Database::builder().create_with_backend(opened.clone());
        made.map_err(|source| StoreError::Open {
            path: FILE.into(),
            source,
        })
    });
    let store = ContactStore::on(FILE.into(), Arc::clone(&open));
    let add = |at: usize| {
        let user = format!("u{at}@org.example");
        let added = change(&user, "r@u.example", ContactEvent::UserWrites);
        store.contacts().record(&added).unwrap();
    };
    add(0);
    settled(&store).await;
    disk.0.lock().is_full = true;
    add(1);
    becomes(&store, |health| health.failure.is_some()).await;
    assert!(store.contacts().has_added("u1@org.example", "r@u.example"));
    add(2);
    disk.0.lock().is_full = false;
    becomes(&store, |health| health.failure.is_none()).await;
    settled(&store).await;
    store.stop().await.unwrap();
    drop(store);
    let again = ContactStore::on(FILE.into(), open);
    assert_eq!(again.contacts().len(), 3);
}

#[tokio::test]
async fn a_full_disk_at_the_start_costs_nothing_that_is_stored() {
    let disk = RecordingDisk::default();
    let database = Database::builder()
        .create_with_backend(disk.clone())
        .unwrap();
    let pair = ("a@org.example".into(), "r@u.example".into());
    let batch = ContactBatch::from([(pair, follows())]);
    write(&database, &batch).unwrap();
    drop(database);
    // On a volume that is read-only, or full at once: the file opens for reading alone.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    std::fs::write(&path, &disk.0.lock().image).unwrap();
    let refused: OpenDatabase = Arc::new(|| {
        Err(StoreError::Open {
            path: FILE.into(),
            source: DatabaseError::Storage(io::Error::from(ErrorKind::ReadOnlyFilesystem).into()),
        })
    });
    let store = ContactStore::on(path, refused);
    assert!(store.contacts().has_added("a@org.example", "r@u.example"));
    let health = store.health().borrow().clone();
    assert!(health.loaded && health.failure.is_some(), "{health:?}");
    // What cannot be written is told at the end.
    let added = change("b@org.example", "r@u.example", ContactEvent::UserWrites);
    store.contacts().record(&added).unwrap();
    let lost = store.stop().await;
    assert!(
        matches!(lost, Err(StoreError::NotFlushed { waiting: 1 })),
        "{lost:?}"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
struct Disk {
    image: Vec<u8>,
    log: Vec<Op>,
    is_full: bool,
}

impl Disk {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(at, data) => {
                let at = usize::try_from(*at).unwrap();
                self.image[at..at + data.len()].copy_from_slice(data);
            }
            Op::SetLen(len) => self.image.resize(usize::try_from(*len).unwrap(), 0),
            Op::Sync => {}
        }
    }
}

/// A disk that remembers every operation, so that a test can cut the power at any of them.
#[derive(Clone, Debug, Default)]
struct RecordingDisk(Arc<Mutex<Disk>>);

impl RecordingDisk {
    fn push(&self, op: Op) -> io::Result<()> {
        let mut disk = self.0.lock();
        if disk.is_full {
            return Err(ErrorKind::StorageFull.into());
        }
        disk.apply(&op);
        disk.log.push(op);
        Ok(())
    }
}

impl StorageBackend for RecordingDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().image.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let disk = self.0.lock();
        let bytes = disk.image.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.push(Op::SetLen(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.push(Op::Sync)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.push(Op::Write(offset, data.to_vec()))
    }
}

/// What a power cut after `cut` operations may leave: all that was synced, and of the rest what
/// `survives` says (by its number), the last write torn in half.
fn after_power_cut(log: &[Op], cut: usize, survives: fn(usize) -> bool) -> Vec<u8> {
    let synced = log[..cut]
        .iter()
        .rposition(|op| matches!(op, Op::Sync))
        .map_or(0, |at| at + 1);
    let mut disk = Disk::default();
    log[..synced].iter().for_each(|op| disk.apply(op));
    for (number, op) in log[synced..cut].iter().enumerate() {
        match op {
            Op::Write(at, data) if synced + number + 1 == cut => {
                disk.apply(&Op::Write(*at, data[..data.len() / 2].to_vec()));
            }
            Op::Write(..) if !survives(number) => {}
            op => disk.apply(op),
        }
    }
    disk.image
}

#[test]
fn a_power_cut_amid_any_write_loses_nothing_that_was_durable() {
    let disk = RecordingDisk::default();
    let database = Database::builder()
        .create_with_backend(disk.clone())
        .unwrap();
    load(&database, &Contacts::in_memory()).unwrap();
    let ready = disk.0.lock().log.len();
    let mut durable = Vec::new();
    for at in 0..8_usize {
        let pair = (format!("u{at}@org.example").into(), "r@u.example".into());
        let batch = ContactBatch::from([(pair, follows())]);
        write(&database, &batch).unwrap();
        durable.push(disk.0.lock().log.len());
    }
    let log = disk.0.lock().log.clone();
    let survivals: [fn(usize) -> bool; 3] = [|_| true, |_| false, |number| number % 2 == 0];
    for cut in ready..=log.len() {
        for survives in survivals {
            let image = after_power_cut(&log, cut, survives);
            let found = RecordingDisk::default();
            found.0.lock().image = image;
            let database = Database::builder().create_with_backend(found).unwrap();
            let contacts = Contacts::in_memory();
            load(&database, &contacts).unwrap();
            let least = durable.iter().filter(|end| **end <= cut).count();
            for at in 0..least {
                let user = format!("u{at}@org.example");
                assert!(
                    contacts.has_added(&user, "r@u.example"),
                    "cut {cut}: {user} is lost"
                );
            }
            assert!(
                contacts.len() <= least + 1,
                "cut {cut}: more than was ever asked for"
            );
        }
    }
}
