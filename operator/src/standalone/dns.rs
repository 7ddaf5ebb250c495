//! Standalone's DNS records: what the manifests say about them, and what came of it. The
//! [`DnsController`] works on them beside the proxy, as in a cluster.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::{
        EdgePool,
        conditions::{ConditionType, Reason},
    },
};

use crate::{
    compile::{Diagnostic, Kind, NamespaceInputs, ObjectRef, Severity},
    dns::{
        Addresses, Availability, DnsCondition, DnsMemory, DnsMetrics, OwnerId, Publisher,
        RecordGroup, RecordOwner, UpdateSettings,
        backend::pool_records::{
            AddressSource, KeepMemory, PoolRecordsBackend, PoolRecordsOutcome, PoolRecordsTask,
        },
        controller::{DnsController, DnsOutcome, DnsProgress},
    },
    secrets::files,
};

/// What holds for the pool of `config`; `None` where its manifest is not accepted, and what was asked for
/// last stays.
#[must_use]
pub fn task(
    world: &NamespaceInputs,
    config: &EdgeConfig,
    diagnostics: &[Diagnostic],
) -> Option<PoolRecordsTask> {
    let pool = world
        .pools
        .iter()
        .find(|pool| pool.metadata.name.as_ref() == Some(&config.pool));
    let object = ObjectRef::new(Kind::EdgePool, &config.pool);
    let rejected = diagnostics.iter().any(|diagnostic| {
        diagnostic.object == object
            && diagnostic.condition == ConditionType::Accepted
            && !diagnostic.status
    });
    match pool {
        Some(pool) if !rejected => Some(from_spec(world, pool)),
        // The kill switch takes effect whatever else is wrong.
        _ if config.suspended => Some(WITHDRAW),
        _ => None,
    }
}

/// `spec.dns.rfc2136` or the pool is gone: everything ever published goes.
const WITHDRAW: PoolRecordsTask = PoolRecordsTask::Withdraw {
    settings: None,
    is_kept: true,
    is_final: false,
};

fn from_spec(world: &NamespaceInputs, pool: &EdgePool) -> PoolRecordsTask {
    let spec = &pool.spec;
    let Some(rfc2136) = spec.dns.as_ref().and_then(|dns| dns.rfc2136.as_ref()) else {
        return WITHDRAW;
    };
    let addresses = match &spec.access_edge.addresses {
        // The schema refuses what is no address.
        Some(given) => {
            Addresses::Known(given.iter().filter_map(|text| text.parse().ok()).collect())
        }
        None => Addresses::Elsewhere,
    };
    let secret = world.secrets.get(&rfc2136.tsig_secret_ref.name);
    PoolRecordsTask::Publish {
        spec: Box::new(spec.clone()),
        // This process is the pool: while it runs, it serves.
        availability: Availability::of(spec, 1),
        stranded: BTreeSet::new(),
        addresses: AddressSource::Given(addresses),
        settings: Some(UpdateSettings::read(rfc2136, secret)),
        is_kept: true,
    }
}

/// Why records cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum DnsStateError {
    #[error(
        "cannot read {path}: {reason}; check its permissions, or move it away: what was published then has to be deleted by hand"
    )]
    Read { path: PathBuf, reason: String },
    #[error(transparent)]
    Write(#[from] crate::secrets::store::StoreError),
}

/// What the state directory remembers of records.
#[derive(Debug)]
pub struct DnsState {
    path: PathBuf,
    owner: OwnerId,
    /// Whose they are; none: of a version that did not write it.
    pool: Option<PublishedPool>,
    memory: DnsMemory,
}

/// In whose name records are marked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPool {
    pub namespace: String,
    pub name: String,
}

/// `dns.json`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredMemory {
    Whole {
        pool: PublishedPool,
        places: BTreeSet<RecordGroup>,
    },
    /// As earlier versions wrote it.
    Places(BTreeSet<RecordGroup>),
}

