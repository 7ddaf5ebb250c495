//! The finalizer, and the annotation that remembers where records may be.

use std::time::Duration;

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::EventType,
};
use serde_json::json;
use xmpp_edge_crds::kinds::EdgePool;

use super::RETRY;
use crate::{
    cluster::{Context, metrics::DnsFailure},
    dns::Memory,
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
    memory: Option<&Memory>,
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

/// Lets a pool go with records left behind, and says which.
pub async fn let_go(
    context: &Context,
    namespace: &str,
    pool: &EdgePool,
    why: &str,
) -> Option<Duration> {
    let name = pool.name_any();
    let left: Vec<String> = remembered(pool)
        .places
        .iter()
        .map(ToString::to_string)
        .collect();
    let left = crate::compile::world::listed(left);
    let note = format!("EdgePool {name:?} goes with records left in DNS, {why}: {left}");
    tracing::error!(namespace, pool = name, "{note}");
    context
        .metrics
        .dns_failures
        .get_or_create(&DnsFailure {
            namespace: namespace.to_owned(),
            pool: name.clone(),
            reason: "RecordsLeft".to_owned(),
        })
        .inc();
    let reference = pool.object_ref(&());
    context
        .events
        .publish(
            &reference,
            EventType::Warning,
            "RecordsLeft",
            &note,
            "Delete",
        )
        .await;
    match mark(&context.client, namespace, pool, None).await {
        Ok(()) => None,
        Err(error) => {
            tracing::warn!(namespace, pool = name, %error, "the finalizer could not be removed; it is tried again");
            Some(RETRY)
        }
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
pub fn remembered(pool: &EdgePool) -> Memory {
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
