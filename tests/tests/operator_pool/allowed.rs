//! `--allowed-domains`: what the operator may ask of DNS, external-dns and cert-manager in a
//! namespace's name. `--allowed-dns-server`: which name servers it connects to.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    cluster::{ApiServer, Namespace, Operator, alone},
    wait,
};

use crate::{SERVER, stage::*};

/// As much of external-dns's definition as the operator writes to.
fn endpoints() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "dnsendpoints.externaldns.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {"group": "externaldns.k8s.io", "scope": "Namespaced",
            "names": {"kind": "DNSEndpoint", "plural": "dnsendpoints", "singular": "dnsendpoint"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    })
}

/// As much of cert-manager's definition as the operator writes to.
fn certificates() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "certificates.cert-manager.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {"group": "cert-manager.io", "scope": "Namespaced",
            "names": {"kind": "Certificate", "plural": "certificates", "singular": "certificate"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    })
}

/// How many objects of somebody else's kind there are.
async fn count(namespace: &Namespace<'_>, kind: &GroupVersionKind, plural: &str) -> Result<usize> {
    let resource = ApiResource::from_gvk_with_plural(kind, plural);
    let client = namespace.client.clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace.name, &resource);
    Ok(api.list(&ListParams::default()).await?.items.len())
}

#[test]
fn nothing_is_asked_for_a_name_that_the_namespace_may_not_have_and_the_status_says_what_to_do() {
    // Of its own: other tests want a server that does not know these kinds.
    alone(async {
        let server = &ApiServer::start().await?;
        server.install_kinds().await?;
        let namespace = &Namespace::new(server, "chat").await?;
        server
            .install(&serde_json::from_value(certificates())?)
            .await?;
        server
            .install(&serde_json::from_value(endpoints())?)
            .await?;
        let key =
            json!({"name": "k.example", "secret": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="});
        secret(namespace, "key", key).await?;
        let allowed = format!("--allowed-domains={}=elsewhere.example", namespace.name);
        let operator = Operator::start(namespace, &[&allowed]).await?;
        // Nobody listens there; nobody is to be asked either.
        let rfc2136 =
            json!({"server": "127.0.0.1:9", "zone": "example", "tsigSecretRef": {"name": "key"}});
        let issued = json!({"certificate": {"certManager": {"issuerRef": {"name": "ca"}}}});
        let asking = [
            ("updates", json!({"dns": {"rfc2136": rfc2136}})),
            ("endpoints", json!({"dns": {"externalDns": {}}})),
            ("certificates", issued),
        ];
        for (name, spec) in asking {
            create(namespace, &pool(namespace, name, spec)).await?;
        }
        let own = domain(namespace);
        for (name, kind) in [
            ("updates", "DnsPublished"),
            ("endpoints", "DnsPublished"),
            ("certificates", "CertificateReady"),
        ] {
            let status = until_says(namespace, name, kind, "False, DomainNotAllowed").await?;
            let conditions = status["status"]["conditions"].as_array().unwrap();
            let said = conditions.iter().find(|it| it["type"] == kind).unwrap();
            let message = said["message"].as_str().unwrap();
            for part in [&*own, &*namespace.name, "allowedDomains", "remove"] {
                ensure!(message.contains(part), "{name}: {part:?} in {message}");
            }
        }
        // All else of the pool is there.
        until(namespace, "updates", |it: &Deployment| it.spec.clone()).await?;
        let certificate = GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate");
        ensure!(
            count(namespace, &certificate, "certificates").await? == 0,
            "no Certificate"
        );
        let endpoint = GroupVersionKind::gvk("externaldns.k8s.io", "v1alpha1", "DNSEndpoint");
        ensure!(
            count(namespace, &endpoint, "dnsendpoints").await? == 0,
            "no DNSEndpoint"
        );

        // Told otherwise, it asks.
        operator.stop().await?;
        let allowed = format!("--allowed-domains={}={own}", namespace.name);
        let _operator = Operator::start(namespace, &[&allowed]).await?;
        until_says(
            namespace,
            "certificates",
            "CertificateReady",
            "False, Issuing",
        )
        .await?;
        ensure!(
            count(namespace, &certificate, "certificates").await? == 1,
            "a Certificate"
        );
        Ok(())
    });
}

#[test]
fn no_name_server_is_connected_to_but_those_that_are_allowed() {
    SERVER.test(async |namespace| {
        let key =
            json!({"name": "k.example", "secret": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="});
        secret(namespace, "key", key).await?;
        let (asked, other) = (
            TcpListener::bind("127.0.0.1:0").await?,
            TcpListener::bind("127.0.0.1:0").await?,
        );
        let spec = |server: &TcpListener| -> Result<Value> {
            let server = server.local_addr()?.to_string();
            let rfc2136 =
                json!({"server": server, "zone": "example", "tsigSecretRef": {"name": "key"}});
            Ok(json!({"dns": {"rfc2136": rfc2136}}))
        };
        let allowed = format!("--allowed-dns-server={}", other.local_addr()?);
        let _operator = Operator::start(namespace, &[&allowed]).await?;
        create(namespace, &pool(namespace, "inside", spec(&asked)?)).await?;
        let refused = "False, DnsServerNotAllowed";
        let status = until_says(namespace, "inside", "DnsPublished", refused).await?;
        let conditions = status["status"]["conditions"].as_array().unwrap();
        let said = conditions.iter().find(|it| it["type"] == "DnsPublished");
        let message = said.unwrap()["message"].as_str().unwrap();
        for part in [&*asked.local_addr()?.to_string(), "dns.allowedServers"] {
            ensure!(message.contains(part), "{part:?} in {message}");
        }
        // One that is allowed is connected to, after which the other was not.
        edit(namespace, "inside", spec(&other)?).await?;
        tokio::time::timeout(wait::GENEROUS, other.accept()).await??;
        ensure!(
            tokio::time::timeout(Duration::ZERO, asked.accept())
                .await
                .is_err(),
            "it was connected to"
        );
        Ok(())
    });
}
