//! The account that the chart gives the operator, with the chart's own rights: what a test's operator
//! may do is what an installed one may.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{ApiServer, ClusterIdentity, Helm, Major};

/// Name of the release, and so of the account; also the operator's default name of its lease.
const RELEASE: &str = "xmpp-edge-operator";

/// Makes the account in `home` with its rights there and in the namespaces that it is to watch; none
/// named: `home` alone.
///
/// # Errors
/// When Helm was not built, or the server refuses what the chart says.
pub async fn operator_account(
    server: &ApiServer,
    home: &str,
    watched: &[&str],
) -> Result<ClusterIdentity> {
    account_of_release(server, RELEASE, home, watched).await
}

/// As [`operator_account`], with gateways whose sidecars' Secrets it may write into other namespaces, by those.
///
/// # Errors
/// As there.
pub async fn operator_account_with_sidecars(
    server: &ApiServer,
    home: &str,
    watched: &[&str],
    sidecars: &BTreeMap<String, Vec<String>>,
) -> Result<ClusterIdentity> {
    let sidecars = serde_json::to_string(sidecars)?;
    let sidecars = format!("--set-json=sidecars={sidecars}");
    account(server, RELEASE, home, watched, &[&sidecars]).await
}

/// As [`operator_account`], with none of the right to list its kinds where it watches nothing.
///
/// # Errors
/// As there.
pub async fn operator_account_that_looks_nowhere_else(
    server: &ApiServer,
    home: &str,
    watched: &[&str],
) -> Result<ClusterIdentity> {
    let values = ["--set=rbac.tellUnwatched=false"];
    account(server, RELEASE, home, watched, &values).await
}

/// As [`operator_account`], of a release with a name of its own (`xmpp-edge-…`), which its account and
/// its lease have too.
///
/// # Errors
/// As there.
pub async fn account_of_release(
    server: &ApiServer,
    release: &str,
    home: &str,
    watched: &[&str],
) -> Result<ClusterIdentity> {
    account(server, release, home, watched, &[]).await
}

async fn account(
    server: &ApiServer,
    release: &str,
    home: &str,
    watched: &[&str],
    more: &[&str],
) -> Result<ClusterIdentity> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/xmpp-edge");
    let listed = serde_json::to_string(watched)?;
    let watched = format!("--set-json=watchNamespaces={listed}");
    let mut arguments = vec![
        "template",
        release,
        chart,
        "--namespace",
        home,
        "--set=rbac.people=false",
        "--show-only=templates/rbac.yaml",
        "--show-only=templates/serviceaccount.yaml",
        &watched,
    ];
    arguments.extend(more);
    let helm = Helm::offline(Major::Four, server.directory().join("helm-account"))?;
    let rendered = helm.run(&arguments)?;
    let apply = ["apply", "--server-side", "--filename=-"];
    server.kubectl().run_with(&apply, &rendered)?;
    server.service_account(home, release).await
}

/// As the audit log calls the account in `home`.
pub fn operator_user(home: &str) -> String {
    user_of_release(RELEASE, home)
}

/// As [`operator_user`], of another release.
pub fn user_of_release(release: &str, home: &str) -> String {
    format!("system:serviceaccount:{home}:{release}")
}
