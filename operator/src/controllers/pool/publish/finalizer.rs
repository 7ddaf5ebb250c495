//! The finalizer, and the annotation that remembers where records may be.

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::EventType,
};
use serde_json::json;
use xmpp_edge_crds::kinds::EdgePool;

use crate::{
    dns::DnsMemory,
    runtime::{events::Events, metrics::Metrics},
};

/// Held while records of the pool may be in DNS.
pub const FINALIZER: &str = "xmpp-edge.dev/dns";
/// Annotation: places at which records of the pool may be.
const PLACES: &str = "xmpp-edge.dev/dns-places";
/// Annotation of people: `skip` lets a pool go at once.
const CLEANUP: &str = "xmpp-edge.dev/dns-cleanup";
/// Field manager of the finalizer and the annotation.
const MANAGER: &str = "xmpp-edge-operator/dns";

/// Finalizer and places, by apply: nobody else's finalizer is touched. The uid keeps apply from
/// making the pool anew.
/// # Errors
/// [`kube::Error`].
pub async fn mark(
    client: &Client,
    namespace: &str,
    pool: &EdgePool,
    memory: Option<&DnsMemory>,
) -> Result<(), kube::Error> {
    let name = pool.name_any();
    let mut metadata = json!({ "name": name, "namespace": namespace, "uid": pool.uid() });
    if let Some(memory) = memory {
        let places = serde_json::to_string(memory).map_err(kube::Error::SerdeError)?;
        metadata["finalizers"] = json!([FINALIZER]);
        metadata["annotations"] = json!({ PLACES: places });
    }
    let body = json!({
        "apiVersion": EdgePool::api_version(&()),
        "kind": EdgePool::kind(&()),
        "metadata": metadata,
    });
    let api: Api<kube::core::PartialObjectMeta<EdgePool>> =
        Api::namespaced(client.clone(), namespace);
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

/// A pool on its way out, and what letting it go takes.
pub struct Finalization<'a> {
    pub client: &'a Client,
    pub metrics: &'a Metrics,
    pub events: &'a Events,
    pub namespace: &'a str,
    pub pool: &'a EdgePool,
}

impl Finalization<'_> {
    /// Lets it go with records left behind, and says which. Says whether it went.
    pub async fn leave_records(&self, why: &str) -> bool {
        let name = self.pool.name_any();
        let left: Vec<String> = remembered(self.pool)
            .places
            .iter()
            .map(ToString::to_string)
            .collect();
        let left = crate::compile::world::listed(left);
        let note = format!("EdgePool {name:?} goes with records left in DNS, {why}: {left}");
        tracing::error!(namespace = self.namespace, pool = name, "{note}");
        self.metrics.dns.left(self.namespace, &name);
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
        self.remove_finalizer().await
    }

    /// Lets it go: nothing of it is in DNS any more. Says whether it went.
    pub async fn remove_finalizer(&self) -> bool {
        let done = mark(self.client, self.namespace, self.pool, None).await;
        if let Err(error) = &done {
            tracing::warn!(
                namespace = self.namespace,
                pool = self.pool.name_any(),
                %error,
                "the finalizer could not be removed; it is tried again"
            );
        }
        done.is_ok()
    }
}

/// Whether records of the pool may be in DNS.
#[must_use]
pub fn is_marked(pool: &EdgePool) -> bool {
    pool.finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
}

/// The places of the annotation.
#[must_use]
pub fn remembered(pool: &EdgePool) -> DnsMemory {
    let places = pool.annotations().get(PLACES);
    places
        .and_then(|places| serde_json::from_str(places).ok())
        .unwrap_or_default()
}

/// Whether somebody asks that the pool goes without its records being withdrawn.
#[must_use]
pub fn is_skipped(pool: &EdgePool) -> bool {
    pool.annotations().get(CLEANUP).map(String::as_str) == Some("skip")
}
