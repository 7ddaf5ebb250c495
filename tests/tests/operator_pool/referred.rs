//! Secrets and ConfigMaps are everybody's: the operator reads and holds those that something refers to.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Secret},
        rbac::v1::Role,
    },
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{Namespace, Operator, operator_account, operator_user},
    pki::{Authority, Draft, Leaf},
};

use crate::{SERVER, stage::*};

/// Secrets of others.
const FOREIGN: usize = 1000;
/// Bytes of each.
const BYTES: usize = 100 * 1024;
/// What one pool has takes some 20 KiB.
const HELD: f64 = 64.0 * 1024.0;
/// Of the operator at its highest, in KiB: well below what the foreign ones take.
const RESIDENT: u64 = 80 * 1024;

async fn foreign_secrets(namespace: &Namespace<'_>) -> Result<()> {
    let api: Api<Secret> = namespace.api();
    stream::iter(0..FOREIGN)
        .map(async |number| {
            let mut secret = Secret::default();
            secret.metadata.name = Some(format!("foreign-{number}"));
            let data = ByteString(vec![b'x'; BYTES]);
            secret.data = Some([("k".to_owned(), data)].into());
            api.create(&PostParams::default(), &secret).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(8)
        .try_collect()
        .await
}

/// Names of the objects of a resource that the operator read since `mark`.
fn read(namespace: &Namespace<'_>, resource: &str, mark: u64) -> Result<BTreeSet<String>> {
    let user = operator_user(&namespace.name);
    let entries = namespace.server.audit().of(&user, mark)?;
    let reads = entries.iter().filter(|entry| entry.verb == "get");
    let reads = reads.filter(|entry| entry.concerns(&namespace.name, resource));
    let names = reads.filter_map(|entry| Some(entry.object_ref.as_ref()?.name.clone()));
    Ok(names.collect())
}

/// The highest resident memory of a process, in KiB.
fn resident(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("Linux says it")?.parse()?)
}

fn certificate(namespace: &Namespace<'_>, pool: &str, authority: &Authority) -> Leaf {
    let own = domain(namespace);
    authority.issue_as(&Draft::of(&[&own, &format!("{pool}.{own}")]))
}

async fn served(namespace: &Namespace<'_>, secret: &str, chain: &str) -> Result<()> {
    until(namespace, secret, |it: &Secret| {
        (text(it, "tls.crt").as_deref() == Some(chain)).then_some(())
    })
    .await
}

#[test]
fn k14_what_nobody_refers_to_is_not_read_and_takes_no_memory() {
    SERVER.test(async |namespace| {
        foreign_secrets(namespace).await?;
        let authority = Authority::new("Somebody's CA");
        let mut operator = Operator::start(namespace, &[]).await?;
        let given = json!({"certificate": {"secretRef": {"name": "site"}}});
        create(namespace, &pool(namespace, "hq", given)).await?;
        until_says(
            namespace,
            "hq",
            "CertificateReady",
            "False, ReferenceMissing",
        )
        .await?;
        // Made later, and changed: both are followed.
        for _ in 0..2 {
            let pair = certificate(namespace, "hq", &authority);
            let data = json!({"tls.crt": pair.certificate, "tls.key": pair.key});
            secret(namespace, "site", data).await?;
            served(namespace, "hq-tls", &pair.certificate).await?;
        }
        until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        let read_secrets = read(namespace, "secrets", 0)?;
        ensure!(read_secrets.contains("site"), "{read_secrets:?}");
        let foreign = read_secrets.iter().find(|name| name.starts_with("foreign"));
        ensure!(foreign.is_none(), "{read_secrets:?}");
        for kind in ["Secret", "ConfigMap"] {
            let kind = format!("kind=\"{kind}\"");
            let name = "xmpp_edge_operator_referenced_bytes";
            let bytes = operator.metric(name, &[&kind]).await?;
            let bytes = bytes.context("it is counted")?;
            ensure!(bytes > 0.0 && bytes < HELD, "{kind}: {bytes} bytes");
        }
        let kibibytes = resident(operator.process().id())?;
        println!(
            "{FOREIGN} foreign Secrets of {BYTES} bytes: {} MiB",
            kibibytes / 1024
        );
        ensure!(kibibytes < RESIDENT, "{kibibytes} KiB");

        // What others do with theirs is no reason for anything.
        let mark = namespace.server.audit().mark();
        let change = json!({"stringData": {"more": "x"}});
        let secrets: Api<Secret> = namespace.api();
        let patch = Patch::Merge(&change);
        secrets
            .patch("foreign-7", &PatchParams::default(), &patch)
            .await?;
        secrets
            .delete("foreign-8", &DeleteParams::default())
            .await?;
        // A pass that comes after it has seen it.
        edit(
            namespace,
            "hq",
            json!({"settings": {"dialbackSecretRef": {"name": "foreign-9"}}}),
        )
        .await?;
        let found = xmpp_edge_tests::wait::until("it is read", SOON, async || {
            let names = read(namespace, "secrets", mark).ok()?;
            names.contains("foreign-9").then_some(names)
        });
        ensure!(
            found.await? == ["foreign-9".to_owned()].into(),
            "one is named now"
        );
        Ok(())
    });
}

/// The chart's rights, but for one Secret that may not be read.
async fn deny(namespace: &Namespace<'_>, allowed: &[&str]) -> Result<Role> {
    let roles: Api<Role> = namespace.api();
    let role = roles.get("xmpp-edge-operator").await?;
    let mut narrowed = role.clone();
    for rule in narrowed.rules.iter_mut().flatten() {
        if rule.resources.iter().flatten().any(|it| it == "secrets") {
            rule.verbs.retain(|verb| verb != "get");
        }
    }
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": allowed});
    let rules = narrowed.rules.get_or_insert_default();
    rules.push(serde_json::from_value(rule)?);
    narrowed.metadata.managed_fields = None;
    roles
        .replace("xmpp-edge-operator", &PostParams::default(), &narrowed)
        .await?;
    Ok(role)
}

#[test]
fn a_secret_that_cannot_be_read_stops_only_the_pool_that_names_it() {
    SERVER.test(async |namespace| {
        let account = operator_account(namespace.server, &namespace.name, &[]).await?;
        let gateway = format!("xmpp-edge-gateway-{}", domain(namespace));
        let own = ["tls", "ca", "internal-issuer", "admin"];
        let own = |pool: &str| own.map(|end| format!("{pool}-{end}"));
        let mut allowed = vec![
            gateway,
            "xmpp-edge-internal-ca".into(),
            "xmpp-edge-dialback".into(),
        ];
        allowed.extend(own("fine").into_iter().chain(own("held")));
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let role = deny(namespace, &allowed).await?;
        let authority = Authority::new("Somebody's CA");
        let pair = certificate(namespace, "held", &authority);
        let data = json!({"tls.crt": pair.certificate, "tls.key": pair.key});
        secret(namespace, "locked", data).await?;
        let name = &namespace.name;
        let _operator = Operator::start_as(namespace.server, &account, name, &[]).await?;
        let given = json!({"certificate": {"secretRef": {"name": "locked"}}});
        create(namespace, &pool(namespace, "held", given)).await?;
        create(namespace, &pool(namespace, "fine", json!({}))).await?;
        until_says(namespace, "fine", "CertificateReady", "True, Issued").await?;
        until(namespace, "fine", |it: &Deployment| it.spec.clone()).await?;
        let held = until_says(namespace, "held", "Ready", "False, WriteFailed").await?;
        let said = message(&held, "Ready");
        for part in ["Secret \"locked\" cannot be read", "the right to get it"] {
            ensure!(said.contains(part), "{part:?} in {said}");
        }
        // Its document goes on: partners and policies do not wait.
        until(namespace, "held-config-0", |it: &ConfigMap| {
            it.binary_data.clone()
        })
        .await?;
        let roles: Api<Role> = namespace.api();
        let mut back = roles.get("xmpp-edge-operator").await?;
        back.rules = role.rules;
        roles
            .replace("xmpp-edge-operator", &PostParams::default(), &back)
            .await?;
        served(namespace, "held-tls", &pair.certificate).await?;
        until_says(namespace, "held", "CertificateReady", "True, Issued").await?;
        Ok(())
    });
}
