//! The finalizer, and the annotation that remembers where records may be.

use std::fmt;

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::events::EventType,
};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::EdgePool;

use crate::{
    dns::{DnsMemory, DnsMetrics, RecordSource},
    runtime::{caches::Caches, events::Events},
};

/// Held while records of the pool may be in DNS.
pub const FINALIZER: &str = "xmpp-edge.dev/dns";
/// Annotation: places at which records of the pool may be.
const PLACES: &str = "xmpp-edge.dev/dns-places";
/// Annotation: by which server, in whose name; with the uid of the pool that this is true of. A pool
/// that is made from another one's export brings the annotation along, and has no such records.
const SOURCE: &str = "xmpp-edge.dev/dns-source";
/// Annotation of people: `skip` lets a pool go at once.
const CLEANUP: &str = "xmpp-edge.dev/dns-cleanup";
/// Tries to take the finalizer off a list that others change too.
const REMOVALS: u32 = 5;
/// Field manager of the finalizer and the annotation.
const MANAGER: &str = "xmpp-edge-operator/dns";

/// Finalizer and places, by apply: nobody else's finalizer is touched. The uid keeps apply from
/// making the pool anew.
///
/// # Errors
/// [`kube::Error`].
pub async fn mark(
    client: &Client,
    namespace: &str,
    pool: &impl ResourceExt,
    memory: Option<&DnsMemory>,
) -> Result<(), kube::Error> {
    let name = pool.name_any();
    let mut metadata = json!({ "name": name, "namespace": namespace, "uid": pool.uid() });
    if let Some(memory) = memory {
        let places = serde_json::to_string(&memory.places).map_err(kube::Error::SerdeError)?;
        metadata["finalizers"] = json!([FINALIZER]);
        metadata["annotations"] = json!({ PLACES: places });
        if let Some(source) = &memory.source {
            let source = json!({ "uid": pool.uid(), "source": source });
            metadata["annotations"][SOURCE] = json!(source.to_string());
        }
    }
    let body = json!({
        "apiVersion": EdgePool::api_version(&()),
        "kind": EdgePool::kind(&()),
        "metadata": metadata,
    });
    let api: Api<PartialObjectMeta<EdgePool>> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(MANAGER).force();
    match api
        .patch_metadata(&name, &parameters, &Patch::Apply(&body))
        .await
    {
        // It is gone, or another one has its name.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && memory.is_none() => {
            Ok(())
        }
        done => done.map(|_| ()),
    }
}

/// What became of a finalizer that was to be taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It went with this.
    Removed,
    /// The pool has none of ours.
    NotThere,
    /// There is no such pool any more.
    Gone,
}

/// Takes the finalizer off, whoever else applied it: apply would leave it where a backup or an export
/// was applied too. It needs no right but `patch`, which is all that is left of a namespace that is
/// deleted whole.
///
/// # Errors
/// [`kube::Error`]. A pool that is gone, or that another one took the name of, is none.
pub async fn remove(
    api: &Api<PartialObjectMeta<EdgePool>>,
    name: &str,
    uid: Option<&str>,
) -> Result<Removal, kube::Error> {
    let parameters = PatchParams::default();
    let patch = async |operations: Value| {
        let operations = serde_json::from_value(operations).map_err(kube::Error::SerdeError)?;
        let patch = Patch::Json::<()>(operations);
        api.patch_metadata(name, &parameters, &patch).await
    };
    let same = match uid {
        Some(uid) => json!({ "op": "test", "path": "/metadata/uid", "value": uid }),
        None => json!({ "op": "test", "path": "/metadata/name", "value": name }),
    };
    let mut removed = Removal::NotThere;
    for _ in 0..REMOVALS {
        // A patch that changes nothing reads it.
        let now = match patch(json!([same])).await {
            Ok(now) => now,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 422) => {
                // Or it went with the last finalizer before this.
                let gone = removed == Removal::NotThere;
                return Ok(if gone { Removal::Gone } else { removed });
            }
            Err(error) => return Err(error),
        };
        let Some(place) = now.finalizers().iter().position(|it| it == FINALIZER) else {
            break;
        };
        let path = format!("/metadata/finalizers/{place}");
        let done = patch(json!([
            same,
            { "op": "test", "path": path, "value": FINALIZER },
            { "op": "remove", "path": path },
        ]));
        match done.await {
            // One that was there twice is looked for again.
            Ok(_) => removed = Removal::Removed,
            // The last finalizer went with it, and the pool with that.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Removal::Removed),
            // The list changed meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// A pool on its way out, and what letting it go takes. Of the pool only its metadata is asked: it may
/// be one that cannot be decoded.
pub struct Finalization<'a> {
    pub client: &'a Client,
    pub caches: &'a Caches,
    pub metrics: &'a DnsMetrics,
    pub events: &'a Events,
    pub namespace: &'a str,
    pub pool: &'a PartialObjectMeta<EdgePool>,
}

impl fmt::Debug for Finalization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finalization")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Finalization<'_> {
    /// Lets it go with records left behind, and says which, once: who finds that it went already says nothing.
    ///
    /// # Errors
    /// Why it is there still.
    pub async fn leave_records(&self, why: &str) -> Result<(), String> {
        if self.remove_finalizer().await? != Removal::Removed {
            return Ok(());
        }
        let name = self.pool.name_any();
        let left: Vec<String> = remembered(self.pool)
            .places
            .iter()
            .map(ToString::to_string)
            .collect();
        let left = crate::text::listed(left);
        let note = format!("EdgePool {name:?} goes with records left in DNS, {why}: {left}");
        self.metrics.left(self.namespace, &name);
        tracing::error!(namespace = self.namespace, pool = name, "{note}");
        let reference = self.pool.object_ref(&());
        self.events
            .publish(
                &reference,
                EventType::Warning,
                "RecordsLeft",
                &note,
                "Delete",
            )
            .await;
        Ok(())
    }

    /// Lets it go: nothing of it is in DNS any more. A pool that is not there, whose last event was missed, is
    /// forgotten.
    ///
    /// # Errors
    /// Why it is there still.
    pub async fn remove_finalizer(&self) -> Result<Removal, String> {
        let api = Api::namespaced(self.client.clone(), self.namespace);
        let (name, uid) = (self.pool.name_any(), self.pool.uid());
        let done = remove(&api, &name, uid.as_deref()).await;
        if let Ok(Removal::Gone) = done {
            let uid = uid.unwrap_or_default();
            self.caches.forget_pool(self.namespace, &name, &uid);
        }
        done.map_err(|error| match error {
            kube::Error::Api(status) => status.message,
            error => error.to_string(),
        })
    }
}

