//! What is remembered of the pools between looks. The controllers' means
//! ([`Context`](crate::controllers::namespace::snapshot::Context)) know nothing of it: it is handed beside them.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::{
    apply::AppliedHashes, cert_manager::Certificates, external_dns::Endpoints, publish::PoolDns,
};
use crate::proxy_status::WrittenDocuments;

/// What is remembered between looks. Nothing of it is needed to be right: without it a write more
/// is made.
#[derive(Debug, Default)]
pub struct PoolMemory {
    pub(super) applied: AppliedHashes,
    pub(super) certificates: Certificates,
    pub(super) publications: PoolDns,
    pub(super) endpoints: Endpoints,
    pub(super) pools: Mutex<HashMap<(String, String), Remembered>>,
    /// By namespace and pool.
    written: Mutex<HashMap<(String, String), WrittenDocuments>>,
    /// By namespace: pools share its CA, and must not each make one.
    secrets: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl PoolMemory {
    /// Forgets pools of a namespace that are not there any more.
    pub fn forget(&self, namespace: &str, exists: impl Fn(&str) -> bool) {
        self.publications.forget(namespace, &exists);
        self.applied.forget(namespace, &exists);
        let mut pools = self.pools.lock();
        pools.retain(|(of, pool), _| of != namespace || exists(pool));
        let mut written = self.written.lock();
        written.retain(|(of, pool), _| of != namespace || exists(pool));
    }

    /// A document of a pool is about to be written, or was there when this process began to lead.
    pub fn note_written(&self, namespace: &str, pool: &str, generation: u64, sha256: &str) {
        let mut written = self.written.lock();
        let documents = written.entry((namespace.to_owned(), pool.to_owned()));
        documents.or_default().note(generation, sha256);
    }

    /// The documents of a pool that are the operator's own.
    #[must_use]
    pub fn written(&self, namespace: &str, pool: &str) -> WrittenDocuments {
        let written = self.written.lock();
        let documents = written.get(&(namespace.to_owned(), pool.to_owned()));
        documents.cloned().unwrap_or_default()
    }

    /// Whether the status tells that something of a pool fails, or does no more; see [`Remembered`].
    pub(super) fn is_told(
        &self,
        pool: &(String, String),
        fails: bool,
        at_once: bool,
        now: Timestamp,
    ) -> bool {
        let mut pools = self.pools.lock();
        let remembered = pools.entry(pool.clone()).or_default();
        remembered.is_told(fails, at_once, now)
    }

    /// Breaks off what is under way in the background, and returns once nothing of it runs any more.
    pub async fn shutdown(&self) {
        self.certificates.shutdown().await;
        self.publications.shutdown().await;
        self.endpoints.shutdown().await;
    }

    pub(super) fn secrets_of(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut secrets = self.secrets.lock();
        secrets.entry(namespace.to_owned()).or_default().clone()
    }
}

/// Of one pool: what its status was written by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remembered {
    /// When counts of streams were written last.
    pub(super) counted: Option<Timestamp>,
    /// Since when something cannot be written.
    failing_since: Option<Timestamp>,
}

/// What is tried again is told once it lasts this long: most of it is over before.
const TOLD_AFTER: SignedDuration = SignedDuration::from_secs(60);

impl Remembered {
    /// Keeps since when writing fails; says whether it is to be told: `at_once` where no pod serves,
    /// so that who made a pool just now sees why nothing comes of it.
    fn is_told(&mut self, fails: bool, at_once: bool, now: Timestamp) -> bool {
        if !fails {
            self.failing_since = None;
            return false;
        }
        let since = *self.failing_since.get_or_insert(now);
        at_once || now.duration_since(since) >= TOLD_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_write_is_told_after_a_minute_and_at_once_where_no_pod_serves() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let mut pool = Remembered::default();
        for (fails, at_once, second, told) in [
            (true, false, 0, false),
            (true, false, 59, false),
            (true, false, 60, true),
            // What went well in between begins it anew.
            (false, false, 61, false),
            (true, false, 70, false),
            (true, true, 71, true),
            (true, false, 131, true),
        ] {
            assert_eq!(pool.is_told(fails, at_once, at(second)), told, "{second}");
        }
    }
}
