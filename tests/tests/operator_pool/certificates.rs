use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::json;
use xmpp_edge_tests::{
    cluster::Operator,
    pki::{Authority, Draft},
    wait,
};

use crate::{SERVER, stage::*};

#[test]
fn a_given_certificate_is_checked_before_pods_get_it_and_no_pod_is_replaced() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let given = json!({"certificate": {"secretRef": {"name": "site"}}});
        create(namespace, &pool(namespace, "hq", given)).await?;
        let ready = async |said| until_says(namespace, "hq", "CertificateReady", said).await;
        ready("False, ReferenceMissing").await?;
        let template = async || {
            until(namespace, "hq", |it: &Deployment| {
                Some(it.spec.as_ref()?.template.clone())
            })
            .await
        };
        let before = template().await?;
        let own = domain(namespace);
        let authority = Authority::new("Somebody's CA");
        let good = authority.issue_as(&Draft::of(&[&own, &format!("hq.{own}")]));
        secret(
            namespace,
            "site",
            json!({"tls.crt": good.certificate, "tls.key": good.key}),
        )
        .await?;
        ready("True, Issued").await?;
        let served = async |chain: String| {
            until(namespace, "hq-tls", |it: &Secret| {
                (text(it, "tls.crt").as_deref() == Some(&chain)).then_some(())
            })
            .await
        };
        served(good.certificate.clone()).await?;
        let other = authority.issue_as(&Draft::of(&[&own, &format!("hq.{own}")]));
        let partial = authority.issue_as(&Draft::of(&[&own]));
        for (chain, key, said) in [
            (&partial.certificate, &partial.key, "False, NamesNotCovered"),
            (&good.certificate, &other.key, "False, KeyMismatch"),
            (
                &"nonsense".to_owned(),
                &good.key,
                "False, InvalidCertificate",
            ),
        ] {
            secret(namespace, "site", json!({"tls.crt": chain, "tls.key": key})).await?;
            ready(said).await?;
            served(good.certificate.clone()).await?;
        }
        secret(
            namespace,
            "site",
            json!({"tls.crt": other.certificate, "tls.key": other.key}),
        )
        .await?;
        ready("True, Issued").await?;
        served(other.certificate.clone()).await?;
        edit(
            namespace,
            "hq",
            json!({"certificate": {"secretRef": null, "selfSigned": {}}}),
        )
        .await?;
        ready("True, Issued").await?;
        assert_eq!(template().await?, before);
        Ok(())
    });
}

#[test]
fn a_request_is_shown_and_only_its_own_chain_completes_it() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let csr = json!({"certificate": {"csr": {"chainSecretRef": {"name": "hq-signed"}}}});
        create(namespace, &pool(namespace, "hq", csr)).await?;
        let waiting = until_says(
            namespace,
            "hq",
            "CertificateReady",
            "False, AwaitingSignature",
        )
        .await?;
        let request = waiting["status"]["certificateSigningRequest"]
            .as_str()
            .unwrap();
        assert!(request.contains("BEGIN CERTIFICATE REQUEST"), "{request}");
        let pair = until(namespace, "hq-tls", |it: &Secret| Some(it.clone())).await?;
        assert!(text(&pair, "next.key").is_some() && text(&pair, "tls.crt").is_none());
        assert!(
            pair.metadata
                .owner_references
                .unwrap_or_default()
                .is_empty(),
            "the key outlives the pool"
        );
        let own = domain(namespace);
        let names = [own.clone(), format!("hq.{own}")];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let other = Authority::new("Somebody's CA").issue_as(&Draft::of(&names));
        secret(
            namespace,
            "hq-signed",
            json!({"tls.crt": other.certificate}),
        )
        .await?;
        until_says(namespace, "hq", "CertificateReady", "False, KeyMismatch").await?;
        Ok(())
    });
}

/// As much of cert-manager's definition as the operator writes to.
pub fn definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "certificates.cert-manager.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {"group": "cert-manager.io", "scope": "Namespaced",
            "names": {"kind": "Certificate", "plural": "certificates", "singular": "certificate"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    }))
    .unwrap()
}

#[test]
fn cert_manager_is_asked_for_every_name_and_its_secret_is_followed() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let mode = json!({"certificate": {"certManager": {"issuerRef": {"name": "ca"}, "duration": "2160h"}}});
        create(namespace, &pool(namespace, "hq", mode)).await?;
        until_says(namespace, "hq", "CertificateReady", "False, KindMissing").await?;
        namespace.server.install(&definition()).await?;
        edit(namespace, "hq", json!({"replicas": 3})).await?;
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"),
            "certificates",
        );
        let api: Api<DynamicObject> =
            Api::namespaced_with(namespace.client.clone(), &namespace.name, &kind);
        let applied = wait::until("the Certificate is there", SOON, async || {
            api.get_opt("hq").await.ok()?
        })
        .await?;
        let own = domain(namespace);
        let names = [own.clone(), format!("hq.{own}")];
        assert_eq!(applied.data["spec"]["dnsNames"], json!(names));
        assert_eq!(applied.data["spec"]["secretName"], "hq-tls");
        assert_eq!(applied.data["spec"]["duration"], "2160h");
        until_says(namespace, "hq", "CertificateReady", "False, Issuing").await?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let issued = Authority::new("Issuer").issue_as(&Draft::of(&names));
        secret(namespace, "hq-tls", json!({"tls.crt": issued.certificate, "tls.key": issued.key})).await?;
        until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        Ok(())
    });
}
