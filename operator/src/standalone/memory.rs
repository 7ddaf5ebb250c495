//! Remembers the objects as they were last valid, over a restart: what an API server would hold.
//!
//! It must not judge an edit; it only says what was there before.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifests::Stored;
use crate::{
    compile::{Kind, ObjectRef},
    secrets::{files, store::StoreError},
};

/// Its name is none of a manifest's, whose last good texts stand beside it.
const FILE: &str = ".objects";

/// Why what is remembered cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{path} cannot be used ({reason}): it is damaged; move it away, and the manifests count as they stand now"
    )]
    Damaged { path: PathBuf, reason: String },
}

#[derive(Serialize, Deserialize)]
struct LastGoodEntry {
    namespace: String,
    kind: String,
    name: String,
    manifest: Value,
}

/// What is remembered in `directory`. An entry of a kind that is not known is passed over.
///
/// # Errors
/// [`MemoryError`], also where the file is damaged: taken for empty, it would let an edit change what cannot change.
pub(super) fn recall(directory: &Path) -> Result<Stored, MemoryError> {
    let path = directory.join(FILE);
    let fault = |source| StoreError::Read {
        place: path.display().to_string(),
        source,
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::new()),
        Err(error) => return Err(fault(error).into()),
    };
    let entries: Vec<LastGoodEntry> =
        serde_json::from_slice(&bytes).map_err(|error| MemoryError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        })?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| {
            let object = ObjectRef::new(Kind::parse(&entry.kind)?, &entry.name);
            Some(((entry.namespace, object), entry.manifest))
        })
        .collect())
}

/// Replaces what is remembered.
///
/// # Errors
/// [`StoreError::Write`].
pub(super) fn keep(directory: &Path, stored: &Stored) -> Result<(), StoreError> {
    let path = directory.join(FILE);
    let fault = |source| StoreError::Write {
        place: path.display().to_string(),
        source,
    };
    let entries: Vec<LastGoodEntry> = stored
        .iter()
        .map(|((namespace, object), manifest)| LastGoodEntry {
            namespace: namespace.clone(),
            kind: object.kind.as_str().to_owned(),
            name: object.name.clone(),
            manifest: manifest.clone(),
        })
        .collect();
    let text = serde_json::to_vec(&entries).map_err(|error| fault(io::Error::other(error)))?;
    files::directory(directory).map_err(fault)?;
    files::replace(&path, &text, 0o600)
}
