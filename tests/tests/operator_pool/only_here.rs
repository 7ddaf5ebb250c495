//! What is wrong with a pool only in a cluster, and that `docs/mistakes.md` lists it.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::EdgePool;
use xmpp_edge_tests::{
    cluster::{Namespace, Operator},
    mistakes, wait,
};

use crate::{SERVER, stage::*};

/// A pool of a domain of its own.
fn alone(namespace: &Namespace<'_>, name: &str, more: Value) -> Value {
    let domain = format!("{name}.{}", domain(namespace));
    let mut wanted = json!({"domains": [domain], "accessEdge": {"fqdn": format!("edge.{domain}"), "addresses": ["192.0.2.1"]},
        "gateways": [{"domains": [domain], "address": "prosody.chat.svc:5269"}]});
    for (field, value) in more.as_object().into_iter().flatten() {
        wanted[field] = value.clone();
    }
    pool(namespace, name, wanted)
}

/// `REASON: MESSAGE` of a condition once it is false for this reason.
async fn said(namespace: &Namespace<'_>, name: &str, kind: &str, reason: &str) -> Result<String> {
    let api: Api<EdgePool> = namespace.api();
    let mut last = Value::Null;
    let found = wait::until("the status says so", SOON, async || {
        last = serde_json::to_value(api.get(name).await.ok()?).ok()?;
        let mut conditions = last["status"]["conditions"].as_array()?.iter();
        let found = conditions.find(|it| it["type"] == kind)?;
        let is_so = found["status"] == "False" && found["reason"] == reason;
        is_so.then(|| {
            format!(
                "{reason}: {}",
                found["message"].as_str().unwrap_or_default()
            )
        })
    });
    let found = found.await;
    found.with_context(|| format!("{kind}, {reason} of {name}: {last:#}"))
}

#[test]
fn what_only_a_cluster_finds_is_listed() {
    SERVER.test(async |namespace| {
        let other = async |suffix: &str| {
            Namespace::new(namespace.server, &format!("{}-{suffix}", namespace.name)).await
        };
        let (damaged, torn) = (other("damaged").await?, other("torn").await?);
        let ca = "xmpp-edge-internal-ca";
        secret(
            &damaged,
            ca,
            json!({"tls.crt": "hello", "tls.key": "hello"}),
        )
        .await?;
        secret(&torn, ca, json!({"tls.crt": "hello"})).await?;
        let theirs = json!({"metadata": {"name": "taken-edge"}, "spec": {"ports": [{"port": 1}]}});
        let services: Api<Service> = namespace.api();
        services
            .create(&PostParams::default(), &serde_json::from_value(theirs)?)
            .await?;
        let allowed = format!("--allowed-domains={0}=kinds.{0}.example", namespace.name);
        let watched =
            [namespace, &damaged, &torn].map(|it| format!("--watch-namespace={}", it.name));
        let mut arguments: Vec<&str> = watched.iter().map(String::as_str).collect();
        arguments.push(&allowed);
        let _operator = Operator::start(namespace, &arguments).await?;

        let cert_manager = json!({"certificate": {"certManager": {"issuerRef": {"name": "ca"}}}});
        let greedy =
            json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}});
        let missing = json!({"secretRef": {"name": "nowhere"}});
        let cases = [
            (
                namespace,
                "kinds",
                cert_manager.clone(),
                "CertificateReady",
                "KindMissing",
            ),
            (
                namespace,
                "beyond",
                cert_manager,
                "CertificateReady",
                "DomainNotAllowed",
            ),
            (namespace, "taken", json!({}), "Ready", "ObjectRefused"),
            (
                namespace,
                "greedy",
                json!({"podTemplate": greedy}),
                "Ready",
                "ObjectRefused",
            ),
            (
                namespace,
                "mute",
                json!({"settings": {"dialbackSecretRef": {"name": "nowhere"}}}),
                "Ready",
                "ReferenceMissing",
            ),
            (
                namespace,
                "lone",
                json!({"contacts": {"postgres": missing}}),
                "Ready",
                "ReferenceMissing",
            ),
            (
                &damaged,
                "hq",
                json!({}),
                "CertificateReady",
                "InvalidCertificate",
            ),
            (
                &torn,
                "hq",
                json!({}),
                "CertificateReady",
                "InvalidCertificate",
            ),
        ];
        let mut messages = Vec::new();
        for (namespace, name, more, ..) in &cases {
            create(namespace, &alone(namespace, name, more.clone())).await?;
        }
        for (namespace, name, _, kind, reason) in &cases {
            messages.push(said(namespace, name, kind, reason).await?);
        }
        mistakes::compare("Only in a cluster", &messages);
        Ok(())
    });
}
