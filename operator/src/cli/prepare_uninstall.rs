//! `xmpp-edge-operator prepare-uninstall`: lets go of what only an operator could finish, before it is gone
//! for good.
//!
//! It takes the lease, held or not, so that no operator acts any more, and takes the finalizer off
//! the pools, so that they can be deleted without one. Records stay in DNS and pods go on: it only
//! names the records. Done twice it does nothing more.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, ListParams, ObjectMeta, PostParams},
    core::DynamicObject,
};
use tokio::time::{sleep, timeout};
use xmpp_edge_crds::kinds::EdgePool;

use crate::{
    controllers::pool::publish::finalizer::{self, FINALIZER, Removal},
    runtime::{backoff::Backoff, caches::Scope, leader::election::Timing},
};

/// Who holds the lease meanwhile.
const IDENTITY: &str = "xmpp-edge-operator-prepare-uninstall";
/// How long no operator takes the lease while this goes on.
const HELD: Duration = Duration::from_secs(60);
/// And once it is done: Helm stops the operators right after, and a new installation is not to wait for
/// longer than after a leader that died.
const HELD_AFTERWARDS: Duration = Duration::from_secs(15);
/// A call that takes longer failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What `prepare-uninstall` was told.
#[derive(Clone, Debug)]
pub(super) struct UninstallOptions {
    /// Where the pools are; `None`: the operator's own namespace.
    pub scope: Option<Scope>,
    pub lease_name: String,
    /// Operators go on acting elsewhere: their lease is theirs.
    pub keep_lease: bool,
    /// It gives up after this.
    pub timeout: Duration,
}

/// A pool without the finalizer, and what nobody removes any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReleasedPool {
    pub namespace: String,
    pub name: String,
    /// SRV records as text, as its status had them last.
    pub records: Vec<String>,
}

/// Why not everything was let go of.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareUninstallError {
    #[error(
        "there is no access to a cluster: {0}; run it in a pod with a ServiceAccount, or set KUBECONFIG"
    )]
    Access(#[from] kube::config::InferConfigError),
    #[error("the client for the API server cannot be made: {0}")]
    Client(kube::Error),
    #[error("{what}: the API server refuses it: {message}")]
    Refused {
        what: String,
        code: u16,
        message: String,
    },
    #[error(
        "not within {} s; run it again, or take the finalizer {FINALIZER} off the EdgePools by hand", .0.as_secs()
    )]
    Late(Duration),
}

/// Takes the lease and the finalizers.
///
/// # Errors
/// [`PrepareUninstallError`]; an API server that does not answer is asked again until the time is over. What
/// was let go of until then stays so.
pub(super) async fn prepare_uninstall(
    options: &UninstallOptions,
) -> Result<Vec<ReleasedPool>, PrepareUninstallError> {
    let config = Config::infer().await?;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(PrepareUninstallError::Client)?;
    let own = Scope::Namespaces([namespace.clone()].into());
    let scope = options.scope.as_ref().unwrap_or(&own);
    let all = async {
        let lease = LeaseTaker {
            api: Api::namespaced(client.clone(), &namespace),
            name: &options.lease_name,
        };
        let takes = !options.keep_lease && lease.is_to_be_taken(&client, &namespace).await?;
        if takes && lease.take(HELD).await? {
            // Who led acts until it has to have renewed at the latest.
            tracing::info!("the lease is taken; who held it stops within seconds");
            sleep(Timing::default().renew_deadline).await;
        }
        let mut released = Vec::new();
        for namespace in scope.watches() {
            released.extend(pools(&client, namespace.as_deref()).await?);
        }
        if takes {
            lease.take(HELD_AFTERWARDS).await?;
        }
        Ok(released)
    };
    timeout(options.timeout, all)
        .await
        .unwrap_or(Err(PrepareUninstallError::Late(options.timeout)))
}

/// Asks until there is an answer; `None` where the object or its kind is not there.
async fn ask<T, F>(
    what: &str,
    mut call: impl FnMut() -> F,
) -> Result<CallOutcome<T>, PrepareUninstallError>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let mut backoff = Backoff::api_server();
    loop {
        let error = match timeout(CALL_TIMEOUT, call()).await {
            Ok(Ok(answer)) => return Ok(CallOutcome::Is(answer)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                return Ok(CallOutcome::Absent);
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                return Ok(CallOutcome::Overtaken);
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400..429) => {
                return Err(PrepareUninstallError::Refused {
                    what: what.to_owned(),
                    code: status.code,
                    message: status.message.clone(),
                });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
        };
        tracing::warn!(error, "{what} failed; it is tried again");
        sleep(backoff.wait()).await;
    }
}

enum CallOutcome<T> {
    Is(T),
    Absent,
    /// Another form of it is there.
    Overtaken,
}

/// The operators' lease.
struct LeaseTaker<'a> {
    api: Api<Lease>,
    name: &'a str,
}

