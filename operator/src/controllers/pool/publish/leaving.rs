//! Pools on their way out: their records go, then the finalizer.

use std::{collections::HashMap, time::Duration};

use jiff::SignedDuration;
use kube::{
    Resource, ResourceExt,
    core::{PartialObjectMeta, PartialObjectMetaExt},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use xmpp_edge_crds::kinds::{EdgePool, pool::Rfc2136};

use super::{
    PoolDns, PoolKey,
    finalizer::{self, Finalization, is_marked, is_skipped, remembered},
    owner, withdraws_by,
};
use crate::{
    controllers::namespace::snapshot::Context,
    dns::{backend::pool_records::PoolRecordsTask, error::NO_KEY},
    runtime::{
        decoded::Decoded,
        held_back::{HeldBack, Pause},
    },
};

/// A pool that is deleted waits for DNS no longer than this, by the API server's clock, which dated it.
const LONGEST: SignedDuration = SignedDuration::from_mins(10);
/// While a pool waits to be let go.
const RETRY: Duration = Duration::from_secs(5);
/// After the API server did not take the finalizer off.
const REFUSED: Pause = Pause::Growing {
    first: RETRY,
    most: Duration::from_secs(60),
};

/// How far the deletion of a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// When to look again; `None` once nothing of this operator's holds it.
    pub again: Option<Duration>,
    /// Why its records are in DNS still; empty where it is not known yet.
    pub refusal: String,
}

impl Leave {
    pub(in crate::controllers::pool) fn later(refusal: String) -> Self {
        Self {
            again: Some(RETRY),
            refusal,
        }
    }

    /// Something else keeps it too.
    pub(in crate::controllers::pool) fn refuse(&mut self, why: &str) {
        if !self.refusal.is_empty() {
            self.refusal.push_str(". ");
        }
        self.refusal.push_str(why);
    }
}

/// Pools whose finalizer the API server did not take off, with why, and when it is tried again.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<PoolKey, HeldBack<(), String>>>);

impl Refusals {
    /// Why and for how long it is not tried.
    pub(super) fn holds(&self, key: &PoolKey, now: Instant) -> Option<Leave> {
        let pools = self.0.lock();
        let (why, until) = pools.get(key)?.holds(&(), 0, now)?;
        Some(Leave {
            again: Some(until.duration_since(now)),
            refusal: why.clone(),
        })
    }

    /// Keeps what came of a try; what is said for the first time is logged.
    pub(super) fn note(&self, key: &PoolKey, done: Result<(), String>, now: Instant) -> Leave {
        let mut pools = self.0.lock();
        let Err(error) = done else {
            pools.remove(key);
            return Leave::default();
        };
        let why = format!("the API server does not take the finalizer off ({error})");
        let held = pools.entry(key.clone()).or_default();
        if held.cause(&()) != Some(&why) {
            let PoolKey {
                namespace, pool, ..
            } = key;
            tracing::warn!(namespace, pool, "{why}; it is tried again");
        }
        let until = held.failed(now, (), 0, REFUSED, why.clone());
        Leave {
            again: Some(until.duration_since(now)),
            refusal: why,
        }
    }

    pub(super) fn retain(&self, keep: impl Fn(&PoolKey) -> bool) {
        self.0.lock().retain(|key, _| keep(key));
    }
}

/// Who keeps a pool beside this operator: the finalizers that are not its own.
#[must_use]
pub fn others_finalizers(pool: &impl ResourceExt) -> Vec<&str> {
    let finalizers = pool.finalizers().iter().map(String::as_str);
    finalizers
        .filter(|it| *it != finalizer::FINALIZER)
        .collect()
}

/// How the records of a pool were published, as far as that can be read of it.
fn backend_of(pool: &Decoded<EdgePool>) -> Option<Rfc2136> {
    match pool {
        Decoded::Valid(pool) => pool.spec.dns.as_ref()?.rfc2136.clone(),
        Decoded::Undecodable(pool) => {
            let backend = pool.spec.pointer("/dns/rfc2136")?;
            serde_json::from_value(backend.clone()).ok()
        }
    }
}

