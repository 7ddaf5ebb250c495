//! A write is tried, and what failed of it is remembered: the same is not sent again at each look.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Applier, ApplyError};
use crate::runtime::held_back::{HeldBack, Pause};

/// What failed is tried again after this: soon, as most of it is over soon or mended by who looks at it,
/// and once a minute where it lasts.
const FAILED: Pause = Pause::Growing {
    first: Duration::from_secs(1),
    most: Duration::from_secs(60),
};

/// Writes that failed, by pool and object.
#[derive(Debug, Default)]
pub(super) struct FailedWrites {
    pools: Mutex<HashMap<PoolName, HeldBack<String, ApplyError>>>,
}

/// Namespace and name.
type PoolName = (String, String);

impl FailedWrites {
    fn holds(
        &self,
        pool: &PoolName,
        what: &String,
        fingerprint: u64,
        now: Instant,
    ) -> Option<ApplyError> {
        let pools = self.pools.lock();
        let (cause, _) = pools.get(pool)?.holds(what, fingerprint, now)?;
        Some(ApplyError::StillFailing(Box::new(cause.clone())))
    }

    /// Keeps what came of a write.
    fn note(
        &self,
        pool: PoolName,
        what: String,
        fingerprint: u64,
        failed: Option<&ApplyError>,
        now: Instant,
    ) {
        let mut pools = self.pools.lock();
        let Some(failed) = failed.filter(|failed| failed.lasts()) else {
            if let Some(held) = pools.get_mut(&pool) {
                held.forget(&what);
            }
            return;
        };
        let held = pools.entry(pool).or_default();
        held.failed(now, what, fingerprint, FAILED, failed.clone());
    }

    /// When the next write of a pool that is held back may be tried.
    pub(super) fn next(&self, namespace: &str, pool: &str, now: Instant) -> Option<Duration> {
        let mut pools = self.pools.lock();
        let key = (namespace.to_owned(), pool.to_owned());
        let next = pools.get_mut(&key)?.due(now, |_| ());
        next.map(|next| next.duration_since(now))
    }

    pub(super) fn forget(&self, namespace: &str, exists: impl Fn(&str) -> bool) {
        let mut pools = self.pools.lock();
        pools.retain(|(of, pool), _| of != namespace || exists(pool));
    }
}

/// Tells two writes of one object apart.
pub(super) fn fingerprint(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

impl Applier<'_> {
    /// Carries out a write of `what`, which `fingerprint` tells from others of it; not where the very same
    /// failed lately: then what was in the way is taken to be there still.
    pub(super) async fn attempt<T>(
        &self,
        what: &str,
        fingerprint: u64,
        write: impl Future<Output = Result<T, ApplyError>>,
    ) -> Result<T, ApplyError> {
        let pool = || (self.namespace.to_owned(), self.pool.name_any());
        let (what, failed) = (what.to_owned(), &self.applied.failed);
        if let Some(held) = failed.holds(&pool(), &what, fingerprint, Instant::now()) {
            return Err(held);
        }
        let done = write.await;
        let error = done.as_ref().err();
        failed.note(pool(), what, fingerprint, error, Instant::now());
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> ApplyError {
        ApplyError::Refused {
            what: "Deployment \"hq\"".to_owned(),
            message: "denied".to_owned(),
        }
    }

    #[test]
    fn what_was_refused_is_not_written_again_at_each_look_and_what_overtook_it_is_at_once() {
        let (writes, begun) = (FailedWrites::default(), Instant::now());
        let at = |second| begun + Duration::from_secs(second);
        let pool = || ("n".to_owned(), "hq".to_owned());
        let what = || "Deployment \"hq\"".to_owned();
        let held = |of, second| writes.holds(&pool(), &what(), of, at(second));
        writes.note(pool(), what(), 1, Some(&refused()), at(0));
        let error = held(1, 0).expect("it is held back");
        assert!(error.is_refusal() && error.is_repeated());
        assert_eq!(error.to_string(), refused().to_string());
        assert!(held(2, 0).is_none(), "another form of it");
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(writes.next("n", "hq", at(0)), Some(second));
        for _ in 0..8 {
            writes.note(pool(), what(), 1, Some(&refused()), at(1));
        }
        assert_eq!(writes.next("n", "hq", at(1)), Some(minute));
        let overtaken = ApplyError::Overtaken { what: what() };
        writes.note(pool(), what(), 1, Some(&overtaken), at(61));
        assert!(held(1, 61).is_none());
        writes.note(pool(), what(), 1, Some(&refused()), at(61));
        writes.note(pool(), what(), 1, None, at(62));
        assert!(held(1, 62).is_none(), "it went well");
        writes.note(pool(), what(), 1, Some(&refused()), at(62));
        writes.forget("n", |_| false);
        assert!(held(1, 62).is_none(), "the pool is gone");
    }
}
