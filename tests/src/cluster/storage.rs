//! The folder of one API server: data, certificates, logs.
//!
//! Data goes with the server, logs stay for a day: who looks for why a test failed comes later. A
//! server that the tests of a file share ends with its process, when nothing runs any more; so each
//! folder is locked by its process, and who makes one tidies those that nobody locks.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Name of the file whose lock says that the folder is in use.
const LOCK: &str = "in-use";

/// Folder of what is large.
const DATA: &str = "data";

/// How long logs are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder that is this process's own as long as the value lives.
#[derive(Debug)]
pub struct Storage {
    path: PathBuf,
    _lock: File,
}

impl Storage {
    /// A new empty folder; tidies what ended processes left.
    ///
    /// # Errors
    /// When the system's folder of temporary files cannot be written.
    pub fn new() -> io::Result<Self> {
        Self::within(&all())
    }

    fn within(all: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(all)?;
        // A folder appears locked: under the lock of all no other process looks in between.
        let entry = File::create(all.join("entry.lock"))?;
        entry.lock()?;
        tidy(all);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = all.join(format!("{}-{number}", std::process::id()));
        // Another process may have had this number, on the same day.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the large data goes: kept as long as the value.
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.data());
    }
}

/// The folders of all servers.
fn all() -> PathBuf {
    std::env::temp_dir().join("xmpp-edge-clusters")
}

/// What the folders of this process's servers are named like, for messages.
pub fn of_this_process() -> String {
    all()
        .join(format!("{}-*", std::process::id()))
        .display()
        .to_string()
}

fn tidy(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let lock = File::open(entry.path().join(LOCK));
        let Ok(lock) = lock.and_then(|lock| lock.try_lock().map(|()| lock).map_err(Into::into))
        else {
            continue;
        };
        let made = lock.metadata().and_then(|lock| lock.modified());
        let age = made.ok().and_then(|made| made.elapsed().ok());
        let old = age.is_some_and(|age| age > KEPT);
        let gone = if old {
            entry.path()
        } else {
            entry.path().join(DATA)
        };
        let _ = fs::remove_dir_all(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_with_its_server_logs_stay_and_who_runs_is_left_alone() -> io::Result<()> {
        let all = tempfile::tempdir()?;
        let make = || -> io::Result<Storage> {
            let storage = Storage::within(all.path())?;
            fs::create_dir(storage.data())?;
            fs::write(storage.path().join("server.log"), "it was so")?;
            Ok(storage)
        };
        let (running, ended) = (make()?, make()?);
        let left = ended.path().to_owned();
        drop(ended);
        assert!(!left.join(DATA).exists());
        // As by a process that was killed.
        fs::create_dir(left.join(DATA))?;
        // A process that another test starts just then holds the lock for a moment more, until it is another program.
        let gone = std::time::Instant::now() + crate::wait::GENEROUS;
        while left.join(DATA).exists() {
            assert!(std::time::Instant::now() < gone, "it stays");
            let _next = make()?;
            std::thread::yield_now();
        }
        assert!(left.join("server.log").exists());
        assert!(running.data().exists());
        Ok(())
    }
}
