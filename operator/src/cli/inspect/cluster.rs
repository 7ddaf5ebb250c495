//! What stands in a cluster, read once with the rights of whoever asks: the kinds, what they refer to, and
//! the documents in force. It changes nothing there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use xmpp_edge_crds::{
    edge_config::{
        EdgeConfig,
        shards::{self, SHARD_KEY},
    },
    kinds::{self, EdgePool, ExternalAccessPolicy, XmppFederatedPartner},
};

use crate::{
    compile::{Kind, NamespaceInputs, References, peer_keys},
    controllers::namespace::inputs,
};

/// A call that takes longer failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Objects in one answer of a list.
const PAGE: u32 = 500;
/// Who made an object a moment ago has no status to expect of it yet.
const LOOKED_AT_AFTER: Duration = Duration::from_secs(60);

/// Why a cluster cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum LookError {
    #[error(
        "{what}: the API server refuses it: {message}; it takes the rights of ClusterRole RELEASE-view, and to read ConfigMaps"
    )]
    Forbidden { what: String, message: String },
    #[error("{what}: {message}")]
    Failed { what: String, message: String },
    #[error(
        "{what}: the API server does not know the kind: install the CustomResourceDefinitions, or look at another context"
    )]
    NoKind { what: String },
}

/// A cluster to look at.
pub(super) struct ClusterLook {
    client: Client,
    /// What there is to know beside what compiling says.
    pub(super) remarks: Vec<String>,
}

impl ClusterLook {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            remarks: Vec::new(),
        }
    }

    /// The objects of our kinds in a namespace, or in all, as manifests: without what the API server notes
    /// of who wrote them. Those that are being deleted are gone.
    ///
    /// # Errors
    /// [`LookError`].
    pub(super) async fn objects(
        &mut self,
        namespace: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<Value>, LookError> {
        let resources = [
            ApiResource::erase::<EdgePool>(&()),
            ApiResource::erase::<XmppFederatedPartner>(&()),
            ApiResource::erase::<ExternalAccessPolicy>(&()),
        ];
        let mut found = Vec::new();
        let mut unseen: BTreeMap<String, usize> = BTreeMap::new();
        for resource in resources {
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            for object in listed(&api, &resource, namespace).await? {
                if object.metadata.deletion_timestamp.is_some() {
                    continue;
                }
                if is_unseen(&object, now) {
                    *unseen
                        .entry(object.namespace().unwrap_or_default())
                        .or_default() += 1;
                }
                found.push(manifest(&resource, object));
            }
        }
        if let Some(namespace) = namespace.filter(|_| found.is_empty()) {
            self.remarks.push(format!(
                "namespace {namespace:?} has no object of {}",
                kinds::GROUP
            ));
        }
        for (namespace, count) in unseen {
            self.remarks.push(format!(
                "{count} objects of namespace {namespace:?} have no status: no operator that leads watches that namespace (chart values watchNamespaces and clusterWide)"
            ));
        }
        Ok(found)
    }

    /// Adds what the objects of `world` refer to, where the world has it not yet. What may not be read is
    /// known to be unread.
    ///
    /// # Errors
    /// [`LookError`]: the API server does not answer.
    pub(super) async fn complete(&mut self, world: &mut NamespaceInputs) -> Result<(), LookError> {
        let references = references(world);
        for name in references.config_maps {
            if world.config_maps.contains_key(&name) {
                continue;
            }
            match self
                .read::<ConfigMap>("ConfigMap", &world.namespace, &name)
                .await?
            {
                ReadOutcome::Absent => {}
                ReadOutcome::Refused(why) => {
                    world.unread.config_maps.insert(name, why);
                }
                ReadOutcome::Is(map) => {
                    let data = map.data.unwrap_or_default();
                    world.config_maps.insert(name.clone(), data);
                    let binary = map.binary_data.unwrap_or_default();
                    let binary = binary.iter().filter(|(key, _)| *key != SHARD_KEY);
                    world.add_binary_data(&name, binary.map(|(key, bytes)| (&**key, &*bytes.0)));
                }
            }
        }
        for name in references.secrets {
            if world.secrets.contains_key(&name) {
                continue;
            }
            match self
                .read::<Secret>("Secret", &world.namespace, &name)
                .await?
            {
                ReadOutcome::Absent => {}
                ReadOutcome::Refused(why) => {
                    world.unread.secrets.insert(name, why);
                }
                ReadOutcome::Is(secret) => {
                    world.secrets.insert(name, inputs::material(&secret));
                }
            }
        }
        Ok(())
    }

    /// The documents that the pools of a namespace obey now: what no longer compiles stays as it is there.
    ///
    /// # Errors
    /// [`LookError`]: the API server does not answer.
    pub(super) async fn documents(
        &mut self,
        world: &NamespaceInputs,
    ) -> Result<BTreeMap<String, EdgeConfig>, LookError> {
        let mut documents = BTreeMap::new();
        for pool in pools(world) {
            let mut slices = Vec::new();
            for name in shards::shard_names(&pool) {
                match self
                    .read::<ConfigMap>("ConfigMap", &world.namespace, &name)
                    .await?
                {
                    // They are numbered without a gap.
                    ReadOutcome::Absent => break,
                    ReadOutcome::Refused(why) => {
                        self.remarks.push(format!(
                            "{why}: what stays in force of EdgePool {pool:?} although it is not accepted is not known"
                        ));
                        break;
                    }
                    ReadOutcome::Is(mut map) => {
                        let shard = map.binary_data.as_mut().and_then(|it| it.remove(SHARD_KEY));
                        slices.extend(shard.map(|shard| shard.0));
                    }
                }
            }
            match shards::decode(&slices) {
                Ok(document) => {
                    documents.insert(pool, document.config);
                }
                Err(error) if error.is_incomplete() => {}
                Err(error) => self.remarks.push(format!(
                    "the configuration in force of EdgePool {pool:?} cannot be read: {error}"
                )),
            }
        }
        Ok(documents)
    }

    async fn read<K>(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<ReadOutcome<K>, LookError>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let what = || format!("reading {kind} {name:?} of namespace {namespace:?}");
        match timeout(CALL_TIMEOUT, api.get_opt(name)).await {
            Ok(Ok(Some(found))) => Ok(ReadOutcome::Is(found)),
            Ok(Ok(None)) => Ok(ReadOutcome::Absent),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Ok(ReadOutcome::Refused(
                format!("{kind} {name:?} may not be read: {}", status.message),
            )),
            Ok(Err(error)) => Err(failed(what(), &error)),
            Err(_) => Err(late(what())),
        }
    }
}

