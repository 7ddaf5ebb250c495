//! Two operators that act at once, as they may for a moment when a lease was deleted or stolen: of
//! what a namespace has once there is one, and both go on with that.

use std::{io::Write, process::Command};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{Audit, Entry, Namespace, Operator, account_of_release, user_of_release},
    wait,
};

use crate::{SERVER, stage::*};

/// Each is a race of its own.
const NAMESPACES: usize = 5;

fn secret_writes(audit: &Audit, users: &[String], mark: u64) -> Result<Vec<Entry>> {
    let mut entries = audit.since(mark)?;
    entries.retain(|it| {
        users.contains(&it.user.username)
            && it.target() == "secrets"
            && ["create", "update", "patch", "delete"].contains(&it.verb.as_str())
    });
    Ok(entries)
}

/// Until both have renewed their leases a few times and written no Secret between.
async fn quiet(audit: &Audit, users: &[String]) -> Result<()> {
    let mut mark = audit.mark();
    wait::until("no Secret is written any more", SOON * 2, async || {
        let next = audit.mark();
        if !secret_writes(audit, users, mark).ok()?.is_empty() {
            mark = next;
            return None;
        }
        let renewals = |user: &String| {
            let entries = audit.of(user, mark).ok()?;
            let renewals = entries.iter().filter(|it| it.target() == "leases");
            Some(renewals.count())
        };
        users
            .iter()
            .all(|user| renewals(user) >= Some(4))
            .then_some(())
    })
    .await
}

/// Whether `authority` issued `certificate`, both PEM.
fn is_issued_by(certificate: &str, authority: &str) -> Result<bool> {
    let mut trusted = tempfile::NamedTempFile::new()?;
    trusted.write_all(authority.as_bytes())?;
    let mut issued = tempfile::NamedTempFile::new()?;
    issued.write_all(certificate.as_bytes())?;
    let verified = Command::new("openssl")
        .args(["verify", "-CAfile"])
        .args([trusted.path(), issued.path()])
        .output()
        .context("openssl")?;
    Ok(verified.status.success())
}

#[test]
fn operators_that_act_at_once_make_one_ca_and_one_dialback_secret_and_agree() {
    SERVER.test(async |home| {
        let server = home.server;
        let mut namespaces = Vec::new();
        for number in 0..NAMESPACES {
            namespaces.push(Namespace::new(server, &format!("{}-{number}", home.name)).await?);
        }
        // With a release, and so a lease, of its own each leads.
        let releases = ["xmpp-edge-one", "xmpp-edge-two"];
        let users = releases.map(|release| user_of_release(release, &home.name));
        let mark = server.audit().mark();
        let mut operators = Vec::new();
        for release in releases {
            let mut arguments = vec![format!("--lease-name={release}")];
            arguments.extend(
                namespaces
                    .iter()
                    .map(|it| format!("--watch-namespace={}", it.name)),
            );
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let watched: Vec<&str> = namespaces.iter().map(|it| it.name.as_str()).collect();
            let identity = account_of_release(server, release, &home.name, &watched).await?;
            operators.push(Operator::start_as(server, &identity, &home.name, &arguments).await?);
        }
        for operator in &operators {
            wait::until("it leads", SOON, async || {
                let metrics = operator.get("/metrics").await.ok()?;
                metrics.contains("operator_leader 1").then_some(())
            })
            .await?;
        }
        for namespace in &namespaces {
            for name in ["hq", "branch"] {
                create(namespace, &pool(namespace, name, json!({}))).await?;
            }
        }
        for namespace in &namespaces {
            for name in ["hq", "branch"] {
                until_says(namespace, name, "CertificateReady", "True, Issued").await?;
            }
        }
        quiet(&server.audit(), &users).await?;

        let writes = secret_writes(&server.audit(), &users, mark)?;
        let lost = writes.iter().filter(|it| it.code() == 409).count();
        println!("{} writes of Secrets, {lost} came second", writes.len());
        for namespace in &namespaces {
            for name in ["xmpp-edge-internal-ca", "xmpp-edge-dialback"] {
                let mut made = writes.iter().filter(|it| {
                    let of = it.object_ref.as_ref();
                    // A creation names its object in the body alone: the answer's code tells.
                    it.verb == "create"
                        && it.code() == 201
                        && of.is_some_and(|of| of.namespace == namespace.name && of.name == name)
                });
                ensure!(
                    made.next().is_some(),
                    "{name} is made in {}",
                    namespace.name
                );
                ensure!(
                    made.next().is_none(),
                    "{name} is made once in {}",
                    namespace.name
                );
            }
            let ca = until(namespace, "xmpp-edge-internal-ca", |it: &Secret| {
                text(it, "tls.crt")
            });
            let ca = ca.await?;
            let trusted = until(namespace, "xmpp-edge-internal-ca", |it: &ConfigMap| {
                it.data.as_ref()?.get("ca.crt").cloned()
            });
            ensure!(
                trusted.await? == ca,
                "what servers trust in {}",
                namespace.name
            );
            let gateway = format!("xmpp-edge-gateway-{}", domain(namespace));
            let given = until(namespace, &gateway, |it: &Secret| {
                Some((text(it, "tls.crt")?, text(it, "ca.crt")?))
            });
            let (certificate, given) = given.await?;
            ensure!(given == ca, "what the gateway trusts in {}", namespace.name);
            ensure!(is_issued_by(&certificate, &ca)?, "{gateway}");
            for pool in ["hq", "branch"] {
                let name = format!("{pool}-internal-issuer");
                let issuer = until(namespace, &name, |it: &Secret| text(it, "tls.crt")).await?;
                ensure!(is_issued_by(&issuer, &ca)?, "{name} in {}", namespace.name);
            }
        }
        // Each takes what the other made for its own.
        for operator in operators.drain(..) {
            ensure!(operator.stop().await? == Some(0), "it ends in order");
        }
        Ok(())
    });
}
