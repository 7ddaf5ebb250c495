//! Writing what was planned: only what differs, by server-side apply with one field manager.
//!
//! An object carries a print of what was applied, so that a field that is no longer wanted is seen
//! as well as one that somebody changed; what the API server writes its own way is remembered, and
//! not applied again. Secrets are written whole instead, on exactly the form that was read: apply
//! can neither refuse to replace nor leave out what an earlier form had.

mod attempt;
mod contention;
mod error;
mod secret;

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::DynamicObject,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use xmpp_edge_crds::kinds::EdgePool;

pub use error::ApplyError;

use self::{
    attempt::{FailedWrites, fingerprint},
    contention::{Contended, Rewriter, Rewritten},
    error::call,
};
use super::{
    cert_manager::{CertificateSeen, Certificates},
    plan::{Child, ChildKind, metadata},
    read,
};
use crate::{
    controllers::namespace::snapshot::Context,
    proxy_status::ownership::pods_of,
    runtime::{
        at_once::at_once,
        decoded::Decoded,
        store::{AnswerStore, UnreadError},
    },
    secrets::store::SecretData,
};

/// The one manager of fields of a pool's objects.
pub const MANAGER: &str = "xmpp-edge-operator";
/// Annotation of an object: print of what was applied.
pub(super) const APPLIED: &str = "xmpp-edge.dev/applied";
/// Annotation of a pod: print of what it mounts. A change of it makes the kubelet look at once,
/// which it else does every minute.
const MOUNTED: &str = "xmpp-edge.dev/mounted";
/// Annotation by which cert-manager marks a Secret with the Certificate's name.
const OF_CERTIFICATE: &str = "cert-manager.io/certificate-name";
/// Pods of a pool told at a time to look at their volumes.
const PODS_AT_ONCE: usize = 16;

/// What was applied last, and what came of it, by kind, namespace and name.
#[derive(Debug, Default)]
pub struct AppliedHashes {
    objects: Mutex<HashMap<ChildKey, Outcome>>,
    contended: Contended,
    failed: FailedWrites,
}

/// A child: kind, namespace, name.
type ChildKey = (ChildKind, String, String);

impl AppliedHashes {
    /// Forgets what pools of a namespace that are gone had: who finds an object of that name looks anew
    /// whose it is.
    pub fn forget(&self, namespace: &str, exists: impl Fn(&str) -> bool + Copy) {
        let mut objects = self.objects.lock();
        objects.retain(|(_, of, _), outcome| of != namespace || exists(&outcome.pool));
        self.contended.retain(|key| objects.contains_key(key));
        self.failed.forget(namespace, exists);
    }

    /// When what is held back of a pool may be tried again.
    #[must_use]
    pub fn retry(&self, namespace: &str, pool: &str) -> Option<Duration> {
        self.failed.next(namespace, pool, Instant::now())
    }
}

/// Prints of what was wanted and of the object that came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    pool: String,
    /// resourceVersion of the answer, where it is a number.
    version: Option<u64>,
    wanted: String,
    observed_hash: String,
}

/// Writes objects of one pool.
#[derive(Debug)]
pub struct Applier<'a> {
    pub context: &'a Context,
    pub applied: &'a AppliedHashes,
    pub certificates: &'a Certificates,
    /// Their owner, by its metadata: one that cannot be decoded owns its objects too.
    pub pool: &'a Decoded<EdgePool>,
    pub namespace: &'a str,
}

