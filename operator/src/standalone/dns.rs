//! Standalone's DNS records: what the manifests say about them, and what came of it. The
//! [`DnsController`] works on them beside the proxy, as in a cluster.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
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
        RecordOwner, UpdateSettings,
        backend::pool_records::{AddressSource, KeepMemory, PoolRecordsBackend, PoolRecordsTask},
        controller::{DnsController, DnsOutcome},
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
    memory: DnsMemory,
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
        let memory = match read(&path)? {
            Some(text) => DnsMemory {
                places: serde_json::from_str(&text)
                    .map_err(|error| fault(&path, error.to_string()))?,
                source: None,
            },
            None => DnsMemory::default(),
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
            memory,
        })
    }
}

/// `dns.json`.
struct MemoryFile(PathBuf);

impl KeepMemory for MemoryFile {
    async fn keep(&mut self, memory: &DnsMemory) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(&memory.places).unwrap_or_default();
        files::replace(&self.0, &text, 0o600).map_err(|error| error.to_string())
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
    records: DnsController<(), PoolRecordsBackend<MemoryFile>>,
    state: DnsState,
    metrics: DnsMetrics,
    /// Namespace and name.
    pool: (String, String),
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
    /// For a pool (namespace and name); nothing is done before [`Self::begin`].
    #[must_use]
    pub fn new(state: DnsState, pool: (String, String), metrics: DnsMetrics) -> Self {
        Self {
            records: DnsController::default(),
            state,
            metrics,
            pool,
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
        let is_withdrawal = matches!(task, PoolRecordsTask::Withdraw { .. });
        let (state, pool, metrics) = (&self.state, &self.pool, &self.metrics);
        let backend = || {
            let owner = RecordOwner {
                owner: state.owner.clone(),
                namespace: pool.0.clone(),
                pool: pool.1.clone(),
            };
            let publisher = Publisher::new(owner, state.memory.clone());
            let file = MemoryFile(state.path.clone());
            PoolRecordsBackend::new(publisher, file, metrics.clone())
        };
        let progress = self.records.look(&(), backend, task, || {});
        let outcome = progress.outcome.filter(|_| progress.is_current)?;
        let condition = match &outcome.report {
            Ok(_) if is_withdrawal && outcome.is_good() => DnsCondition {
                status: true,
                reason: Reason::NotManaged,
                message: "no spec.dns.rfc2136, or no pool: the records are yours to publish"
                    .to_owned(),
            },
            Ok(report) => report.condition(),
            Err(error) => DnsCondition {
                status: false,
                reason: Reason::DnsFailed,
                message: error.clone(),
            },
        };
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
}
