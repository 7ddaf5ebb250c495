//! Standalone's DNS records: what the manifests say about them, and the task that carries it out
//! beside the proxy. A DNS server that does not answer holds nothing else up.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
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
        Addresses, Availability, DesiredRecords, DnsCondition, DnsError, DnsMemory, DnsMetrics,
        DnsReport, OwnerId, Publisher, RecordOwner, UpdateSettings,
    },
    secrets::files,
};

/// The longest pause between attempts that fail.
const LONGEST: Duration = Duration::from_secs(60);

/// What the manifests ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum DnsRequest {
    /// `spec.dns.rfc2136` as it can be read now.
    Publish {
        settings: Box<Result<UpdateSettings, DnsError>>,
        wanted: DesiredRecords,
    },
    /// `spec.dns.rfc2136` or the pool is gone: everything ever published goes.
    Withdraw,
}

impl DnsRequest {
    /// What holds for the pool of `config`; `None` where its manifest is not accepted, and what was
    /// ordered last stays.
    #[must_use]
    pub fn of(
        world: &NamespaceInputs,
        config: &EdgeConfig,
        diagnostics: &[Diagnostic],
    ) -> Option<Self> {
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
            Some(pool) if !rejected => Some(Self::from_spec(world, pool)),
            // The kill switch takes effect whatever else is wrong.
            _ if config.suspended => Some(Self::Withdraw),
            _ => None,
        }
    }

    fn from_spec(world: &NamespaceInputs, pool: &EdgePool) -> Self {
        let spec = &pool.spec;
        let Some(rfc2136) = spec.dns.as_ref().and_then(|dns| dns.rfc2136.as_ref()) else {
            return Self::Withdraw;
        };
        let addresses = match &spec.access_edge.addresses {
            // The schema refuses what is no address.
            Some(given) => {
                Addresses::Known(given.iter().filter_map(|text| text.parse().ok()).collect())
            }
            None => Addresses::Elsewhere,
        };
        // This process is the pool: while it runs, it serves.
        let wanted = match DesiredRecords::new(spec, Availability::of(spec, 1), &addresses) {
            Ok(wanted) => wanted,
            Err(_) => return Self::Withdraw,
        };
        let secret = world.secrets.get(&rfc2136.tsig_secret_ref.name);
        Self::Publish {
            settings: Box::new(UpdateSettings::read(rfc2136, secret)),
            wanted,
        }
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

/// The task's files in the state directory.
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
            Some(text) => {
                serde_json::from_str(&text).map_err(|error| fault(&path, error.to_string()))?
            }
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

    fn keep(&self, memory: &DnsMemory) {
        let text = serde_json::to_vec_pretty(memory).unwrap_or_default();
        if let Err(error) = files::replace(&self.path, &text, 0o600) {
            tracing::error!("{error}; records published now may be forgotten by a restart");
        }
    }
}

fn random_id() -> OwnerId {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().expect("hex digits make an owner id")
}

/// The task, as the rest of standalone sees it.
#[derive(Debug)]
pub struct Publishing {
    tell: watch::Sender<Option<DnsRequest>>,
    heard: watch::Receiver<Option<DnsCondition>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    order: Option<DnsRequest>,
    begun: bool,
}

