//! `spec.certificate.certManager` with cert-manager's own controllers, its issuers `selfSigned` and
//! `CA`: what they issue, renew and refuse, and what the pool says of it.
//!
//! Their kinds are not on the server that all tests share: that they are missing is one of the cases.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use xmpp_edge_operator::secrets::chain::CertificateFacts;
use xmpp_edge_tests::{
    cluster::{ApiServer, CertManager, FakePod, Namespace, Operator, alone, skip},
    wait,
};

use crate::{stage::*, told::*};

/// Runs a test in a namespace `chat` of a server that does not know cert-manager's kinds yet.
fn test(body: impl AsyncFnOnce(&Namespace<'_>) -> Result<()>) {
    if let Err(missing) = CertManager::find() {
        return skip(&missing);
    }
    alone(async {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        let namespace = Namespace::new(&server, "chat").await?;
        let outcome = body(&namespace).await;
        outcome.with_context(|| server.logs_about("chat"))
    });
}

fn of_cert_manager(namespace: &Namespace<'_>, kind: &str) -> Api<DynamicObject> {
    let plural = format!("{}s", kind.to_lowercase());
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", kind);
    let kind = ApiResource::from_gvk_with_plural(&kind, &plural);
    Api::namespaced_with(namespace.client.clone(), &namespace.name, &kind)
}

async fn issuer(namespace: &Namespace<'_>, name: &str, spec: Value) -> Result<()> {
    let object = json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name}, "spec": spec});
    let parameters = PatchParams::apply("somebody").force();
    let api = of_cert_manager(namespace, "Issuer");
    api.patch(name, &parameters, &Patch::Apply(object)).await?;
    Ok(())
}

/// An issuer `ca` with a CA that cert-manager makes itself.
async fn own_ca(namespace: &Namespace<'_>) -> Result<()> {
    issuer(namespace, "own", json!({"selfSigned": {}})).await?;
    let ca = json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "ca"},
        "spec": {"isCA": true, "commonName": "The CA", "secretName": "ca",
            "privateKey": {"algorithm": "ECDSA", "size": 256},
            "issuerRef": {"name": "own", "kind": "Issuer", "group": "cert-manager.io"}}});
    let parameters = PatchParams::apply("somebody").force();
    let api = of_cert_manager(namespace, "Certificate");
    api.patch("ca", &parameters, &Patch::Apply(ca)).await?;
    issuer(namespace, "ca", json!({"ca": {"secretName": "ca"}})).await
}

fn mode(issuer: &str) -> Value {
    json!({"certManager": {"issuerRef": {"name": issuer, "kind": "Issuer"}}})
}

/// Waits until `hq-tls` has a chain other than `before`, and the pool's status says its serial.
async fn until_renewed(namespace: &Namespace<'_>, before: &str) -> Result<String> {
    let chain = until(namespace, "hq-tls", |it: &Secret| {
        text(it, "tls.crt").filter(|chain| chain != before && text(it, "tls.key").is_some())
    })
    .await?;
    let facts = CertificateFacts::of_chain(&chain)?;
    let api: Api<xmpp_edge_crds::kinds::EdgePool> = namespace.api();
    wait::until("the status has its serial", SOON, async || {
        let pool = serde_json::to_value(api.get("hq").await.ok()?).ok()?;
        (pool["status"]["certificate"]["serial"] == facts.serial).then_some(())
    })
    .await?;
    Ok(chain)
}

