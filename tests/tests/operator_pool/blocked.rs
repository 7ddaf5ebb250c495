//! `Ready` of a pool says what keeps it from coming up: a write that fails, pods that are refused,
//! pods that do not start.

use anyhow::{Context, Result};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::{EdgePool, XmppFederatedPartner};
use xmpp_edge_tests::{
    cluster::{Namespace, Operator, pools::condition},
    wait,
};

use crate::{SERVER, stage::*};

/// The pool `hq` once `Ready` says so, with this word.
async fn until_ready_tells(namespace: &Namespace<'_>, said: &str, word: &str) -> Result<()> {
    let api: Api<EdgePool> = namespace.api();
    let mut last = Value::Null;
    let found = wait::until("Ready says why", SOON, async || {
        last = serde_json::to_value(api.get("hq").await.ok()?).ok()?;
        let conditions = last["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|it| it["type"] == "Ready")?;
        let tells = ready["message"].as_str()?.contains(word);
        (tells && condition(&last, "Ready") == said).then_some(())
    })
    .await;
    found.with_context(|| format!("{said} {word:?}, of {last:#}"))
}

/// A webhook that does not answer, for Deployments of this namespace.
fn webhook(namespace: &Namespace<'_>) -> ValidatingWebhookConfiguration {
    let object = json!({
        "metadata": {"name": format!("nowhere-{}", namespace.name)},
        "webhooks": [{
            "name": "nowhere.example.com",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        }],
    });
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_webhook_that_does_not_answer_is_named_by_ready_and_let_go_once_it_is_gone() {
    SERVER.test(async |namespace| {
        let hooks: Api<ValidatingWebhookConfiguration> = Api::all(namespace.server.client());
        let hook = webhook(namespace);
        hooks.create(&PostParams::default(), &hook).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        let told = until_ready_tells(namespace, "False, WriteFailed", "nowhere.example.com").await;
        let name = hook.metadata.name.as_deref().unwrap_or_default();
        hooks.delete(name, &DeleteParams::default()).await?;
        told?;
        until(namespace, "hq", |it: &Deployment| Some(it.clone())).await?;
        until_ready_tells(namespace, "False, NoReadyReplica", "no pod is ready").await
    });
}

#[test]
fn what_cannot_be_written_is_not_tried_at_each_look_and_holds_up_nothing_else() {
    /// Partners, each of which has the namespace looked at once more.
    const LOOKS: usize = 20;
    SERVER.test(async |namespace| {
        let hooks: Api<ValidatingWebhookConfiguration> = Api::all(namespace.server.client());
        let hook = webhook(namespace);
        hooks.create(&PostParams::default(), &hook).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        until(namespace, "hq-edge", |it: &Service| it.spec.clone()).await?;
        let mark = namespace.server.audit().mark();
        for number in 0..LOOKS {
            let name = format!("p{number}");
            let partner = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
                "metadata": {"name": name}, "spec": {"domain": format!("{name}.example")}});
            create(namespace, &partner).await?;
            until(namespace, &name, |it: &XmppFederatedPartner| {
                let status = serde_json::to_value(it).ok()?;
                (condition(&status, "Accepted") == "True, Accepted").then_some(())
            })
            .await?;
        }
        let entries = namespace.server.audit().since(mark)?;
        let of = |resource: &str| {
            let writes = entries.iter().filter(|it| {
                it.verb == "patch" && it.concerns(&namespace.name, resource)
            });
            writes.count()
        };
        // Documents were written with each partner; the Deployment waits longer each time.
        let (documents, deployments) = (of("configmaps"), of("deployments"));
        assert!(documents >= LOOKS / 2, "{documents} writes of the document");
        assert!(deployments <= LOOKS / 2, "{deployments} writes of the Deployment");
        let name = hook.metadata.name.as_deref().unwrap_or_default();
        hooks.delete(name, &DeleteParams::default()).await?;
        Ok(())
    });
}

/// Puts a condition into the Deployment's status, as its controller does.
async fn refuse_pods(namespace: &Namespace<'_>, status: &str, words: &str) -> Result<()> {
    let api: Api<Deployment> = namespace.api();
    let patch = json!({"status": {"conditions": [{"type": "ReplicaFailure", "status": status,
        "reason": "FailedCreate", "message": words}]}});
    let patch = Patch::Merge(patch);
    api.patch_status("hq", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// A pod of the pool whose container waits, as its kubelet says.
async fn pod_that_waits(namespace: &Namespace<'_>, reason: &str, words: &str) -> Result<()> {
    let api: Api<Pod> = namespace.api();
    let pools: Api<EdgePool> = namespace.api();
    let owner = pools.get("hq").await?.controller_owner_ref(&());
    let pod = json!({
        "metadata": {"name": "hq-waits", "ownerReferences": [owner], "labels": {
            "app.kubernetes.io/managed-by": "xmpp-edge-operator", "xmpp-edge.dev/pool": "hq"}},
        "spec": {"containers": [{"name": "proxy", "image": "none"}]},
    });
    api.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [{
        "name": "proxy", "image": "none", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": words}},
    }]}});
    api.patch_status("hq-waits", &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

#[test]
fn what_keeps_pods_from_running_is_told_by_ready() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        until(namespace, "hq", |it: &Deployment| Some(it.clone())).await?;
        let quota = "pods \"hq-1\" is forbidden: exceeded quota: q, requested: pods=1";
        refuse_pods(namespace, "True", quota).await?;
        until_ready_tells(namespace, "False, NoReadyReplica", "exceeded quota: q").await?;
        refuse_pods(namespace, "False", "").await?;
        until_ready_tells(namespace, "False, NoReadyReplica", "/readyz").await?;
        pod_that_waits(
            namespace,
            "ImagePullBackOff",
            "Back-off pulling image \"r.example/x:1\"",
        )
        .await?;
        until_ready_tells(
            namespace,
            "False, NoReadyReplica",
            "ImagePullBackOff: Back-off",
        )
        .await
    });
}