/// Whether records of the pool may be in DNS.
#[must_use]
pub fn is_marked(pool: &impl ResourceExt) -> bool {
    pool.finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
}

/// What the annotations remember of the pool's records.
#[must_use]
pub fn remembered(pool: &impl ResourceExt) -> DnsMemory {
    #[derive(serde::Deserialize)]
    struct StoredSource {
        uid: Option<String>,
        source: RecordSource,
    }
    let annotations = pool.annotations();
    let places = annotations.get(PLACES);
    let stored: Option<StoredSource> = annotations
        .get(SOURCE)
        .and_then(|text| serde_json::from_str(text).ok());
    DnsMemory {
        places: places
            .and_then(|places| serde_json::from_str(places).ok())
            .unwrap_or_default(),
        source: stored
            .filter(|stored| stored.uid == pool.uid())
            .map(|stored| stored.source),
    }
}

/// Whether somebody asks that the pool goes without its records being withdrawn.
#[must_use]
pub fn is_skipped(pool: &impl ResourceExt) -> bool {
    pool.annotations().get(CLEANUP).map(String::as_str) == Some("skip")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dns::RecordGroup;

    fn pool(uid: &str, annotations: &[(&str, &str)]) -> EdgePool {
        let mut pool: EdgePool = serde_json::from_value(json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
            "metadata": { "name": "hq", "namespace": "edge", "uid": uid },
            "spec": {
                "site": "hq", "domains": ["org.example"],
                "accessEdge": { "fqdn": "edge.org.example" },
                "gateways": [{ "domains": ["org.example"], "address": "a:1" }],
                "certificate": { "selfSigned": {} },
            },
        }))
        .unwrap();
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pool.metadata.annotations = Some(annotations.collect());
        pool
    }

    #[test]
    fn an_owner_id_outlives_the_installation_and_is_not_inherited_by_a_copy_of_the_pool() {
        let source = json!({"uid": "1", "source": {"owner": "old-installation", "rfc2136": {
            "server": "192.0.2.53", "tsigSecretRef": {"name": "tsig"}, "tsigAlgorithm": "HmacSha256"}}});
        let annotations = [
            (PLACES, r#"[{"domain":"org.example"}]"#),
            (SOURCE, &source.to_string()),
        ];
        let memory = remembered(&pool("1", &annotations));
        let places = [RecordGroup::Domain("org.example".to_owned())];
        assert_eq!(memory.places, places.into());
        assert_eq!(memory.source.unwrap().owner, "old-installation");
        assert_eq!(remembered(&pool("2", &annotations)).source, None);
        // As an operator before wrote it.
        let before = remembered(&pool("1", &annotations[..1]));
        assert_eq!((before.places.len(), before.source), (1, None));
    }
}
