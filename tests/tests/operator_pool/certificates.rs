use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{Entry, Namespace, Operator},
    pki::{Authority, Draft, Signer, SigningRules, Validity, describe_request},
};

use crate::{SERVER, stage::*, told::*};

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

/// What the Secret with the chain holds, and what the pool says of it: reason, and words.
type Mistake<'a> = (&'a str, Value, &'a str, &'a str);

#[test]
fn a_request_is_signed_by_hand_each_mistake_is_told_and_the_right_chain_reaches_the_pods_at_once() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let csr = json!({"certificate": {"csr": {"chainSecretRef": {"name": "hq-signed"},
            "subject": {"organization": "Example", "country": "DE"}}}});
        create(namespace, &pool(namespace, "hq", csr)).await?;
        let ready = async |said| until_says(namespace, "hq", "CertificateReady", said).await;
        let waiting = ready("False, AwaitingSignature").await?;
        ensure!(
            told(&waiting).contains("kubectl create secret generic hq-signed"),
            "{waiting:#}"
        );
        let request = request_of(&waiting)?;
        let own = domain(namespace);
        let edge = format!("hq.{own}");
        let said = describe_request(&request)?;
        for part in [
            format!("DNS:{own}, DNS:{edge}"),
            "C = DE, O = Example".into(),
            "256 bit".into(),
        ] {
            ensure!(said.contains(&part), "{part} is not in {said}");
        }
        let pair = until(namespace, "hq-tls", |it: &Secret| Some(it.clone())).await?;
        assert!(text(&pair, "next.key").is_some() && text(&pair, "tls.crt").is_none());
        let owners = pair.metadata.owner_references.clone().unwrap_or_default();
        assert!(owners.is_empty(), "the key outlives the pool");

        let signer = Signer::new()?;
        let sign = |how: SigningRules<'_>| signer.sign(&request, how);
        let right = sign(SigningRules::RIGHT)?;
        let (root, issuer) = (&signer.root, &signer.intermediate);
        let names = [own.as_str(), edge.as_str()];
        let other = Authority::new("Somebody's CA").issue_as(&Draft::of(&names));
        let expired = sign(SigningRules {
            validity: Validity::Expired,
            ..SigningRules::RIGHT
        })?;
        let early = sign(SigningRules {
            validity: Validity::NotYet,
            ..SigningRules::RIGHT
        })?;
        let partial = sign(SigningRules {
            names: Some(&names[..1]),
            ..SigningRules::RIGHT
        })?;
        let ca = sign(SigningRules {
            ca: true,
            ..SigningRules::RIGHT
        })?;
        let strangers = Signer::new()?;
        let of = |chain: String| json!({ "tls.crt": chain });
        let mistakes: [Mistake<'_>; 12] = [
            (
                "another key",
                of(other.certificate.clone()),
                "KeyMismatch",
                "have the request that status shows now signed",
            ),
            (
                "a name less",
                of(format!("{partial}{issuer}")),
                "NamesNotCovered",
                &edge,
            ),
            (
                "expired",
                of(format!("{expired}{issuer}")),
                "Expired",
                "replace it",
            ),
            (
                "not yet valid",
                of(format!("{early}{issuer}")),
                "InvalidCertificate",
                "check the clock, or wait",
            ),
            (
                "order",
                of(format!("{right}{root}{issuer}")),
                "InvalidCertificate",
                "each issuer after what it issued",
            ),
            (
                "the root alone above",
                of(format!("{right}{root}")),
                "InvalidCertificate",
                "append that CA's certificate",
            ),
            (
                "no intermediate below a known root",
                json!({"tls.crt": right, "ca.crt": root}),
                "InvalidCertificate",
                "append that CA's certificate",
            ),
            (
                "issuer of another key",
                of(format!("{right}{}", strangers.intermediate)),
                "InvalidCertificate",
                "did not sign one another",
            ),
            (
                "garbage",
                of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
                "InvalidCertificate",
                "line 1: the block \"CERTIFICATE\" is not what it says it is",
            ),
            (
                "no PEM",
                of("MIIB".into()),
                "InvalidCertificate",
                "holds no certificate",
            ),
            (
                "no such key",
                json!({"chain.pem": right}),
                "ReferenceMissing",
                "no key \"tls.crt\"",
            ),
            (
                "a CA's",
                of(format!("{ca}{issuer}")),
                "InvalidCertificate",
                "the leaf first",
            ),
        ];
        for (case, data, reason, says) in mistakes {
            replace(namespace, "hq-signed", data).await?;
            until_told(namespace, &format!("False, {reason}"), &[says])
                .await
                .with_context(|| case.to_owned())?;
        }
        let secrets: Api<Secret> = namespace.api();
        secrets
            .delete("hq-signed", &DeleteParams::default())
            .await?;
        ready("False, AwaitingSignature").await?;
        let untouched = secrets.get("hq-tls").await?;
        assert_eq!(
            untouched.metadata.resource_version, pair.metadata.resource_version,
            "nothing was written meanwhile"
        );

        let chain = format!("{right}{issuer}");
        let mark = namespace.server.audit().mark();
        replace(
            namespace,
            "hq-signed",
            json!({"tls.crt": chain, "ca.crt": root}),
        )
        .await?;
        let served = ready("True, Issued").await?;
        assert!(served["status"]["certificateSigningRequest"].is_null());
        let sorted = [edge.as_str(), own.as_str()];
        assert_eq!(served["status"]["certificate"]["dnsNames"], json!(sorted));
        let taken = secrets.get("hq-tls").await?;
        assert_eq!(text(&taken, "tls.crt").as_deref(), Some(chain.as_str()));
        assert_eq!(text(&taken, "tls.key"), text(&pair, "next.key"));
        assert!(text(&taken, "next.key").is_none());
        let written = namespace.server.audit().since(mark)?;
        let of_pair = |it: &&Entry| {
            let object = it.object_ref.as_ref();
            it.concerns(&namespace.name, "secrets")
                && object.is_some_and(|object| object.name == "hq-tls")
                && ["update", "patch"].contains(&it.verb.as_str())
        };
        assert_eq!(
            written.iter().filter(of_pair).count(),
            1,
            "chain and key in one write"
        );
        Ok(())
    });
}