impl Publishing {
    /// Starts the task for a pool (namespace and name); it does nothing before [`Self::begin`].
    #[must_use]
    pub fn start(state: DnsState, of_pool: (String, String), metrics: DnsMetrics) -> Self {
        let (tell, orders) = watch::channel(None);
        let (news, heard) = watch::channel(None);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(
            Of {
                state,
                pool: of_pool,
                metrics,
            },
            orders,
            news,
            stop.clone(),
        ));
        Self {
            tell,
            heard,
            stop,
            task,
            order: None,
            begun: false,
        }
    }

    /// Orders; `None`: what was ordered last stays.
    pub fn order(&mut self, order: Option<DnsRequest>) {
        if order.is_some() {
            self.order = order;
            self.pass_on();
        }
    }

    /// From now on orders are carried out.
    pub fn begin(&mut self) {
        self.begun = true;
        self.pass_on();
    }

    fn pass_on(&self) {
        if self.begun {
            self.tell.send_if_modified(|told| {
                let changed = *told != self.order;
                told.clone_from(&self.order);
                changed
            });
        }
    }

    /// What came of it, where that is new.
    pub fn news(&mut self) -> Option<DnsCondition> {
        if self.heard.has_changed().unwrap_or(false) {
            self.heard.borrow_and_update().clone()
        } else {
            None
        }
    }

    /// Ends the task after the exchange that it is in. The records stay: a restart is no reason to
    /// change DNS.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!("the task for DNS records ended with a fault: {error}");
        }
    }
}

/// What the task is about.
struct Of {
    state: DnsState,
    /// Namespace and name.
    pool: (String, String),
    metrics: DnsMetrics,
}

/// Carries out orders until `stop`: on each change, and again when the report says.
async fn run(
    of: Of,
    mut orders: watch::Receiver<Option<DnsRequest>>,
    news: watch::Sender<Option<DnsCondition>>,
    stop: CancellationToken,
) {
    let Of {
        state,
        pool: (namespace, pool),
        metrics,
    } = of;
    let claim = RecordOwner {
        owner: state.owner.clone(),
        namespace: namespace.clone(),
        pool: pool.clone(),
    };
    let mut publisher = Publisher::new(claim, state.memory.clone());
    let mut failures = 0_u32;
    loop {
        let order = orders.borrow_and_update().clone();
        let mut pause = LONGEST;
        if let Some(order) = order {
            // An update is not broken off: each exchange is bounded in time.
            let report = carry_out(&mut publisher, &order, &state).await;
            failures = if report.is_good() { 0 } else { failures + 1 };
            match order {
                DnsRequest::Withdraw => {
                    metrics.forget(&namespace, &pool);
                    metrics.count_failures(&namespace, &pool, &report);
                }
                DnsRequest::Publish { .. } => metrics.count(&namespace, &pool, &report),
            }
            tell(&report, &order, &news);
            let slower = 1 << failures.saturating_sub(1).min(6);
            pause = report.look_again().saturating_mul(slower).min(LONGEST);
        }
        let again = Instant::now() + pause;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = orders.changed() => match changed {
                Ok(()) => failures = 0,
                Err(_) => return,
            },
            () = sleep_until(again) => {}
        }
    }
}

async fn carry_out(publisher: &mut Publisher, order: &DnsRequest, state: &DnsState) -> DnsReport {
    let report = match order {
        DnsRequest::Publish { settings, wanted } => {
            publisher.configure(Result::clone(settings));
            if publisher.remember(wanted) {
                state.keep(publisher.memory());
            }
            publisher.publish(wanted).await
        }
        DnsRequest::Withdraw => publisher.withdraw(&DesiredRecords::nothing()).await,
    };
    if *publisher.memory() != state.memory {
        state.keep(publisher.memory());
    }
    report
}

fn tell(report: &DnsReport, order: &DnsRequest, news: &watch::Sender<Option<DnsCondition>>) {
    let condition = match order {
        DnsRequest::Withdraw if report.is_good() => DnsCondition {
            status: true,
            reason: Reason::NotManaged,
            message: "no spec.dns.rfc2136, or no pool: the records are yours to publish".to_owned(),
        },
        _ => report.condition(),
    };
    news.send_if_modified(|last| {
        let changed = last.as_ref() != Some(&condition);
        if changed {
            let DnsCondition {
                reason, message, ..
            } = &condition;
            if condition.status && *reason != Reason::NotManaged {
                tracing::info!("DNS records: {reason}: {message}");
            }
            *last = Some(condition);
        }
        changed
    });
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