#[test]
fn cert_manager_issues_for_every_name_renews_and_no_pod_is_replaced() {
    test(async |namespace| {
        let operator = Operator::start(namespace, &[]).await?;
        create(
            namespace,
            &pool(namespace, "hq", json!({"certificate": mode("ca")})),
        )
        .await?;
        // Without its kinds, with its kinds and nobody behind them, without the issuer.
        let missing = until_told(namespace, "False, KindMissing", &["cert-manager.io/v1"]).await?;
        ensure!(told(&missing).contains("install"), "{missing:#}");
        CertManager::install(namespace.server).await?;
        edit(namespace, "hq", json!({"replicas": 3})).await?;
        until_told(namespace, "False, Issuing", &["its controller runs"]).await?;
        let _controllers = CertManager::start(namespace.server, &namespace.name, &[]).await?;
        until_told(
            namespace,
            "False, ReferenceMissing",
            &["\"ca\" not found", "issuerRef exists"],
        )
        .await?;
        own_ca(namespace).await?;

        let issued = until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        let own = domain(namespace);
        let names = json!([own, format!("hq.{own}")]);
        let status = &issued["status"]["certificate"];
        assert_eq!(status["dnsNames"], names);
        let chain = until_renewed(namespace, "").await?;
        let facts = CertificateFacts::of_chain(&chain)?;
        let metrics = operator.get("/metrics").await?;
        let line = "certificate_not_after_timestamp_seconds{namespace=\"chat\",pool=\"hq\"} ";
        ensure!(
            metrics.contains(&format!("{line}{}", facts.not_after.as_second())),
            "{metrics}"
        );

        // Pods are told to look, and nothing else of them changes.
        let template = async || {
            until(namespace, "hq", |it: &Deployment| {
                Some(it.spec.as_ref()?.template.clone())
            })
            .await
        };
        let before = template().await?;
        let _pod = FakePod::start(namespace, "hq", 1).await?;
        let certificate = of_cert_manager(namespace, "Certificate");
        let renew = json!({"status": {"conditions": [{"type": "Issuing", "status": "True",
            "reason": "ManuallyTriggered", "message": "somebody wants it", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let parameters = PatchParams::default();
        certificate
            .patch_status("hq", &parameters, &Patch::Merge(renew))
            .await?;
        let chain = until_renewed(namespace, &chain).await?;
        let secrets: Api<Secret> = namespace.api();
        secrets.delete("hq-tls", &DeleteParams::default()).await?;
        let chain = until_renewed(namespace, &chain).await?;

        // One domain more.
        let more = format!("more.{own}");
        edit(
            namespace,
            "hq",
            json!({"domains": [own, more], "gateways": [{"domains": [own, more], "address": "prosody.chat.svc:5269"}]}),
        )
        .await?;
        let chain = until_renewed(namespace, &chain).await?;
        assert_eq!(
            CertificateFacts::of_chain(&chain)?.dns_names,
            [own.clone(), format!("hq.{own}"), more.clone()]
        );
        until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        assert_eq!(template().await?, before);

        // What somebody else did to it is mended.
        let spoiled = json!({"spec": {"dnsNames": ["somebody.example"]}});
        certificate
            .patch("hq", &parameters, &Patch::Merge(spoiled))
            .await?;
        wait::until("it asks for the right names again", SOON, async || {
            let it = certificate.get("hq").await.ok()?;
            (it.data["spec"]["dnsNames"] == json!([own, more, format!("hq.{own}")])).then_some(())
        })
        .await?;
        until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        Ok(())
    });
}

#[test]
fn what_cert_manager_refuses_is_told_in_its_words() {
    test(async |namespace| {
        CertManager::install(namespace.server).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        // No approver: the test is the approver.
        let approver = "certificaterequests-approver";
        let _controllers =
            CertManager::start(namespace.server, &namespace.name, &[approver]).await?;
        issuer(namespace, "own", json!({"selfSigned": {}})).await?;
        issuer(namespace, "empty", json!({"ca": {"secretName": "nowhere"}})).await?;
        create(
            namespace,
            &pool(namespace, "hq", json!({"certificate": mode("own")})),
        )
        .await?;
        until_told(namespace, "False, Issuing", &["NotApproved", "approve it"]).await?;
        decide(namespace, "Denied", "not these names").await?;
        until_told(
            namespace,
            "False, IssuanceFailed",
            &["Denied", "not these names", "approval policy"],
        )
        .await?;
        // Another issuer: another request, which is let through and waits for the CA.
        edit(namespace, "hq", json!({"certificate": mode("empty")})).await?;
        decide(namespace, "Approved", "fine").await?;
        until_told(
            namespace,
            "False, ReferenceMissing",
            &[
                "Referenced issuer does not have a Ready",
                "the Secret that it uses",
            ],
        )
        .await?;
        // Back, and let through: the selfSigned issuer issues.
        edit(namespace, "hq", json!({"certificate": mode("own")})).await?;
        decide(namespace, "Approved", "fine").await?;
        until_told(namespace, "True, Issued", &["valid until"]).await?;
        // A renewal that fails does not make the one in use a bad one.
        edit(namespace, "hq", json!({"certificate": mode("gone")})).await?;
        decide(namespace, "Approved", "fine").await?;
        until_told(
            namespace,
            "True, Issued",
            &["valid until", "\"gone\" not found"],
        )
        .await?;
        Ok(())
    });
}

/// Decides on the newest request of the pool's Certificate as it stands.
async fn decide(namespace: &Namespace<'_>, what: &str, why: &str) -> Result<()> {
    let certificate = of_cert_manager(namespace, "Certificate");
    let requests = of_cert_manager(namespace, "CertificateRequest");
    wait::until("the request is decided on", SOON, async || {
        let wanted = certificate.get("hq").await.ok()?;
        let all = requests.list(&Default::default()).await.ok()?;
        let open = all.into_iter().find(|it| {
            let conditions = it.data.pointer("/status/conditions");
            it.data["spec"]["issuerRef"]["name"] == wanted.data["spec"]["issuerRef"]["name"]
                && conditions.is_none_or(|it| it.as_array().is_none_or(Vec::is_empty))
        })?;
        let decision = json!({"status": {"conditions": [{"type": what, "status": "True",
            "reason": what, "message": why, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let name = open.metadata.name?;
        let decided = requests
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(decision))
            .await;
        decided.ok().map(|_| ())
    })
    .await
}
