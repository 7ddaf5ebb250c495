//! Standalone's store: one directory, readable by its owner alone.
//!
//! `internal-ca.pem` and `gateways/<first domain>/{tls.crt,tls.key,ca.crt}` are there for people and
//! for the servers inside; everything else lies under `secrets/<name>/<key>`. A write goes to a new
//! file first and is renamed, so that a reader and a power cut see the old content or the new.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::store::{ManagedSecret, SecretData, Store, StoreError};

/// What lies in a gateway's folder: it is there for people, who may put their own beside it.
const OF_A_GATEWAY: [&str; 4] = ["tls.crt", "tls.key", "ca.crt", "issued-by"];

/// Entries as files below one directory.
#[derive(Debug)]
pub struct FileStore {
    root: PathBuf,
}

impl FileStore {
    /// A store in `root`, which is created with mode 0700 where it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        directory(&root).map_err(|source| write_fault(&root, source))?;
        Ok(Self { root })
    }

    fn folder(&self, entry: &ManagedSecret) -> PathBuf {
        match entry {
            ManagedSecret::Gateway(domain) => self.root.join("gateways").join(domain),
            other => self.root.join("secrets").join(other.to_string()),
        }
    }
}

/// Makes a directory that its owner alone may read.
///
/// # Errors
/// As `mkdir -p`.
pub fn directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn read_fault(path: &Path, source: io::Error) -> StoreError {
    StoreError::Read {
        place: path.display().to_string(),
        source,
    }
}

fn write_fault(path: &Path, source: io::Error) -> StoreError {
    StoreError::Write {
        place: path.display().to_string(),
        source,
    }
}

/// Writes a file as a whole: new content under another name, synced, then renamed.
///
/// # Errors
/// [`StoreError::Write`].
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| write_fault(path, source))
}

impl Store for FileStore {
    fn read(&self, entry: &ManagedSecret) -> Result<Option<SecretData>, StoreError> {
        let folder = self.folder(entry);
        let listed = match fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_fault(&folder, error)),
        };
        let mut material = SecretData::new();
        for file in listed {
            let file = file.map_err(|error| read_fault(&folder, error))?;
            let name = file.file_name().to_string_lossy().into_owned();
            let path = file.path();
            let is_ours = match entry {
                ManagedSecret::Gateway(_) => OF_A_GATEWAY.contains(&name.as_str()),
                _ => !name.ends_with(".new") && path.is_file(),
            };
            if !is_ours {
                continue;
            }
            let content = fs::read(&path).map_err(|error| read_fault(&path, error))?;
            material.insert(name, Zeroizing::new(content));
        }
        Ok((!material.is_empty()).then_some(material))
    }

    fn write(&mut self, entry: &ManagedSecret, material: &SecretData) -> Result<(), StoreError> {
        let folder = self.folder(entry);
        directory(&folder).map_err(|source| write_fault(&folder, source))?;
        let before = self.read(entry)?.unwrap_or_default();
        // Keys first: a torn write leaves a certificate that does not fit, which is made anew, never
        // one that claims a key nobody has.
        for (key, value) in material.iter().rev() {
            if before.get(key) != Some(value) {
                replace(&folder.join(key), value, 0o600)?;
            }
        }
        for key in before.keys().filter(|key| !material.contains_key(*key)) {
            let path = folder.join(key);
            fs::remove_file(&path).map_err(|source| write_fault(&path, source))?;
        }
        if *entry == ManagedSecret::InternalCa {
            let trusted = crate::secrets::internal_ca::trusted(material);
            replace(
                &self.root.join("internal-ca.pem"),
                trusted.as_bytes(),
                0o644,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::secrets::store::set;

    #[test]
    fn what_people_put_beside_ours_stays_and_is_not_read() {
        let state = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(state.path()).unwrap();
        let gateway = ManagedSecret::Gateway("org.example".into());
        let mut material = SecretData::new();
        for key in OF_A_GATEWAY {
            set(&mut material, key, "one");
        }
        store.write(&gateway, &material).unwrap();
        let folder = state.path().join("gateways/org.example");
        fs::write(folder.join("README"), "ours").unwrap();
        fs::create_dir(folder.join("old")).unwrap();
        assert_eq!(store.read(&gateway).unwrap().as_ref(), Some(&material));
        material.remove("issued-by");
        set(&mut material, "tls.crt", "two");
        store.write(&gateway, &material).unwrap();
        assert_eq!(store.read(&gateway).unwrap().as_ref(), Some(&material));
        assert!(folder.join("README").exists() && folder.join("old").exists());
        assert!(!folder.join("issued-by").exists());
        // A folder of nobody among the keys stops nothing either.
        let dialback = ManagedSecret::Dialback;
        store.write(&dialback, &material).unwrap();
        fs::create_dir(state.path().join("secrets/xmpp-edge-dialback/old")).unwrap();
        store.write(&dialback, &material).unwrap();
        assert_eq!(store.read(&dialback).unwrap(), Some(material));
    }
}
