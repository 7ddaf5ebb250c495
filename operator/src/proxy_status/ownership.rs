//! Whose a pod is. Labels are anybody's to write: a pod is of a pool where its owner references lead to
//! that very pool, through what the watches hold of its Deployments and their ReplicaSets.
//!
//! A pod that is not is never asked, nor given a token, nor counted. Who may make pods in a namespace can
//! read its Secrets anyway: this keeps copies and other people's pods apart, not intruders.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt};

use super::POOL_LABEL;
use crate::runtime::{caches::Caches, store::ObjectStore};

/// The pods of a pool, whatever their state.
#[must_use]
pub fn pods_of(caches: &Caches, namespace: &str, pool: &str) -> Vec<Arc<Pod>> {
    let mut pods = caches.pods.in_namespace(namespace);
    pods.retain(|pod| pool_of(caches, pod).as_deref() == Some(pool));
    pods
}

/// Name of the pool that a pod was made for.
#[must_use]
pub fn pool_of(caches: &Caches, pod: &Pod) -> Option<String> {
    let namespace = pod.namespace()?;
    let pool = pod.labels().get(POOL_LABEL)?;
    let owner = controller(&pod.metadata)?;
    let leads = |owner: &OwnerReference| match owner.kind.as_str() {
        "EdgePool" => is(&caches.pools, &namespace, pool, &owner.uid),
        "Deployment" => {
            let deployment = held(&caches.deployments, &namespace, owner)?;
            let owner = controller(&deployment.metadata)?;
            is(&caches.pools, &namespace, pool, &owner.uid)
        }
        _ => None,
    };
    if owner.kind == "ReplicaSet" {
        let set = held(&caches.replica_sets, &namespace, owner)?;
        leads(controller(&set.metadata)?)?;
    } else {
        leads(owner)?;
    }
    Some(pool.clone())
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.next()
}

/// The object that a reference names, not another of its name.
fn held<K: Resource>(
    store: &ObjectStore<K>,
    namespace: &str,
    owner: &OwnerReference,
) -> Option<Arc<K>> {
    let found = store.get(namespace, &owner.name)?;
    (found.meta().uid.as_ref() == Some(&owner.uid)).then_some(found)
}

fn is<K: Resource>(store: &ObjectStore<K>, namespace: &str, name: &str, uid: &str) -> Option<()> {
    let found = store.get(namespace, name)?;
    (found.meta().uid.as_deref() == Some(uid)).then_some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn enter<K: Resource + DeserializeOwned>(store: &ObjectStore<K>, object: Value) {
        store.created(serde_json::from_value(object).unwrap(), store.epoch());
    }

    fn owned(kind: &str, name: &str, owner: Option<(&str, &str)>) -> Value {
        let owner = owner.map(|(kind, name)| {
            json!({"apiVersion": "v1", "kind": kind, "name": name,
            "uid": format!("uid of {kind} {name}"), "controller": true})
        });
        let version = if kind == "Pod" { "v1" } else { "apps/v1" };
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "n",
            "uid": format!("uid of {kind} {name}"), "resourceVersion": "1",
            "labels": {POOL_LABEL: "hq"}, "ownerReferences": owner.into_iter().collect::<Vec<_>>()}})
    }

    #[test]
    fn a_pod_is_of_the_pool_that_its_owners_lead_to_whatever_its_labels_say() {
        let caches = Caches::new().0;
        for pool in ["hq", "dr"] {
            let mut object = owned("EdgePool", pool, None);
            object["apiVersion"] = json!("xmpp-edge.dev/v1alpha1");
            enter(&caches.pools, object);
            let of = Some(("EdgePool", pool));
            enter(&caches.deployments, owned("Deployment", pool, of));
            let of = Some(("Deployment", pool));
            enter(&caches.replica_sets, owned("ReplicaSet", pool, of));
        }
        let theirs = owned("Deployment", "theirs", None);
        enter(&caches.deployments, theirs);
        let of = Some(("Deployment", "theirs"));
        enter(&caches.replica_sets, owned("ReplicaSet", "theirs", of));
        for (owner, expected) in [
            (Some(("ReplicaSet", "hq")), Some("hq")),
            (Some(("Deployment", "hq")), Some("hq")),
            (Some(("EdgePool", "hq")), Some("hq")),
            (None, None),
            (Some(("ReplicaSet", "dr")), None),
            (Some(("EdgePool", "dr")), None),
            (Some(("ReplicaSet", "theirs")), None),
            (Some(("ReplicaSet", "not there")), None),
            (Some(("StatefulSet", "hq")), None),
        ] {
            let pod: Pod = serde_json::from_value(owned("Pod", "p", owner)).unwrap();
            assert_eq!(pool_of(&caches, &pod).as_deref(), expected, "{owner:?}");
        }
        let mut other = owned("Pod", "p", Some(("ReplicaSet", "hq")));
        other["metadata"]["ownerReferences"][0]["uid"] = json!("of one before");
        let pod: Pod = serde_json::from_value(other).unwrap();
        assert_eq!(pool_of(&caches, &pod), None, "the names alone agree");
    }
}
