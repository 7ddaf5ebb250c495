//! Installed, tested, upgraded, uninstalled: by Helm 3 and by Helm 4.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{ApiServer, ClusterIdentity, Helm, Major, Operator, alone},
    wait,
};

use super::{HOME, arguments, chart, ended, get, has_helm, install, names, operator, run_pod};

const WATCHED: &str = "chat";
/// Until Helm has done what comes before a hook.
const SOON: Duration = wait::GENEROUS;

/// An object once it is there.
async fn appears(server: &ApiServer, what: &str) -> Result<Value> {
    let title = format!("{what} is there");
    wait::until(&title, SOON, async || get(server, HOME, what).ok()).await
}

/// Says in an object's status how it went, as kubelet and controllers would.
fn say(server: &ApiServer, what: &str, status: &Value) -> Result<()> {
    let patch = json!({ "status": status }).to_string();
    let place = ["--namespace", HOME, "--subresource=status", "--type=merge"];
    let arguments = [&["patch", what], &place[..], &["--patch", &patch]].concat();
    server.kubectl().run(&arguments)?;
    Ok(())
}

/// A pool whose records an operator has put into DNS, on a server that cannot be reached.
fn pool() -> Value {
    json!([
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tsig", "namespace": WATCHED},
            "stringData": {"name": "key.example", "secret": "c2VjcmV0c2VjcmV0c2VjcmV0"}},
        {"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
            "metadata": {"name": "hq", "namespace": WATCHED, "finalizers": ["xmpp-edge.dev/dns"]},
            "spec": {"site": "hq", "domains": ["example.org"], "replicas": 1,
                "accessEdge": {"fqdn": "edge.example.org", "addresses": ["192.0.2.7"]},
                "gateways": [{"domains": ["example.org"], "address": "192.0.2.1:5269"}],
                "certificate": {"selfSigned": {}},
                "dns": {"rfc2136": {"server": "127.0.0.1:9", "zone": "example.org",
                    "tsigSecretRef": {"name": "tsig"}, "tsigAlgorithm": "HmacSha256"}}}}
    ])
}

async fn tested(
    server: &ApiServer,
    helm: &Helm,
    operator: &Operator,
    account: &ClusterIdentity,
) -> Result<()> {
    let test = helm.start(&["test", "xmpp-edge", "--namespace", HOME, "--timeout=120s"])?;
    let pod = appears(server, "pod/xmpp-edge-check").await?;
    let mut given = arguments(&pod["spec"]);
    let asked = given
        .iter_mut()
        .find(|it| it.starts_with("--admin="))
        .context("--admin")?;
    // There is no Service without a node.
    *asked = format!("--admin={}", operator.admin());
    let (fine, said) = run_pod(server, account, HOME, &given)?;
    ensure!(fine, "check: {said}");
    for what in [
        "API server",
        "definitions",
        "leader",
        "other namespaces",
        "metrics",
    ] {
        ensure!(said.contains(&format!("ok  {what}: ")), "{said}");
    }
    let stray = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
        "metadata": {"name": "stray", "namespace": "default"}, "spec": {"domain": "stray.example"}});
    server
        .kubectl()
        .run_with(&["apply", "--filename=-"], &stray.to_string())?;
    let (fine, said) = run_pod(server, account, HOME, &given)?;
    let told = "NOT OK  other namespaces: nobody watches namespace \"default\": XmppFederatedPartner/stray";
    ensure!(!fine && said.contains(told), "{said}");
    server
        .kubectl()
        .run(&["delete", "xfp/stray", "--namespace=default"])?;
    say(
        server,
        "pod/xmpp-edge-check",
        &json!({"phase": "Succeeded"}),
    )?;
    ended(test, "helm test").await?;
    Ok(())
}

async fn uninstalled(
    server: &ApiServer,
    helm: &Helm,
    operator: &mut Operator,
    account: &ClusterIdentity,
) -> Result<()> {
    let job = "job/xmpp-edge-uninstall";
    let uninstall = helm.start(&[
        "uninstall",
        "xmpp-edge",
        "--namespace",
        HOME,
        "--timeout=120s",
    ])?;
    let found = appears(server, job).await?;
    let given = arguments(&found["spec"]["template"]["spec"]);
    for round in ["first", "repeated"] {
        let (fine, said) = run_pod(server, account, HOME, &given)?;
        ensure!(fine, "prepare-uninstall, {round}: {said}");
        ensure!(
            said.contains("released: EdgePool chat/hq") == (round == "first"),
            "{round}: {said}"
        );
        let record = "stays in DNS: _xmpp-server._tcp.example.org";
        ensure!(
            said.contains(record) == (round == "first"),
            "{round}: {said}"
        );
    }
    let stopped = wait::until("the operator leaves", SOON, async || {
        operator.process().exited()
    })
    .await?;
    ensure!(!stopped.success(), "it lost its lease: {stopped}");
    ensure!(operator.process().log().contains("lease was lost"));
    let now = jiff::Timestamp::now().to_string();
    let condition = |name: &str| json!({"type": name, "status": "True", "lastTransitionTime": now, "lastProbeTime": now});
    say(
        server,
        job,
        &json!({
            "startTime": now, "completionTime": now, "succeeded": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        }),
    )?;
    ended(uninstall, "helm uninstall").await?;
    Ok(())
}