#[test]
fn what_a_request_was_made_for_may_change_while_its_pair_is_in_use() {
    SERVER.test(async |namespace| {
        let operator = Operator::start(namespace, &[]).await?;
        let csr = json!({"certificate": {"csr": {"chainSecretRef": {"name": "hq-signed"}}}});
        create(namespace, &pool(namespace, "hq", csr)).await?;
        let ready = async |said| until_says(namespace, "hq", "CertificateReady", said).await;
        let signer = Signer::new()?;
        let mut request = request_of(&ready("False, AwaitingSignature").await?)?;
        let own = domain(namespace);
        let more = format!("more.{own}");
        let gateways = json!([{"domains": [own, more], "address": "prosody.chat.svc:5269"}]);
        let changes = [
            (
                json!({"domains": [own, more], "gateways": gateways}),
                "False, NamesNotCovered",
                "DNS:more.",
            ),
            (
                json!({"certificate": {"csr": {"subject": {"organization": "Renamed"}}}}),
                "True, Issued",
                "O = Renamed",
            ),
            (
                json!({"certificate": {"csr": {"keyAlgorithm": "EcdsaP384"}}}),
                "True, Issued",
                "384 bit",
            ),
        ];
        for (change, meanwhile, asked) in changes {
            let chain = format!(
                "{}{}",
                signer.sign(&request, SigningRules::RIGHT)?,
                signer.intermediate
            );
            replace(namespace, "hq-signed", json!({"tls.crt": chain})).await?;
            until(namespace, "hq-tls", |it: &Secret| {
                (text(it, "tls.crt").as_deref() == Some(&chain)).then_some(())
            })
            .await?;
            ready("True, Issued").await?;
            edit(namespace, "hq", change).await?;
            let next = until_told(namespace, meanwhile, &["a new request waits in status"]).await?;
            request = request_of(&next)?;
            let said = describe_request(&request)?;
            ensure!(said.contains(asked), "{asked} is not in {said}");
            let kept = until(namespace, "hq-tls", |it: &Secret| Some(it.clone())).await?;
            assert_eq!(text(&kept, "tls.crt"), Some(chain), "the pair in use stays");
        }
        let ends = ready("True, Issued").await?;
        let metrics = operator.get("/metrics").await?;
        let of = format!(
            "certificate_not_after_timestamp_seconds{{namespace=\"{}\",pool=\"hq\"}} ",
            namespace.name
        );
        let ends: jiff::Timestamp = ends["status"]["certificate"]["notAfter"]
            .as_str()
            .context("notAfter")?
            .parse()?;
        ensure!(
            metrics.contains(&format!("{of}{}", ends.as_second())),
            "{metrics}"
        );
        Ok(())
    });
}

/// Writes a Secret with these texts and no others: an apply keeps what an earlier one had.
async fn replace(namespace: &Namespace<'_>, name: &str, data: Value) -> Result<()> {
    let api: Api<Secret> = namespace.api();
    if api.get_opt(name).await?.is_some() {
        api.delete(name, &DeleteParams::default()).await?;
    }
    secret(namespace, name, data).await
}

fn request_of(pool: &Value) -> Result<String> {
    let request = pool["status"]["certificateSigningRequest"].as_str();
    Ok(request.context("a request in status")?.to_owned())
}