impl DnsState {
    /// Reads `dns.json` and `dns-owner-id`; without `owner` and without that file an id is made, once.
    ///
    /// # Errors
    /// [`DnsStateError`].
    pub fn open(state: &Path, owner: Option<OwnerId>) -> Result<Self, DnsStateError> {
        let path = state.join("dns.json");
        let fault = |path: &Path, reason: String| DnsStateError::Read {
            path: path.to_owned(),
            reason,
        };
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault(path, error.to_string())),
        };
        let stored = read(&path)?.map(|text| serde_json::from_str(&text));
        let stored = stored.transpose();
        let (pool, places) = match stored.map_err(|error| fault(&path, error.to_string()))? {
            Some(StoredMemory::Whole { pool, places }) => (Some(pool), places),
            Some(StoredMemory::Places(places)) => (None, places),
            None => (None, BTreeSet::new()),
        };
        let memory = DnsMemory {
            places,
            source: None,
        };
        let id = state.join("dns-owner-id");
        let owner = match (owner, read(&id)?) {
            (Some(given), _) => given,
            (None, Some(text)) => text
                .trim()
                .parse()
                .map_err(|error| fault(&id, format!("{error}")))?,
            (None, None) => {
                let made = random_id();
                files::replace(&id, made.to_string().as_bytes(), 0o600)?;
                made
            }
        };
        Ok(Self {
            path,
            owner,
            pool,
            memory,
        })
    }
}

/// Where `dns.json` is kept, of one pool.
struct MemoryFile {
    path: PathBuf,
    pool: PublishedPool,
}

impl KeepMemory for MemoryFile {
    async fn keep(&mut self, memory: &DnsMemory) -> Result<(), String> {
        let stored = StoredMemory::Whole {
            pool: self.pool.clone(),
            places: memory.places.clone(),
        };
        let text = serde_json::to_vec_pretty(&stored).map_err(|error| error.to_string())?;
        files::replace(&self.path, &text, 0o600).map_err(|error| error.to_string())
    }
}

fn random_id() -> OwnerId {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    let hex = HEXLOWER.encode(&bytes);
    hex.parse().expect("hex digits make an owner id")
}

/// The one pool's records, as the rest of standalone sees them.
pub struct Publishing {
    records: DnsController<PublishedPool, PoolRecordsBackend<MemoryFile>>,
    state: DnsState,
    metrics: DnsMetrics,
    pool: PublishedPool,
    /// The pool whose records go first: under another name they could never be withdrawn.
    before: Option<PublishedPool>,
    task: Option<PoolRecordsTask>,
    begun: bool,
    told: Option<DnsCondition>,
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

impl Publishing {
    /// Nothing is done before [`Self::begin`].
    #[must_use]
    pub fn new(state: DnsState, pool: PublishedPool, metrics: DnsMetrics) -> Self {
        let before = state.pool.clone();
        let before = before.filter(|it| *it != pool && !state.memory.places.is_empty());
        Self {
            records: DnsController::default(),
            state,
            metrics,
            pool,
            before,
            task: None,
            begun: false,
            told: None,
        }
    }

    /// What there is to do from now on; `None`: what was asked for last stays.
    pub fn ask(&mut self, task: Option<PoolRecordsTask>) {
        if task.is_some() {
            self.task = task;
        }
    }

    /// From now on it is done.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// Starts what is due, and says what came of it where that is new. To be called often.
    pub fn look(&mut self) -> Option<DnsCondition> {
        let task = self.task.clone().filter(|_| self.begun)?;
        if let Some(before) = self.before.clone() {
            let (PoolRecordsTask::Publish { settings, .. }
            | PoolRecordsTask::Withdraw { settings, .. }) = &task;
            let withdraw = PoolRecordsTask::Withdraw {
                settings: settings.clone(),
                is_kept: true,
                is_final: false,
            };
            let progress = self.start(&before, self.state.memory.clone(), withdraw);
            let outcome = progress.outcome.filter(|_| progress.is_current)?;
            if !outcome.is_good() {
                let condition = condition_of(&outcome, false);
                return self.tell(DnsCondition {
                    message: format!(
                        "records of EdgePool {:?}, as which this one was published before, are to go first: {}",
                        before.name, condition.message
                    ),
                    ..condition
                });
            }
            self.records.retain(|pool| *pool != before);
            self.before = None;
            self.state.memory = DnsMemory::default();
        }
        let is_withdrawal = matches!(task, PoolRecordsTask::Withdraw { .. });
        let progress = self.start(&self.pool, self.state.memory.clone(), task);
        let outcome = progress.outcome.filter(|_| progress.is_current)?;
        self.tell(condition_of(&outcome, is_withdrawal))
    }