impl LeaseTaker<'_> {
    /// Whether to take it. Where there is none, who may list Leases is a person, who may have meant another one, and is
    /// told of those that there are. The operators' own account may not, and has the name right: it makes the Lease, so
    /// that an operator that only starts does not act.
    async fn is_to_be_taken(
        &self,
        client: &Client,
        namespace: &str,
    ) -> Result<bool, PrepareUninstallError> {
        let found = ask("reading the lease", || self.api.get_opt(self.name)).await?;
        if matches!(found, CallOutcome::Is(Some(_))) {
            return Ok(true);
        }
        let leases: Api<Lease> = Api::all(client.clone());
        let parameters = ListParams::default();
        let others = match ask("listing Leases", || leases.list(&parameters)).await {
            Ok(CallOutcome::Is(listed)) => Some(of_operators(&listed.items)),
            Ok(CallOutcome::Absent | CallOutcome::Overtaken)
            | Err(PrepareUninstallError::Refused { .. }) => None,
            Err(error) => return Err(error),
        };
        let name = self.name;
        let hint = match others.as_deref() {
            None => String::new(),
            Some([]) => "; nor is there one of an operator elsewhere".to_owned(),
            Some(others) => format!(
                "; operators have {}: if one of these is meant, run it again with --lease-name and a kubeconfig of that namespace",
                others.join(", ")
            ),
        };
        tracing::warn!(
            "there is no Lease {name:?} in namespace {namespace:?}: no operator led by it{hint}"
        );
        Ok(others.is_none())
    }

    /// Takes it from whoever has it; whether somebody else had it.
    async fn take(&self, held: Duration) -> Result<bool, PrepareUninstallError> {
        let parameters = PostParams::default();
        loop {
            let found = ask("reading the lease", || self.api.get_opt(self.name)).await?;
            let found = match found {
                CallOutcome::Is(found) => found,
                CallOutcome::Absent | CallOutcome::Overtaken => None,
            };
            let spec = found.as_ref().and_then(|it| it.spec.clone());
            let holder = spec
                .as_ref()
                .and_then(|it| it.holder_identity.clone())
                .unwrap_or_default();
            let mut transitions = spec.and_then(|it| it.lease_transitions).unwrap_or_default();
            transitions += i32::from(holder != IDENTITY);
            let version = found.and_then(|it| it.metadata.resource_version);
            let lease = self.lease(version.clone(), transitions, held);
            let written = match version {
                None => {
                    ask("creating the lease", || {
                        self.api.create(&parameters, &lease)
                    })
                    .await?
                }
                Some(_) => {
                    ask("taking the lease", || {
                        self.api.replace(self.name, &parameters, &lease)
                    })
                    .await?
                }
            };
            if matches!(written, CallOutcome::Is(_)) {
                return Ok(!holder.is_empty() && holder != IDENTITY);
            }
        }
    }

    fn lease(&self, version: Option<String>, transitions: i32, held: Duration) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.to_owned()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(IDENTITY.to_owned()),
                lease_duration_seconds: i32::try_from(held.as_secs()).ok(),
                lease_transitions: Some(transitions),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Leases by which operators may lead, as NAMESPACE/NAME: the default name, and those of most releases.
fn of_operators(leases: &[Lease]) -> Vec<String> {
    let ours = leases
        .iter()
        .filter(|it| it.name_any().contains("xmpp-edge"));
    ours.map(|it| format!("{}/{}", it.namespace().unwrap_or_default(), it.name_any()))
        .collect()
}

/// Takes the finalizer off the pools of a namespace, or of all; those that cannot be read as pools
/// too.
async fn pools(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Vec<ReleasedPool>, PrepareUninstallError> {
    let kind = ApiResource::erase::<EdgePool>(&());
    let listed: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    let parameters = ListParams::default();
    let what = "listing EdgePools";
    let found = match (ask(what, || listed.list(&parameters)).await, namespace) {
        (Ok(CallOutcome::Is(found)), _) => found,
        // Without the kind there is nothing to let go of.
        (Ok(CallOutcome::Absent | CallOutcome::Overtaken), _) => return Ok(Vec::new()),
        // Nor where the namespace is gone, or its Role was never made: then no operator acted there.
        (
            Err(PrepareUninstallError::Refused {
                code: 403, message, ..
            }),
            Some(namespace),
        ) => {
            tracing::warn!(
                namespace,
                "EdgePools may not be listed there, and none is released: {message}"
            );
            return Ok(Vec::new());
        }
        (Err(error), _) => return Err(error),
    };
    let mut released = Vec::new();
    for pool in found {
        let (own, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
        let records = match (release_one(client, &pool).await, namespace) {
            (Ok(records), _) => records,
            // It may be listed everywhere, to be told of, and changed where there is a Role alone.
            (
                Err(PrepareUninstallError::Refused {
                    code: 403, message, ..
                }),
                Some(_),
            ) => {
                tracing::warn!(
                    namespace = own,
                    pool = name,
                    "the EdgePool may not be changed there, and is not released: {message}"
                );
                None
            }
            (Err(error), _) => return Err(error),
        };
        if let Some(records) = records {
            released.push(ReleasedPool {
                namespace: own,
                name,
                records,
            });
        }
    }
    Ok(released)
}

/// The records of a pool whose finalizer was taken off; `None` where it had none.
async fn release_one(
    client: &Client,
    pool: &DynamicObject,
) -> Result<Option<Vec<String>>, PrepareUninstallError> {
    if !pool.finalizers().iter().any(|it| it == FINALIZER) {
        return Ok(None);
    }
    let name = pool.name_any();
    let what = format!("taking the finalizer off EdgePool {name:?}");
    let api = Api::namespaced(client.clone(), &pool.namespace().unwrap_or_default());
    let uid = pool.uid();
    let removed = ask(&what, || finalizer::remove(&api, &name, uid.as_deref())).await?;
    Ok(matches!(removed, CallOutcome::Is(Removal::Removed)).then(|| records(pool)))
}

fn records(pool: &DynamicObject) -> Vec<String> {
    let records = pool.data["status"]["srvRecords"].as_array();
    let texts = records.into_iter().flatten();
    texts
        .filter_map(|record| Some(record.as_str()?.to_owned()))
        .collect()
}
