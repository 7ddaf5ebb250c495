//! What a pool shows to a SIP server of another PKI.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{Namespace, Operator},
    pki::{Authority, Draft, Leaf},
};

use crate::{SERVER, stage::*};

const EDGE_NAME: &str = "edge.corp.example";

/// The kept Secret, once it holds this chain.
async fn kept(namespace: &Namespace<'_>, pair: &Leaf) -> Result<()> {
    let chain = pair.certificate.trim_end();
    let line = chain.lines().nth(1).context("PEM has lines")?.to_owned();
    until(namespace, "hq-sip", |it: &Secret| {
        text(it, "pairs.json")?.contains(&line).then_some(())
    })
    .await
}

#[test]
fn a_certificate_for_a_sip_server_is_followed_and_the_last_good_one_stays() {
    SERVER.test(async |namespace| {
        let theirs = Authority::new("Corp Root");
        let _operator = Operator::start(namespace, &[]).await?;
        let own = domain(namespace);
        let more = json!({"replicas": 1, "gateways": [{"domains": [own], "mode": "Sip",
            "address": "sip.chat.svc:5061",
            "sip": {"edgeName": EDGE_NAME, "certificateSecretRef": {"name": "theirs"}}}]});
        create(namespace, &pool(namespace, "hq", more)).await?;
        let ready = "CertificateReady";
        let status = until_says(namespace, "hq", ready, "False, ReferenceMissing").await?;
        let said = message(&status, ready);
        for part in ["sip.certificateSecretRef", &own, "\"theirs\""] {
            ensure!(said.contains(part), "{part} in {said}");
        }
        let give = async |pair: &Leaf| {
            let data = json!({"tls.crt": pair.certificate, "tls.key": pair.key});
            secret(namespace, "theirs", data).await
        };
        let good = theirs.issue_as(&Draft::of(&[EDGE_NAME]));
        give(&good).await?;
        kept(namespace, &good).await?;
        until_says(namespace, "hq", ready, "True, Issued").await?;
        give(&theirs.issue_as(&Draft::of(&["other.example"]))).await?;
        let status = until_says(namespace, "hq", ready, "False, NamesNotCovered").await?;
        let said = message(&status, ready);
        ensure!(said.contains("stays in use until"), "{said}");
        kept(namespace, &good).await?;
        let renewed = theirs.issue_as(&Draft::of(&[EDGE_NAME]));
        give(&renewed).await?;
        kept(namespace, &renewed).await?;
        until_says(namespace, "hq", ready, "True, Issued").await?;
        // The pods mount what was checked, never what somebody gave.
        let spec = until(namespace, "hq", |it: &Deployment| it.spec.clone()).await?;
        let volumes = serde_json::to_string(&spec.template)?;
        ensure!(volumes.contains("\"hq-sip\"") && !volumes.contains("\"theirs\""));
        Ok(())
    });
}
