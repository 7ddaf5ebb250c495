//! When a certificate ends and what it covers, as status, metric and condition say it in the modes
//! that need nobody else; `cert_manager` has the same of its own.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use xmpp_edge_tests::{
    cluster::Operator,
    pki::{Authority, Draft, Signer, SigningRules, Validity},
};

use crate::{SERVER, stage::*, told::*};

#[test]
fn status_metric_and_condition_agree_on_names_and_end_in_every_mode() {
    SERVER.test(async |namespace| {
        let operator = Operator::start(namespace, &[]).await?;
        let own = domain(namespace);
        let names = |pool: &str| [own.clone(), format!("{pool}.{own}")];
        // Somebody forgot to renew these two.
        let given = names("given");
        let draft = Draft {
            validity: Validity::EndsSoon,
            ..Draft::of(&given.each_ref().map(String::as_str))
        };
        let pair = Authority::new("Somebody's CA").issue_as(&draft);
        let pair = json!({"tls.crt": pair.certificate, "tls.key": pair.key});
        secret(namespace, "site", pair).await?;
        let modes = [
            ("own", json!({"selfSigned": {}})),
            ("given", json!({"secretRef": {"name": "site"}})),
            ("signed", json!({"csr": {"chainSecretRef": {"name": "chain"}}})),
        ];
        for (name, mode) in modes {
            create(namespace, &pool(namespace, name, json!({"certificate": mode}))).await?;
        }
        let waiting = until_says(
            namespace,
            "signed",
            "CertificateReady",
            "False, AwaitingSignature",
        ).await?;
        let request = waiting["status"]["certificateSigningRequest"].as_str();
        let signer = Signer::new()?;
        let soon = SigningRules {
            validity: Validity::EndsSoon,
            ..SigningRules::RIGHT
        };
        let leaf = signer.sign(request.context("a request")?, soon)?;
        let chain = format!("{leaf}{}", signer.intermediate);
        secret(namespace, "chain", json!({"tls.crt": chain})).await?;
        until(namespace, "signed-tls", |it: &Secret| text(it, "tls.crt")).await?;

        for (name, said, words) in [
            ("own", "True, Issued", "valid until"),
            ("given", "True, Expiring", "which is soon: see to its renewal"),
            ("signed", "True, Expiring", "a new request waits in status"),
        ] {
            let pool = until_told_of(namespace, name, said, &[words]).await?;
            let certificate = &pool["status"]["certificate"];
            let mut covered = names(name);
            covered.sort();
            assert_eq!(certificate["dnsNames"], json!(covered), "{name}");
            let ends = certificate["notAfter"].as_str().context("notAfter")?;
            let message = told(&pool);
            let ends: jiff::Timestamp = ends.parse()?;
            ensure!(message.contains(&ends.to_string()), "{name}: {message}");
            let metrics = operator.get("/metrics").await?;
            let metric = format!(
                "xmpp_edge_operator_certificate_not_after_timestamp_seconds{{namespace=\"{}\",pool=\"{name}\"}} {}\n",
                namespace.name,
                ends.as_second()
            );
            ensure!(metrics.contains(&metric), "{metric} is not in {metrics}");
        }
        Ok(())
    });
}
