//! Labels and owners of a pool's objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

/// `app.kubernetes.io/managed-by` of everything that is planned: what watches select by.
pub const MANAGED_BY: &str = "xmpp-edge-operator";
/// Label with the pool's name.
pub const POOL_LABEL: &str = "xmpp-edge.dev/pool";

const NAME_LABEL: &str = "app.kubernetes.io/name";
const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
const NAME: &str = "xmpp-edge-proxy";

/// What selects a pool's pods; it never changes.
#[must_use]
pub fn selector(pool: &str) -> BTreeMap<String, String> {
    labelled([(NAME_LABEL, NAME), (INSTANCE_LABEL, pool)])
}

/// The same, as text of a label selector: `status.selector`.
#[must_use]
pub fn selector_text(pool: &str) -> String {
    selector(pool)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// The selector as objects hold it.
#[must_use]
pub fn label_selector(pool: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector(pool)),
        ..LabelSelector::default()
    }
}

/// Labels of every object of a pool, its pods included.
#[must_use]
pub fn labels(pool: &str) -> BTreeMap<String, String> {
    let mut labels = shared_labels();
    labels.extend(selector(pool));
    labels.insert(POOL_LABEL.to_owned(), pool.to_owned());
    labels
}

/// Labels of what belongs to the namespace as a whole.
#[must_use]
pub fn shared_labels() -> BTreeMap<String, String> {
    labelled([
        ("app.kubernetes.io/component", "edge"),
        ("app.kubernetes.io/part-of", "xmpp-edge"),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
    ])
}

fn labelled<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The pool as the owner of what goes when it goes; `None` where it is no object of a cluster yet
/// (`render`). Its metadata say it, of one that cannot be decoded too.
#[must_use]
pub fn owner(pool: &impl Resource<DynamicType = ()>) -> Option<OwnerReference> {
    pool.controller_owner_ref(&())
}

/// Adds what a pool wants on an object beside the operator's own labels, which win.
pub fn add(
    metadata: &mut ObjectMeta,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) {
    let own = metadata.labels.get_or_insert_default();
    for (key, value) in labels {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if !annotations.is_empty() {
        let own = metadata.annotations.get_or_insert_default();
        own.extend(annotations.clone());
    }
}

/// Metadata of an object that goes with the pool.
#[must_use]
pub fn owned(pool: &impl Resource<DynamicType = ()>, name: String) -> ObjectMeta {
    ObjectMeta {
        owner_references: owner(pool).map(|owner| vec![owner]),
        ..kept(pool, name)
    }
}

/// Metadata of an object that outlives the pool: one of the same name takes it up again.
#[must_use]
pub fn kept(pool: &impl Resource<DynamicType = ()>, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: pool.namespace(),
        labels: Some(labels(&pool.name_any())),
        ..ObjectMeta::default()
    }
}
