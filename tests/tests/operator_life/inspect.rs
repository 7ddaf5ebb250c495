//! `validate` and `explain` on a cluster, with the rights of who asks: what stands there, and how it would be with manifests
//! applied.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{ClusterIdentity, FakePod, Namespace, Operator},
    edge,
};

use super::{
    SERVER,
    stage::{create, edit, partner, policy, pool, until_says},
};

/// What a command printed and its exit code.
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

fn kubeconfig(namespace: &Namespace<'_>, identity: &ClusterIdentity) -> Result<PathBuf> {
    let file = format!("inspect-{}", namespace.name);
    namespace
        .server
        .kubeconfig_file(&file, identity, &namespace.name)
}

async fn told(namespace: &Namespace<'_>, arguments: &[&str]) -> Result<Told> {
    let kubeconfig = kubeconfig(namespace, namespace.server.admin())?;
    let mut command = Command::new(edge::binary()?);
    command.args(arguments).stdin(Stdio::null());
    command.env("KUBECONFIG", kubeconfig);
    let output = tokio::process::Command::from(command).output().await?;
    Ok(Told {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[test]
fn validate_and_explain_read_a_cluster_as_its_operator_does() {
    SERVER.test(async |namespace| {
        let own = format!("{}.example", namespace.name);
        let object = partner("contoso", json!({"domain": "contoso.example", "partnerType": "Federated"}));
        let granted = json!({"scope": "Global", "enableFederationAccess": true, "enableXmppAccess": true});
        let everyone = policy("everyone", granted);
        create(namespace, &[pool(namespace), object.clone(), everyone]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        let _pod = FakePod::start(namespace, "hq", 1000).await?;
        until_says(namespace, &object, &[("Ready", "True, Ready")]).await?;

        let fine = told(namespace, &["validate", "--cluster"]).await?;
        ensure!(fine.code == Some(0) && fine.out.contains("valid: 3 objects, 0 errors"), "{}{}", fine.out, fine.err);
        let from = format!("alice@{own}");
        let explain = ["explain", "--cluster", "--from", &from, "--to"];
        let passes = told(namespace, &[&explain[..], &["bob@contoso.example"]].concat()).await?;
        ensure!(passes.code == Some(0) && passes.out.contains(": passes"), "{}{}", passes.out, passes.err);
        let refused = told(namespace, &[&explain[..], &["bob@nobody.example"]].concat()).await?;
        ensure!(refused.out.contains("refused: PartnerNotAllowed"), "{}{}", refused.out, refused.err);

        // What an edit broke stays in force, and that is what is explained.
        let missing = json!({"trust": {"caConfigMapRef": {"name": "nowhere", "key": "ca.crt"}}});
        edit(namespace, &object, missing).await?;
        until_says(namespace, &object, &[("Accepted", "False, ReferenceMissing")]).await?;
        let broken = told(namespace, &["validate", "--cluster"]).await?;
        ensure!(broken.code == Some(1), "{}", broken.out);
        for part in ["error: XmppFederatedPartner/contoso: ", "nowhere", "the last good form stays in force", "ReferenceMissing"] {
            ensure!(broken.out.contains(part), "{part:?} is missing: {}", broken.out);
        }
        let stays = told(namespace, &[&explain[..], &["bob@contoso.example"]].concat()).await?;
        ensure!(stays.code == Some(1) && stays.out.contains(": passes"), "{}{}", stays.out, stays.err);

        // How it would be with a file applied; a line and a caret where it stands there.
        let folder = tempfile::tempdir()?;
        let directory = folder.path().to_string_lossy().into_owned();
        let manifest = "apiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata: {name: contoso}\nspec: {domain: contoso.example, suspended: true}\n---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata: {name: late}\nspec:\n  domain: contoso.example\n";
        fs::write(folder.path().join("partners.yaml"), manifest)?;
        let with = ["--manifests", &directory];
        let suspended = told(namespace, &[&explain[..], &["bob@contoso.example"], &with[..]].concat()).await?;
        ensure!(suspended.out.contains("refused: PartnerSuspended"), "{}{}", suspended.out, suspended.err);
        let conflict = told(namespace, &[&["validate", "--cluster"], &with[..]].concat()).await?;
        ensure!(conflict.code == Some(1) && conflict.out.contains("partners.yaml:") && conflict.out.contains("DomainConflict"), "{}", conflict.out);
        let json = told(namespace, &[&["validate", "--cluster", "--output", "json"], &with[..]].concat()).await?;
        let json: Value = serde_json::from_str(&json.out)?;
        ensure!(json["valid"] == false, "{json:#}");
        Ok(())
    });
}

#[test]
fn what_nobody_watches_and_what_may_not_be_read_is_said() {
    SERVER.test(async |namespace| {
        let empty = told(namespace, &["validate", "--cluster"]).await?;
        ensure!(
            empty.code == Some(0) && empty.out.contains("has no object of xmpp-edge.dev"),
            "{}{}",
            empty.out,
            empty.err
        );
        let elsewhere = told(
            namespace,
            &["validate", "--cluster", "--context", "nowhere"],
        )
        .await?;
        ensure!(
            elsewhere.code == Some(1) && elsewhere.err.contains("\"nowhere\""),
            "{}",
            elsewhere.err
        );
        let server = namespace.server;
        let nobody = server.service_account(&namespace.name, "default").await?;
        let mut command = Command::new(edge::binary()?);
        command.args(["validate", "--cluster"]).stdin(Stdio::null());
        command.env("KUBECONFIG", kubeconfig(namespace, &nobody)?);
        let output = tokio::process::Command::from(command).output().await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{said}");
        ensure!(
            said.contains("listing edgepools") && said.contains("ClusterRole"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn wrong_usage_of_a_cluster_is_code_2() -> Result<()> {
    for arguments in [
        &["validate"][..],
        &["validate", "--output", "json"],
        &["validate", "--manifests", ".", "--namespace", "n"],
        &["validate", "--manifests", ".", "--context", "c"],
        &[
            "explain",
            "--cluster",
            "-n",
            "a",
            "-A",
            "--from",
            "a@b",
            "--to",
            "c@d",
        ],
        &["probe", "partner.example"],
        &["probe", "not a domain", "--pool", "hq"],
    ] {
        let output = Command::new(edge::binary()?)
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.code() == Some(2), "{arguments:?}");
    }
    Ok(())
}