/// What became of one question.
enum ReadOutcome<K> {
    Is(K),
    Absent,
    Refused(String),
}

async fn listed(
    api: &Api<DynamicObject>,
    resource: &ApiResource,
    namespace: Option<&str>,
) -> Result<Vec<DynamicObject>, LookError> {
    let what = || match namespace {
        Some(namespace) => format!("listing {} of namespace {namespace:?}", resource.plural),
        None => format!("listing {} of all namespaces", resource.plural),
    };
    let mut found = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = timeout(CALL_TIMEOUT, api.list(&parameters)).await;
        let page = page
            .map_err(|_| late(what()))?
            .map_err(|error| failed(what(), &error))?;
        let next = page.metadata.continue_.clone().unwrap_or_default();
        found.extend(page.items);
        if next.is_empty() {
            return Ok(found);
        }
        parameters = parameters.continue_token(&next);
    }
}

fn failed(what: String, error: &kube::Error) -> LookError {
    match error {
        kube::Error::Api(status) if status.code == 403 => LookError::Forbidden {
            what,
            message: status.message.clone(),
        },
        kube::Error::Api(status) if status.code == 404 => LookError::NoKind { what },
        error => LookError::Failed {
            what,
            message: error.to_string(),
        },
    }
}

fn late(what: String) -> LookError {
    LookError::Failed {
        what,
        message: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
    }
}

/// Whether an operator should have looked at it by now, and none did.
fn is_unseen(object: &DynamicObject, now: Timestamp) -> bool {
    let created = object.metadata.creation_timestamp.as_ref();
    let is_new = created
        .is_none_or(|created| now.duration_since(created.0).unsigned_abs() < LOOKED_AT_AFTER);
    !is_new && object.data.pointer("/status/conditions").is_none()
}

/// As somebody would write it.
fn manifest(resource: &ApiResource, object: DynamicObject) -> Value {
    let metadata = &object.metadata;
    let mut manifest = serde_json::json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "creationTimestamp": metadata.creation_timestamp,
            "generation": metadata.generation,
        },
    });
    if let Some(spec) = object.data.get("spec") {
        manifest["spec"] = spec.clone();
    }
    manifest
}

/// Names of the pools of a namespace, those that cannot be read too.
fn pools(world: &NamespaceInputs) -> BTreeSet<String> {
    let broken = world.broken.keys();
    let broken = broken.filter(|object| object.kind == Kind::EdgePool);
    let broken = broken.map(|object| object.name.clone());
    world
        .pools
        .iter()
        .map(ResourceExt::name_any)
        .chain(broken)
        .collect()
}

fn references(world: &NamespaceInputs) -> References {
    let mut references = References::default();
    for pool in &world.pools {
        references.add_pool(pool);
    }
    for partner in &world.partners {
        references.add_partner(partner);
    }
    for policy in &world.policies {
        references.add_policy(policy);
    }
    let keys = pools(world);
    let keys = keys.iter().map(|pool| peer_keys::name_of(pool));
    references.config_maps.extend(keys);
    references
}
