//! What was asked of the server: its audit log.
//!
//! Each request appears once, when it was answered; a watch appears when it begins and once more
//! when it ends ([`Entry::stage`]).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// Every request: who, what, when, the answer; no bodies.
pub(super) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// The log of one server, over all its restarts.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `ResponseStarted` (a watch that begins), `ResponseComplete`, `Panic`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    #[serde(rename = "requestURI")]
    pub uri: String,
    pub user: User,
    #[serde(default)]
    pub user_agent: String,
    /// Absent for what is no object (`/readyz`, discovery).
    #[serde(default)]
    pub object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: Option<Value>,
    /// RFC 3339.
    pub request_received_timestamp: String,
    /// RFC 3339.
    pub stage_timestamp: String,
}

/// Who asked.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// `system:serviceaccount:NAMESPACE:NAME` for a service account; empty of somebody unknown.
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub groups: Vec<String>,
}

/// What was asked for; empty where the request named none (a list has no name).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    pub api_group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

impl Entry {
    /// HTTP status; 0 where none was sent.
    pub fn code(&self) -> u64 {
        self.response_status
            .as_ref()
            .and_then(|status| status["code"].as_u64())
            .unwrap_or(0)
    }

    /// Whether authorization refused it.
    pub fn denied(&self) -> bool {
        self.code() == 403
    }

    /// `RESOURCE` or `RESOURCE/SUBRESOURCE` as in a role's rules; the path for what is no object.
    pub fn target(&self) -> String {
        match &self.object_ref {
            None => self.uri.clone(),
            Some(object) if object.subresource.is_empty() => object.resource.clone(),
            Some(object) => format!("{}/{}", object.resource, object.subresource),
        }
    }

    /// Whether this asked for something about `resource` in `namespace`.
    pub fn concerns(&self, namespace: &str, resource: &str) -> bool {
        self.object_ref
            .as_ref()
            .is_some_and(|object| object.namespace == namespace && object.resource == resource)
    }
}

impl Audit {
    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Where the next entry will be written: what [`Self::since`] takes to see later requests only.
    pub fn mark(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Every request so far.
    ///
    /// # Errors
    /// When the log is no log.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.since(0)
    }

    /// Every request after `mark`.
    ///
    /// # Errors
    /// When the log is no log, or the mark is not one of its own.
    pub fn since(&self, mark: u64) -> Result<Vec<Entry>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = fs::File::open(&self.path)?;
        file.seek(SeekFrom::Start(mark))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The server may be writing the last line.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).with_context(|| format!("audit: {line}")))
            .collect()
    }

    /// Every request of `username` after `mark`.
    ///
    /// # Errors
    /// As [`Self::since`].
    pub fn of(&self, username: &str, mark: u64) -> Result<Vec<Entry>> {
        let mut entries = self.since(mark)?;
        entries.retain(|entry| entry.user.username == username);
        Ok(entries)
    }
}
