//! Pods that carry a pool's labels and were not made for it.

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{Api, Resource, api::PostParams};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::EdgePool;
use xmpp_edge_tests::{
    cluster::{FakePod, Namespace, Operator},
    wait,
};

use crate::{SERVER, stage::*};

/// A ReplicaSet with the labels of the pool `hq`, as the controller of Deployments would make it; no such
/// controller runs. The reference to it.
async fn replica_set(
    namespace: &Namespace<'_>,
    name: &str,
    owner: Option<&Deployment>,
) -> Result<Value> {
    let labels =
        json!({"app.kubernetes.io/managed-by": "xmpp-edge-operator", "xmpp-edge.dev/pool": "hq"});
    let owner = owner.and_then(|owner| owner.controller_owner_ref(&()));
    let object = json!({
        "metadata": {"name": name, "labels": labels, "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "proxy", "image": "none"}]}}},
    });
    let api: Api<ReplicaSet> = namespace.api();
    let made = api
        .create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    let reference = made.controller_owner_ref(&()).context("it has a uid")?;
    Ok(serde_json::to_value(reference)?)
}

#[test]
fn a_stranger_s_pod_with_the_labels_of_a_pool_is_neither_asked_nor_counted() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        let deployment = until(namespace, "hq", |it: &Deployment| Some(it.clone())).await?;
        let ours = replica_set(namespace, "hq-1", Some(&deployment)).await?;
        let theirs = replica_set(namespace, "theirs-1", None).await?;
        let copy = FakePod::start_owned(namespace, "hq", 1_000, None).await?;
        let other = FakePod::start_owned(namespace, "hq", 1_000, Some(theirs)).await?;
        let pod = FakePod::start_owned(namespace, "hq", 1_000, Some(ours)).await?;
        // Strangers' pods came first: rounds that ask this one would have asked them.
        wait::until("the pool's own pod is asked", SOON, async || {
            (pod.asked() > 1).then_some(())
        })
        .await?;
        until(namespace, "hq", |it: &EdgePool| {
            let config = it.status.as_ref()?.config.as_ref()?;
            (config.pods_in_sync == 1).then_some(())
        })
        .await?;
        assert_eq!((copy.asked(), other.asked()), (0, 0));
        Ok(())
    });
}