/// What is known without DNS of how a pool goes.
enum Release {
    /// At once, with its records left behind, as this says.
    Now(&'static str),
    /// Once its records are withdrawn.
    Withdrawn,
}

impl Release {
    fn of(context: &Context, pool: &impl ResourceExt) -> Self {
        let deleted = pool.meta().deletion_timestamp.as_ref().map(|time| time.0);
        let waited = deleted.and_then(|at| context.server_clock.since(at));
        if is_skipped(pool) {
            Self::Now("as its annotation asks")
        } else if waited.is_some_and(|waited| waited >= LONGEST) {
            Self::Now("as DNS did not take the withdrawal within 10 minutes")
        } else {
            Self::Withdrawn
        }
    }
}

impl PoolDns {
    /// A pool that is being deleted: withdraws its records, then lets it go. Of one that cannot be
    /// decoded the metadata is enough: its records are withdrawn where its keys are known.
    pub async fn leave(
        &self,
        context: &Context,
        namespace: &str,
        pool: &Decoded<EdgePool>,
    ) -> Leave {
        if !is_marked(pool) {
            return Leave::default();
        }
        let key = PoolKey::of(namespace, pool);
        if let Some(refused) = self.refusals.holds(&key, Instant::now()) {
            return refused;
        }
        let metadata = pool.meta().clone().into_response_partial();
        let leaving = leaving(context, namespace, &metadata);
        let let_go = |done| self.refusals.note(&key, done, Instant::now());
        let known = self.known(&key, pool);
        let owner = match (Release::of(context, pool), owner(context, &key, &known)) {
            (Release::Now(why), _) => return let_go(leaving.leave_records(why).await),
            (Release::Withdrawn, Some(owner)) => owner,
            (Release::Withdrawn, None) => {
                let why = "as the operator has no owner id";
                return let_go(leaving.leave_records(why).await);
            }
        };
        let task = PoolRecordsTask::Withdraw {
            settings: withdraws_by(context, namespace, backend_of(pool), &known),
            is_kept: true,
            is_final: true,
        };
        let progress = self.start(context, &key, pool, owner, task);
        let Some(outcome) = progress.outcome.filter(|outcome| outcome.is_final) else {
            return Leave::later(String::new());
        };
        if progress.is_current && !outcome.is_remembered() {
            return let_go(leaving.remove_finalizer().await.map(|_| ()));
        }
        let errors = match &outcome.report {
            Ok(report) => report.errors(),
            Err(error) => return Leave::later(error.clone()),
        };
        let ruled_out = errors.iter().find_map(|error| error.rules_out_withdrawal());
        if progress.is_current
            && let Some(why) = ruled_out
        {
            return let_go(leaving.leave_records(why).await);
        }
        Leave::later(errors.first().map(ToString::to_string).unwrap_or_default())
    }

    /// As [`Self::leave`], of a pool in a namespace that may not be read: its key cannot be had, but may be had again
    /// within the time that it waits.
    pub async fn leave_unread(
        &self,
        context: &Context,
        namespace: &str,
        pool: &PartialObjectMeta<EdgePool>,
    ) -> Leave {
        let key = PoolKey::of(namespace, pool);
        if !is_marked(pool) {
            return Leave::default();
        }
        if let Some(refused) = self.refusals.holds(&key, Instant::now()) {
            return refused;
        }
        let why = match Release::of(context, pool) {
            Release::Now(why) => why,
            Release::Withdrawn if remembered(pool).source.is_none() => NO_KEY,
            Release::Withdrawn => return Leave::later("the namespace cannot be read".to_owned()),
        };
        let done = leaving(context, namespace, pool).leave_records(why).await;
        self.refusals.note(&key, done, Instant::now())
    }
}

fn leaving<'a>(
    context: &'a Context,
    namespace: &'a str,
    pool: &'a PartialObjectMeta<EdgePool>,
) -> Finalization<'a> {
    Finalization {
        client: &context.client,
        caches: &context.caches,
        metrics: &context.dns_metrics,
        events: &context.events,
        namespace,
        pool,
    }
}
