//! Pools that publish at a primary, their pods' readiness, and waiting for what DNS answers.

use anyhow::{Context, Result};
use hickory_proto::rr::RecordType;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::EdgePool;
pub use xmpp_edge_tests::cluster::pools::{SOON, create, edit, secret, until, until_says};
use xmpp_edge_tests::{
    cluster::Namespace,
    primary::{EDITOR, Primary, SECRET},
    wait,
};

/// Secret with the TSIG key.
pub const KEY: &str = "tsig";
/// Reason and message are of this condition.
pub const PUBLISHED: &str = "DnsPublished";

/// An own domain, and zone, that no other test has.
pub fn domain(namespace: &Namespace<'_>) -> String {
    format!("{}.example", namespace.name)
}

/// A pool of `domain` named as its site, `<name>.<domain>` in DNS, with these fields of its spec beside
/// the least that it needs.
pub fn pool(domain: &str, name: &str, more: Value) -> Value {
    let mut pool = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": name},
        "spec": {"site": name, "domains": [domain], "replicas": 1,
            "accessEdge": {"fqdn": format!("{name}.{domain}"), "addresses": ["192.0.2.1"]},
            "gateways": [{"domains": [domain], "address": "prosody.chat.svc:5269"}],
            "certificate": {"selfSigned": {}}}});
    let spec = pool["spec"].as_object_mut().unwrap();
    spec.extend(more.as_object().unwrap().clone());
    pool
}

/// `spec.dns` for a primary.
pub fn at(primary: &Primary) -> Value {
    json!({"rfc2136": {"server": primary.address().to_string(), "tsigSecretRef": {"name": KEY}}})
}

/// Writes the Secret as the primary has it.
pub async fn key(namespace: &Namespace<'_>) -> Result<()> {
    secret(namespace, KEY, json!({"name": EDITOR, "secret": SECRET})).await
}

/// Says of every pod of a pool whether it is ready, as the kubelet would, until its Deployment counts
/// it so and no rollout is under way.
pub async fn pods_are(namespace: &Namespace<'_>, pool: &str, ready: bool) -> Result<()> {
    let pods: Api<Pod> = namespace.api();
    let deployments: Api<Deployment> = namespace.api();
    let ours = ListParams::default().labels(&format!("xmpp-edge.dev/pool={pool}"));
    let parameters = PatchParams::default();
    let state = if ready { "True" } else { "False" };
    let status =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": state}]}});
    wait::until(&format!("{pool}: ready is {ready}"), SOON, async || {
        for pod in pods.list(&ours).await.ok()?.items {
            let (name, patch) = (pod.name_any(), Patch::Merge(&status));
            // It may be on its way out.
            let _ = pods.patch_status(&name, &parameters, &patch).await;
        }
        let deployment = deployments.get_opt(pool).await.ok()??;
        let counted = deployment.status?;
        let now = counted.observed_generation == deployment.metadata.generation
            && counted.replicas == Some(1)
            && counted.updated_replicas == Some(1)
            && counted.ready_replicas.unwrap_or(0) == i32::from(ready);
        now.then_some(())
    })
    .await
}

/// Waits until a condition's message has this; the message then.
pub async fn until_told(
    namespace: &Namespace<'_>,
    name: &str,
    kind: &str,
    said: &str,
) -> Result<String> {
    until(namespace, name, |pool: &EdgePool| {
        let conditions = &pool.status.as_ref()?.conditions;
        let found = conditions.iter().find(|it| it.type_ == kind)?;
        found.message.contains(said).then(|| found.message.clone())
    })
    .await
    .with_context(|| format!("{kind}: {said:?}"))
}

/// What the load balancer of a pool has, as a cloud would write it.
pub async fn balancer_has(namespace: &Namespace<'_>, pool: &str, ips: &[&str]) -> Result<()> {
    let name = format!("{pool}-edge");
    until(namespace, &name, |_: &Service| Some(())).await?;
    let ingress: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    let services: Api<Service> = namespace.api();
    services
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// The message of a condition.
pub fn message(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|it| it["type"] == kind).unwrap();
    found["message"].as_str().unwrap_or_default().to_owned()
}

/// `_xmpp-server` of a domain.
pub fn starttls(domain: &str) -> String {
    format!("_xmpp-server._tcp.{domain}")
}

/// `_xmpps-server` of a domain.
pub fn direct(domain: &str) -> String {
    format!("_xmpps-server._tcp.{domain}")
}

/// Waits until the primary answers just these records.
pub async fn until_answers(
    primary: &Primary,
    name: &str,
    kind: RecordType,
    expected: &[&str],
) -> Result<()> {
    let mut last = None;
    let found = wait::until(&format!("{name} is so"), SOON, async || {
        let found = primary.records(name, kind).await.ok()?;
        let right = found == expected;
        last = Some(found);
        right.then_some(())
    })
    .await;
    found.with_context(|| format!("{name} {kind}: {last:?}, not {expected:?}"))
}

/// Waits until `_xmpp-server` of the domain leads to these FQDNs, which are in alphabetical order.
pub async fn until_leads_to(primary: &Primary, domain: &str, expected: &[&str]) -> Result<()> {
    let name = starttls(domain);
    let mut last = Vec::new();
    let found = wait::until(&format!("{name} is so"), SOON, async || {
        last = targets(primary, domain).await.ok()?;
        (last == expected).then_some(())
    })
    .await;
    found.with_context(|| format!("{name}: {last:?}, not {expected:?}"))
}

/// The targets of `_xmpp-server` of the domain, in alphabetical order, without the last dot.
pub async fn targets(primary: &Primary, domain: &str) -> Result<Vec<String>> {
    let records = primary.records(&starttls(domain), RecordType::SRV).await?;
    let targets = records
        .iter()
        .filter_map(|record| record.rsplit(' ').next());
    let mut targets: Vec<String> = targets
        .map(|target| target.trim_end_matches('.').to_owned())
        .collect();
    targets.sort();
    Ok(targets)
}

/// Every record of these names that may be ours or lie beside ours.
pub async fn everything(primary: &Primary, names: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for name in names {
        for kind in [
            RecordType::SRV,
            RecordType::TXT,
            RecordType::A,
            RecordType::AAAA,
        ] {
            let found = primary.records(name, kind).await?;
            all.extend(found.iter().map(|record| format!("{name} {kind} {record}")));
        }
    }
    Ok(all)
}

/// Deletes a pool without waiting.
pub async fn delete(namespace: &Namespace<'_>, name: &str) -> Result<()> {
    let pools: Api<EdgePool> = namespace.api();
    pools.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// Waits until a pool is gone.
pub async fn until_gone(namespace: &Namespace<'_>, name: &str) -> Result<()> {
    let pools: Api<EdgePool> = namespace.api();
    wait::until(&format!("{name} goes"), SOON, async || {
        pools.get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await
}
