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
    Api, Client, Config, Resource, ResourceExt,
    api::{ApiResource, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::json;
use tokio::time::{sleep, timeout};
use xmpp_edge_crds::kinds::EdgePool;

use crate::{
    controllers::pool::publish::finalizer::FINALIZER,
    runtime::{backoff::Backoff, caches::Scope, leader::election::Timing},
};

/// Who holds the lease meanwhile.
const IDENTITY: &str = "xmpp-edge-operator-prepare-uninstall";
/// How long no operator takes the lease afterwards: Helm stops them right after. A new installation
/// within it waits for the rest.
const HELD: Duration = Duration::from_secs(60);
/// A call that takes longer failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What `prepare-uninstall` was told.
#[derive(Clone, Debug)]
pub struct UninstallOptions {
    /// Where the pools are; `None`: the operator's own namespace.
    pub scope: Option<Scope>,
    pub lease_name: String,
    /// It gives up after this.
    pub timeout: Duration,
}

/// A pool without the finalizer, and what nobody removes any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasedPool {
    pub namespace: String,
    pub name: String,
    /// SRV records as text, as its status had them last.
    pub records: Vec<String>,
}

/// Why not everything was let go of.
#[derive(Debug, thiserror::Error)]
pub enum PrepareUninstallError {
    #[error(
        "there is no access to a cluster: {0}; run it in a pod with a ServiceAccount, or set KUBECONFIG"
    )]
    Access(#[from] kube::config::InferConfigError),
    #[error("the client for the API server cannot be made: {0}")]
    Client(kube::Error),
    #[error("{what}: the API server refuses it: {message}")]
    Refused { what: String, message: String },
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
pub async fn prepare_uninstall(
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
        if lease.take().await? {
            // Who led acts until it has to have renewed at the latest.
            tracing::info!("the lease is taken; who held it stops within seconds");
            sleep(Timing::default().renew_deadline).await;
        }
        let mut released = Vec::new();
        for namespace in scope.watches() {
            released.extend(pools(&client, namespace.as_deref()).await?);
        }
        lease.take().await?;
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
    /// Takes it from whoever has it; whether somebody else had it.
    async fn take(&self) -> Result<bool, PrepareUninstallError> {
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
            let lease = self.lease(version.clone(), transitions);
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

    fn lease(&self, version: Option<String>, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.to_owned()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(IDENTITY.to_owned()),
                lease_duration_seconds: i32::try_from(HELD.as_secs()).ok(),
                lease_transitions: Some(transitions),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Takes the finalizer off the pools of a namespace, or of all; those that cannot be read as pools
/// too.
async fn pools(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Vec<ReleasedPool>, PrepareUninstallError> {
    let kind = ApiResource::erase::<EdgePool>(&());
    let api = |namespace: Option<&str>| -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
            None => Api::all_with(client.clone(), &kind),
        }
    };
    let listed = api(namespace);
    let parameters = ListParams::default();
    let CallOutcome::Is(found) = ask("listing EdgePools", || listed.list(&parameters)).await?
    else {
        // Without the kind there is nothing to let go of.
        return Ok(Vec::new());
    };
    let mut released = Vec::new();
    for pool in found {
        let own = pool.namespace();
        if let Some(records) = release_one(&api(own.as_deref()), pool.clone()).await? {
            released.push(ReleasedPool {
                namespace: own.unwrap_or_default(),
                name: pool.name_any(),
                records,
            });
        }
    }
    Ok(released)
}

/// The records of a pool whose finalizer was taken off; `None` where it had none.
async fn release_one(
    api: &Api<DynamicObject>,
    mut pool: DynamicObject,
) -> Result<Option<Vec<String>>, PrepareUninstallError> {
    let name = pool.name_any();
    let what = format!("taking the finalizer off EdgePool {name:?}");
    let parameters = PatchParams::default();
    loop {
        if !pool.finalizers().iter().any(|it| it == FINALIZER) {
            return Ok(None);
        }
        let others: Vec<&String> = pool
            .finalizers()
            .iter()
            .filter(|it| *it != FINALIZER)
            .collect();
        // Only if the list is still the one that was read: others may have put theirs.
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": pool.meta().resource_version, "finalizers": others,
        }}));
        match ask(&what, || api.patch(&name, &parameters, &patch)).await? {
            CallOutcome::Is(_) => return Ok(Some(records(&pool))),
            CallOutcome::Absent => return Ok(None),
            CallOutcome::Overtaken => {}
        }
        match ask(&what, || api.get_opt(&name)).await? {
            CallOutcome::Is(Some(newer)) => pool = newer,
            _ => return Ok(None),
        }
    }
}

fn records(pool: &DynamicObject) -> Vec<String> {
    let records = pool.data["status"]["srvRecords"].as_array();
    let texts = records.into_iter().flatten();
    texts
        .filter_map(|record| Some(record.as_str()?.to_owned()))
        .collect()
}