impl Applier<'_> {
    fn api(&self, kind: ChildKind) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.context.client.clone(),
            self.namespace,
            &kind.resource(),
        )
    }

    /// Applies a child where it differs from what is there; says whether it did.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn child(&self, child: &Child) -> Result<bool, ApplyError> {
        let (kind, name) = (child.kind(), child.name());
        let what = || format!("{kind:?} {name:?}");
        let json = |source| ApplyError::Json {
            what: what(),
            source: Arc::new(source),
        };
        let mut manifest = child.manifest().map_err(json)?;
        let wanted = print_of(&manifest);
        manifest["metadata"]["annotations"][APPLIED] = Value::from(wanted.as_str());
        let (held, watched) = self.observed(kind, name)?;
        let key = (kind, self.namespace.to_owned(), name.to_owned());
        let last = self.applied.objects.lock().get(&key).cloned();
        if !is_needed(&manifest, &wanted, held.as_ref(), last.as_ref(), watched) {
            return Ok(false);
        }
        if let (Some(by), Some(held)) = (rewriter(&wanted, held.as_ref(), last.as_ref()), &held)
            && let Rewritten::LeaveAlone { news } =
                self.applied.contended.seen(&key, by, Instant::now())
        {
            let error = match by {
                Rewriter::Operator => ApplyError::Contended { what: what() },
                Rewriter::Somebody => disputed(kind, what(), held, &manifest),
            };
            if news {
                self.tell_contention(&error).await;
            }
            return Err(error);
        }
        let since = self.store(kind).map(AnswerStore::epoch);
        let over = held.as_ref().map(|held| print_of(&settled(held.clone())));
        let this = fingerprint(&["apply", &wanted, over.as_deref().unwrap_or_default()]);
        let write = async {
            if held.is_none() && last.is_none() {
                self.refuse_foreign(child).await?;
            }
            let parameters = PatchParams::apply(MANAGER).force();
            let patch = Patch::Apply(&manifest);
            let api = self.api(kind);
            call(what, Some(kind), api.patch(name, &parameters, &patch)).await
        };
        let mut object = self.attempt(&what(), this, write).await?;
        object.metadata.managed_fields = None;
        let value = serde_json::to_value(&object).map_err(json)?;
        let observed_hash = print_of(&settled(value.clone()));
        self.applied.objects.lock().insert(
            key,
            Outcome {
                pool: self.pool.name_any(),
                version: version(&value),
                wanted,
                observed_hash,
            },
        );
        // The next look must not find the form before.
        if let (Some(store), Some(since)) = (self.store(kind), since) {
            store.created_json(value, since);
        }
        tracing::info!(namespace = self.namespace, ?kind, name, "applied");
        Ok(true)
    }

    /// An object as the watches last saw it, and whether they would have seen it.
    fn observed(&self, kind: ChildKind, name: &str) -> Result<(Option<Value>, bool), UnreadError> {
        if kind != ChildKind::Certificate {
            let held = read::observed(&self.context.caches, kind, self.namespace, name)?;
            return Ok((held, true));
        }
        let seen = self.certificates.seen(self.namespace, name);
        Ok(match seen {
            CertificateSeen::NotWatched => (None, false),
            CertificateSeen::Absent => (None, true),
            CertificateSeen::There(held) => (serde_json::to_value(held.as_ref()).ok(), true),
        })
    }

    /// An object of this name that is not ours is left alone.
    async fn refuse_foreign(&self, child: &Child) -> Result<(), ApplyError> {
        let (kind, name) = (child.kind(), child.name());
        let what = || format!("{kind:?} {name:?}");
        let api = self.api(kind);
        let Some(there) = call(what, Some(kind), api.get_metadata_opt(name)).await? else {
            return Ok(());
        };
        let ours = is_ours(there.labels(), there.owner_references(), self.pool);
        // One for the namespace: whoever made it, its content is ours.
        if ours || name == super::plan::names::INTERNAL_CA {
            Ok(())
        } else {
            Err(ApplyError::Foreign { what: what() })
        }
    }

    /// Where answers about a kind's children are entered; Secrets have a way of their own.
    fn store(&self, kind: ChildKind) -> Option<&dyn AnswerStore> {
        let caches = &self.context.caches;
        Some(match kind {
            ChildKind::Secret => return None,
            ChildKind::Certificate => self.certificates.store(),
            ChildKind::ConfigMap => &caches.config_maps,
            ChildKind::NetworkPolicy => &caches.network_policies,
            ChildKind::PodDisruptionBudget => &caches.disruption_budgets,
            ChildKind::Service => &caches.services,
            ChildKind::PersistentVolumeClaim => &caches.volumes,
            ChildKind::Deployment => &caches.deployments,
        })
    }

    /// Only the number of pods, while their template has to wait.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn replicas(&self, name: &str, replicas: i32) -> Result<(), ApplyError> {
        let held = self.context.caches.deployments.get(self.namespace, name);
        let has = held.and_then(|held| held.spec.as_ref()?.replicas);
        if has.is_none_or(|has| has == replicas) {
            return Ok(());
        }
        let kind = ChildKind::Deployment;
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.api(kind);
        let what = || format!("{kind:?} {name:?}");
        let this = fingerprint(&["scale", &replicas.to_string()]);
        let write = call(what, Some(kind), api.patch(name, &parameters, &patch));
        self.attempt(&what(), this, write).await?;
        Ok(())
    }

    /// Deletes an object of this pool that is there and no longer wanted.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn delete(&self, kind: ChildKind, name: &str) -> Result<(), ApplyError> {
        let what = || format!("{kind:?} {name:?}");
        let api = self.api(kind);
        let uid = if kind == ChildKind::Certificate {
            if !self.may_have_certificate(name) {
                return Ok(());
            }
            let there = call(what, Some(kind), api.get_metadata_opt(name)).await;
            match there {
                Ok(Some(there)) if owns(self.pool, there.owner_references()) => there.uid(),
                Ok(_) | Err(ApplyError::KindMissing { .. }) => None,
                Err(error) => return Err(error),
            }
        } else {
            let held = read::observed(&self.context.caches, kind, self.namespace, name)?;
            let held = held.and_then(|held| serde_json::from_value::<DynamicObject>(held).ok());
            held.filter(|held| owns(self.pool, held.owner_references()))
                .and_then(|held| held.uid())
        };
        let key = (kind, self.namespace.to_owned(), name.to_owned());
        self.applied.objects.lock().remove(&key);
        let Some(uid) = uid else {
            return Ok(());
        };
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let this = fingerprint(&["delete", &uid]);
        let write = call(what, Some(kind), api.delete(name, &parameters));
        let gone = match self.attempt(&what(), this, write).await {
            // One with a finalizer is there still: the watch tells when it is not.
            Ok(answer) => answer.is_right(),
            Err(error) if error.is_absent() => true,
            Err(error) => return Err(error),
        };
        if let (true, Some(store)) = (gone, self.store(kind)) {
            store.deleted(self.namespace, name, &uid);
        }
        tracing::info!(namespace = self.namespace, ?kind, name, "deleted");
        Ok(())
    }

    /// Whether there can be a Certificate of this pool: we applied one, or its Secret says so.
    /// Certificates are watched only where one was applied, and need not be installed.
    fn may_have_certificate(&self, name: &str) -> bool {
        let key = (
            ChildKind::Certificate,
            self.namespace.to_owned(),
            name.to_owned(),
        );
        let pair = super::plan::names::pair(&self.pool.name_any());
        let secret = self.context.caches.secrets.last_read(self.namespace, &pair);
        self.applied.objects.lock().contains_key(&key)
            || secret.is_some_and(|secret| {
                secret.annotations().get(OF_CERTIFICATE).map(String::as_str) == Some(name)
            })
    }

    /// Lets the kubelets of the pool's pods look at once, where pods do not have `print` yet.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn trigger_volume_sync(&self, print: &str) -> Result<(), ApplyError> {
        let pool = self.pool.name_any();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), self.namespace);
        let patch = json!({ "metadata": { "annotations": { MOUNTED: print } } });
        let patch = Patch::Merge(patch);
        let lacks_it = |pod: &Arc<Pod>| {
            let has = pod.annotations().get(MOUNTED);
            has.is_none_or(|has| has != print) && pod.metadata.deletion_timestamp.is_none()
        };
        let mut pods = pods_of(&self.context.caches, self.namespace, &pool);
        pods.retain(lacks_it);
        let (api, patch) = (&api, &patch);
        let writes = pods.iter().map(|pod| async {
            let name = pod.name_any();
            let parameters = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let what = || format!("Pod {name:?}");
            let write = call(what, None, api.patch(&name, &parameters, patch));
            let this = fingerprint(&["sync", print]);
            match self.attempt(&what(), this, write).await {
                Ok(mut pod) => {
                    pod.metadata.managed_fields = None;
                    self.context.caches.pods.updated(pod);
                    Ok(())
                }
                Err(error) if error.is_absent() => Ok(()),
                Err(error) => Err(error),
            }
        });
        at_once(PODS_AT_ONCE, writes).await.into_iter().collect()
    }
}

