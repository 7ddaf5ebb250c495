//! The embedded store across restarts, kills and power cuts.
#![allow(clippy::unwrap_used)]

use std::io;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::*;
use crate::contacts::{ContactChange, ContactEvent, Transition};

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
    let store = ContactStore::embedded(directory.path()).unwrap();
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

    let again = ContactStore::embedded(directory.path()).unwrap();
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
    let store = ContactStore::embedded(directory.path()).unwrap();
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
    let again = ContactStore::embedded(killed.path()).unwrap();
    assert_eq!(again.contacts().len(), 50);
    store.stop().await.unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_be_used_names_its_path_and_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let _first = ContactStore::embedded(directory.path()).unwrap();
    let error = ContactStore::embedded(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("postgres"), "{error}");

    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join(FILE), [7_u8; 9000]).unwrap();
    let error = ContactStore::embedded(broken.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(FILE) && error.contains("move it away"),
        "{error}"
    );

    let file = tempfile::NamedTempFile::new().unwrap();
    let error = ContactStore::embedded(&file.path().join("sub")).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
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
    fn push(&self, op: Op) {
        let mut disk = self.0.lock();
        disk.apply(&op);
        disk.log.push(op);
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
        self.push(Op::SetLen(len));
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.push(Op::Sync);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.push(Op::Write(offset, data.to_vec()));
        Ok(())
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
        let batch = ContactBatch::from([(pair, Transition::of(ContactEvent::UserFollows))]);
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
