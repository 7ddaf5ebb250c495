//! The state folder: files that are made once and kept. What is there is read or refused with a remedy; it
//! is never silently replaced.
//!
//! The folder may be entered by everybody and listed by its owner alone: the server's user reads
//! `public/ca.crt` in it. Keys are readable by their owner alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::tls::SelfIssueError;

/// Largest file that is read, in octets: a chain of certificates is far below.
const MAX_FILE: u64 = 1 << 16;
/// Held while a file is made, so that two processes make one key.
const LOCK: &str = "lock";

/// The folder of `--state`.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A private key: its owner. A volume's group may too, where it was given to one.
    Owner,
    Everybody,
}

/// What is wrong with the folder or what is in it. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "{path} cannot be read: {source}. It belongs to the user that the sidecar runs as: start this as that user, or give the file to it"
    )]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path} cannot be written: {source}. --state names a folder in which the sidecar's user may write, on a disk with room"
    )]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{path} is a private key that every user of this machine may read (mode {mode:03o}): somebody may have a copy. Move it away, and list the new key that is made then; or, where nobody else was here, chmod 600 {path}"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "{path} cannot be used ({cause}): it was written by something else, or is damaged. Restore it, or move {} away: they are made anew then, and {anew}",
        shown(.together)
    )]
    Broken {
        path: PathBuf,
        cause: String,
        /// What belongs together and goes together.
        together: Vec<PathBuf>,
        /// What is to be done once they are new.
        anew: &'static str,
    },
    #[error("{0}")]
    Make(#[from] SelfIssueError),
}

fn shown(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(" and ")
}

impl StateDir {
    /// The folder at `root`, which is made where there is none.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StateError> {
        let root = root.into();
        directory(&root, 0o711)?;
        Ok(Self { root })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Until the lock is dropped no other process makes or changes a file here. Waits for one that does: it
    /// takes milliseconds.
    pub(super) fn lock(&self) -> Result<File, StateError> {
        let path = self.path(LOCK);
        let locked = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| StateError::Write { path, source })
    }

    /// The text of a file, if there is one.
    pub(super) fn read(
        &self,
        name: &str,
        access: Access,
    ) -> Result<Option<Zeroizing<String>>, StateError> {
        let path = self.path(name);
        match text(&path, access) {
            Ok(text) => Ok(Some(text)),
            Err(StateError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a file whole: under another name, synced, then renamed.
    pub(super) fn write(&self, name: &str, text: &str, access: Access) -> Result<(), StateError> {
        let path = self.path(name);
        if let Some(folder) = path.parent().filter(|folder| *folder != self.root) {
            directory(folder, 0o755)?;
        }
        let mode = match access {
            Access::Owner => 0o600,
            Access::Everybody => 0o644,
        };
        let written = replace(&path, text, mode);
        written.map_err(|source| StateError::Write { path, source })
    }
}

fn directory(path: &Path, mode: u32) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| StateError::Write {
            path: path.to_owned(),
            source,
        })
}

fn text(path: &Path, access: Access) -> Result<Zeroizing<String>, StateError> {
    let fault = |source| StateError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(fault)?;
    let metadata = file.metadata().map_err(fault)?;
    if !metadata.is_file() {
        return Err(fault(io::Error::other("it is no file")));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if access == Access::Owner && mode & 0o007 != 0 {
        return Err(StateError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::new());
    // One octet more tells that there are more; a PEM that is cut short is refused by its reader.
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(fault)?;
    Ok(text)
}

fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // One that a crash left behind may have another mode.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // The name survives a power cut too.
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