/// Print of what pods mount: the document's generation and the data of Secrets. Every pool mounts
/// keys, so that nothing can be guessed from it.
#[must_use]
pub fn print_of_mounted(generation: u64, mounted: &[SecretData]) -> String {
    let mut text = zeroize::Zeroizing::new(generation.to_be_bytes().to_vec());
    for material in mounted {
        for (key, value) in material {
            for part in [key.as_bytes(), value] {
                text.extend((part.len() as u64).to_be_bytes());
                text.extend(part);
            }
        }
        text.push(0);
    }
    short_hash(&text)
}

/// SHA-256, shortened, in hex.
fn short_hash(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    HEXLOWER.encode(&hash.as_ref()[..16])
}

/// SHA-256 over JSON, shortened; keys are sorted, so that equal values have equal prints.
pub(super) fn print_of(value: &Value) -> String {
    short_hash(value.to_string().as_bytes())
}

/// The object without what changes by itself.
fn settled(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["resourceVersion", "generation", "managedFields"] {
                metadata.remove(field);
            }
        }
    }
    value
}

/// The print that an object carries of what was applied.
fn applied_by(held: &Value) -> Option<&str> {
    let annotation = format!("/metadata/annotations/{}", APPLIED.replace('/', "~1"));
    held.pointer(&annotation)?.as_str()
}

