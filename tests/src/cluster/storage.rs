//! The folder of one API server: data, certificates, logs.
//!
//! It outlives a server that the tests of a file share, because nothing runs at the end of such a
//! process; so each is locked by its process, and who makes one removes those that nobody locks.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Name of the file whose lock says that the folder is in use.
const LOCK: &str = "in-use";

/// A folder that is this process's own as long as the value lives, then removed.
#[derive(Debug)]
pub struct Storage {
    path: PathBuf,
    _lock: File,
}

impl Storage {
    /// A new empty folder; removes what ended processes left.
    ///
    /// # Errors
    /// When the system's folder of temporary files cannot be written.
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let all = std::env::temp_dir().join("xmpp-edge-clusters");
        fs::create_dir_all(&all)?;
        // A folder appears locked: under the lock of all no other process looks in between.
        let entry = File::create(all.join("entry.lock"))?;
        entry.lock()?;
        sweep(&all);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = all.join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the cluster's logs are in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let free = File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if free {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