    fn start(
        &self,
        pool: &PublishedPool,
        memory: DnsMemory,
        task: PoolRecordsTask,
    ) -> DnsProgress<PoolRecordsOutcome> {
        let backend = || {
            let owner = RecordOwner {
                owner: self.state.owner.clone(),
                namespace: pool.namespace.clone(),
                pool: pool.name.clone(),
            };
            let file = MemoryFile {
                path: self.state.path.clone(),
                pool: pool.clone(),
            };
            let publisher = Publisher::new(owner, memory);
            PoolRecordsBackend::new(publisher, file, self.metrics.clone())
        };
        self.records.look(pool, backend, task, || {})
    }

    /// What is new of it.
    fn tell(&mut self, condition: DnsCondition) -> Option<DnsCondition> {
        if self.told.as_ref() == Some(&condition) {
            return None;
        }
        if condition.status && condition.reason != Reason::NotManaged {
            let DnsCondition {
                reason, message, ..
            } = &condition;
            tracing::info!("DNS records: {reason}: {message}");
        }
        self.told = Some(condition.clone());
        Some(condition)
    }

    /// Ends after the exchange that is under way. The records stay: a restart is no reason to change
    /// DNS.
    pub async fn stop(self) {
        self.records.stop().await;
    }
}

fn condition_of(outcome: &PoolRecordsOutcome, is_withdrawal: bool) -> DnsCondition {
    match &outcome.report {
        Ok(_) if is_withdrawal && outcome.is_good() => DnsCondition {
            status: true,
            reason: Reason::NotManaged,
            message: "no spec.dns.rfc2136, or no pool: the records are yours to publish".to_owned(),
        },
        Ok(report) => report.condition(),
        Err(error) => DnsCondition {
            status: false,
            reason: Reason::DnsFailed,
            message: error.clone(),
        },
    }
}

/// `DnsPublished` of a pool.
#[must_use]
pub fn diagnostic(pool: &str, condition: &DnsCondition) -> Diagnostic {
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, pool),
        condition: ConditionType::DnsPublished,
        status: condition.status,
        reason: condition.reason,
        message: condition.message.clone(),
        severity: if condition.status {
            Severity::Info
        } else {
            Severity::Warning
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_owner_id_is_made_once_and_one_that_is_given_wins() {
        let folder = tempfile::tempdir().unwrap();
        let owner = |given: Option<&str>| {
            let given = given.map(|text| text.parse().unwrap());
            DnsState::open(folder.path(), given).unwrap().owner
        };
        let first = owner(None);
        assert_eq!(owner(None), first);
        assert_eq!(owner(Some("mine")).to_string(), "mine");
        assert_eq!(owner(None), first);
    }

    #[test]
    fn a_damaged_memory_is_told_rather_than_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dns.json"), "[{").unwrap();
        let error = DnsState::open(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("dns.json"), "{error}");
    }

    fn stored(folder: &Path) -> (Option<PublishedPool>, DnsMemory) {
        let state = DnsState::open(folder, None).unwrap();
        (state.pool, state.memory)
    }

    #[tokio::test]
    async fn records_of_a_pool_that_was_renamed_go_under_the_name_that_marks_them_before_any_come()
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns.json");
        let places: BTreeSet<_> = [RecordGroup::Domain("org.example".to_owned())].into();
        // As an earlier version wrote it: whoever it was, it is taken for this one.
        fs::write(&path, r#"[{"domain":"org.example"}]"#).unwrap();
        assert_eq!(stored(folder.path()).1.places, places);
        let pool = |name: &str| PublishedPool {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        };
        let mut file = MemoryFile {
            path,
            pool: pool("old"),
        };
        let memory = DnsMemory {
            places: places.clone(),
            source: None,
        };
        file.keep(&memory).await.unwrap();
        let state = || DnsState::open(folder.path(), None).unwrap();
        let same = Publishing::new(state(), pool("old"), DnsMetrics::default());
        assert_eq!(same.before, None);
        let mut renamed = Publishing::new(state(), pool("new"), DnsMetrics::default());
        renamed.ask(Some(WITHDRAW));
        renamed.begin();
        let condition = loop {
            if let Some(condition) = renamed.look() {
                break condition;
            }
            tokio::task::yield_now().await;
        };
        // Nobody knows the server any more: they are there still, and not said to be withdrawn.
        assert!(!condition.status, "{condition:?}");
        assert!(condition.message.contains("\"old\""), "{condition:?}");
        assert_eq!(stored(folder.path()), (Some(pool("old")), memory));
    }
}