fn version(object: &Value) -> Option<u64> {
    let version = object.pointer("/metadata/resourceVersion")?;
    version.as_str()?.parse().ok()
}

/// Who changed what this process applied and still wants, where somebody did: another operator left its own print,
/// people and controllers left ours.
fn rewriter(wanted: &str, held: Option<&Value>, last: Option<&Outcome>) -> Option<Rewriter> {
    let (held, last) = (held?, last?);
    let changed = last.wanted == wanted && version(held) > last.version;
    let by = match applied_by(held)? {
        print if print == wanted => Rewriter::Somebody,
        _ => Rewriter::Operator,
    };
    changed.then_some(by)
}

/// What is said of an object that somebody changes again and again.
fn disputed(kind: ChildKind, what: String, held: &Value, manifest: &Value) -> ApplyError {
    let field = first_not_covered(held, manifest).unwrap_or_default();
    let remedy = match (kind, field.as_str()) {
        (ChildKind::Deployment, "spec.replicas") => "scale the EdgePool, not its Deployment",
        _ => "set it in the EdgePool, or keep whatever else sets it from this object",
    };
    ApplyError::Disputed {
        what,
        field,
        remedy,
    }
}

fn is_needed(
    manifest: &Value,
    wanted: &str,
    held: Option<&Value>,
    last: Option<&Outcome>,
    watched: bool,
) -> bool {
    let applied_before = last.is_some_and(|last| last.wanted == wanted);
    let Some(held) = held else {
        // What is not watched is applied once by each process.
        return watched || !applied_before;
    };
    if applied_by(held) == Some(wanted) && covers(held, manifest) {
        return false;
    }
    let unchanged = || {
        let is = print_of(&settled(held.clone()));
        last.is_some_and(|last| last.observed_hash == is)
    };
    !(applied_before && unchanged())
}

/// Whether an object has all that is wanted; it may have more. An empty list or map is the same as
/// none.
fn covers(held: &Value, wanted: &Value) -> bool {
    match (held, wanted) {
        (Value::Object(held), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            held.get(key)
                .map_or_else(|| is_nothing(wanted), |held| covers(held, wanted))
        }),
        (Value::Array(held), Value::Array(wanted)) => wanted
            .iter()
            .all(|wanted| held.iter().any(|held| covers(held, wanted))),
        (held, wanted) => held == wanted,
    }
}

/// Where an object has something else than is wanted: the first such field.
fn first_not_covered(held: &Value, wanted: &Value) -> Option<String> {
    let (Value::Object(held), Value::Object(wanted)) = (held, wanted) else {
        return (!covers(held, wanted)).then(String::new);
    };
    wanted.iter().find_map(|(key, wanted)| {
        let held = held.get(key).unwrap_or(&Value::Null);
        if is_nothing(wanted) && is_nothing(held) {
            return None;
        }
        let rest = first_not_covered(held, wanted)?;
        let point = if rest.is_empty() { "" } else { "." };
        Some(format!("{key}{point}{rest}"))
    })
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn owns(pool: &impl ResourceExt, owners: &[OwnerReference]) -> bool {
    let uid = pool.uid();
    owners.iter().any(|owner| Some(&owner.uid) == uid.as_ref())
}

fn is_ours(
    labels: &std::collections::BTreeMap<String, String>,
    owners: &[OwnerReference],
    pool: &impl ResourceExt,
) -> bool {
    let managed = labels
        .get("app.kubernetes.io/managed-by")
        .map(String::as_str);
    managed == Some(metadata::MANAGED_BY) || owns(pool, owners)
}

#[cfg(test)]
mod tests;