/// Nothing of the release is left but the definitions; the pool is, and can be deleted by hand.
async fn nothing_is_stuck(server: &ApiServer) -> Result<()> {
    let kinds = [
        "deployment",
        "service",
        "serviceaccount",
        "role",
        "rolebinding",
        "clusterrole",
        "clusterrolebinding",
        "poddisruptionbudget",
        "configmap",
        "job",
        "pod",
    ];
    for kind in kinds {
        let left = server.kubectl().run(&[
            "get",
            kind,
            "--all-namespaces",
            "--output=name",
            "--selector=app.kubernetes.io/instance=xmpp-edge",
        ])?;
        ensure!(left.is_empty(), "left: {left}");
    }
    let definitions = names(server, "crd")?;
    ensure!(definitions.len() == 3, "{definitions:?}");
    let pool = get(server, WATCHED, "edgepool/hq")?;
    ensure!(pool["metadata"]["finalizers"].is_null(), "{pool:#}");
    let place = ["--namespace", WATCHED, "--timeout=120s"];
    server
        .kubectl()
        .run(&[&["delete", "edgepool/hq"], &place[..]].concat())?;
    Ok(())
}

async fn life(server: &ApiServer, major: Major) -> Result<()> {
    let helm = Helm::on(server, major, server.admin())?;
    install(&helm, HOME, &["--set=watchNamespaces={chat}"])?;
    let account = server.service_account(HOME, "xmpp-edge").await?;
    let mut operator = operator(server, &account)?;
    operator.ready().await?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pool()}).to_string();
    let apply = ["apply", "--server-side", "-f", "-"];
    server.kubectl().run_with(&apply, &list)?;
    wait::until("the pool says its records", SOON, async || {
        let pool = get(server, WATCHED, "edgepool/hq").ok()?;
        pool["status"]["srvRecords"].is_array().then_some(())
    })
    .await?;
    tested(server, &helm, &operator, &account).await?;
    let more = ["--namespace", HOME, "--reuse-values", "--set=replicas=3"];
    helm.run(&[&["upgrade", "xmpp-edge", &chart()], &more[..]].concat())?;
    let deployment = get(server, HOME, "deployment/xmpp-edge")?;
    ensure!(deployment["spec"]["replicas"] == 3, "{deployment:#}");
    uninstalled(server, &helm, &mut operator, &account).await?;
    nothing_is_stuck(server).await
}

fn whole_life(major: Major) {
    if !has_helm(&[major]) {
        return;
    }
    alone(async {
        let server = ApiServer::start().await?;
        server.namespace(HOME, &[]).await?;
        server.namespace(WATCHED, &[]).await?;
        life(&server, major).await
    });
}

#[test]
fn installed_tested_upgraded_and_gone_by_helm_4_without_anything_stuck() {
    whole_life(Major::Four);
}

#[test]
fn installed_tested_upgraded_and_gone_by_helm_3_without_anything_stuck() {
    whole_life(Major::Three);
}

/// A watched namespace that is not there is told before anything is made: nothing has to be undone.
fn nothing_is_made_for_a_namespace_that_is_not_there(server: &ApiServer) -> Result<()> {
    let settings: [&[&str]; 3] = [
        &["--set=watchNamespaces={chat}"],
        &["--set=sidecars.chat={org}"],
        // Who keeps the definitions apart is told as well.
        &["--set=sidecars.chat={org}", "--set=crds.enabled=false"],
    ];
    for (major, settings) in [Major::Three, Major::Four]
        .into_iter()
        .flat_map(|major| settings.map(|settings| (major, settings)))
    {
        let helm = Helm::on(server, major, server.admin())?;
        let error = install(&helm, HOME, settings)
            .expect_err("there is no namespace chat")
            .to_string();
        for said in ["no namespace \"chat\"", "kubectl create namespace chat"] {
            ensure!(error.contains(said), "{error}");
        }
        ensure!(names(server, "crd")?.is_empty(), "definitions");
        let releases = helm.run(&["list", "--all-namespaces", "--output=json"])?;
        ensure!(releases.trim() == "[]", "{releases}");
    }
    Ok(())
}

#[test]
fn a_namespace_that_is_not_there_is_told_first_and_definitions_go_where_they_are_not_kept() {
    if !has_helm(&[Major::Three, Major::Four]) {
        return;
    }
    alone(async {
        let server = ApiServer::start().await?;
        server.namespace(HOME, &[]).await?;
        nothing_is_made_for_a_namespace_that_is_not_there(&server)?;
        let helm = Helm::on(&server, Major::Four, server.admin())?;
        install(
            &helm,
            HOME,
            &["--set=crds.keep=false", "--set=cleanup.enabled=false"],
        )?;
        ensure!(names(&server, "crd")?.len() == 3);
        helm.run(&["uninstall", "xmpp-edge", "--namespace", HOME])?;
        // The API server takes their objects away first, on its own.
        wait::until("the definitions are gone", SOON, async || {
            names(&server, "crd").ok()?.is_empty().then_some(())
        })
        .await
    });
}
