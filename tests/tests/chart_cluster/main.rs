//! The chart with a real Helm, 3 and 4, on a real API server: what it renders is accepted, what is
//! wrong with values is named, the rights it grants are those that the operator uses, and an
//! uninstallation leaves nothing stuck. And its dashboards and alerts on a real Prometheus.
//!
//! There is no node: where Helm waits for a pod, the test runs the pod's program by itself, with its
//! arguments, as its ServiceAccount, and says how it ended.
#![allow(clippy::unwrap_used)]

mod dashboards;
mod effect;
mod injection;
mod kept;
mod life;
mod offline;
mod own_parts;
mod rights;
mod scope;
mod unit;
mod values;

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xmpp_edge_tests::{
    cluster::{ApiServer, ClusterIdentity, Helm, Major, Operator, SharedCluster, skip},
    edge,
};

/// With the kinds installed, but not by Helm.
static SERVER: SharedCluster = SharedCluster::new();

/// Where the chart is installed.
const HOME: &str = "edge-system";
/// Its account, as the API server calls it.
const ACCOUNT: &str = "system:serviceaccount:edge-system:xmpp-edge";

const MAJORS: [Major; 2] = [Major::Four, Major::Three];

/// Whether these were built; says so where not.
fn has_helm(majors: &[Major]) -> bool {
    let missing = majors
        .iter()
        .find_map(|major| Helm::offline(*major, PathBuf::new()).err());
    missing.iter().for_each(skip);
    missing.is_none()
}

fn chart() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/xmpp-edge");
    PathBuf::from(folder).display().to_string()
}

/// The documents of a YAML stream.
fn documents(yaml: &str) -> Vec<Value> {
    let documents = yaml.split("\n---").map(|it| it.trim_start_matches("---"));
    documents
        .map(|it| serde_saphyr::from_str::<Value>(it).unwrap())
        .filter(|it| it.is_object())
        .collect()
}

/// `KIND/NAME` of an object.
fn title(object: &Value) -> String {
    format!(
        "{}/{}",
        object["kind"].as_str().unwrap(),
        object["metadata"]["name"].as_str().unwrap()
    )
}

/// What a pod's container would be started with.
fn arguments(pod: &Value) -> Vec<String> {
    let arguments = pod["containers"][0]["args"].as_array().unwrap();
    arguments
        .iter()
        .map(|it| it.as_str().unwrap().to_owned())
        .collect()
}

/// The operator with the arguments of its Deployment, as the chart's account.
fn operator(server: &ApiServer, account: &ClusterIdentity) -> Result<Operator> {
    let deployment = get(server, HOME, "deployment/xmpp-edge")?;
    let mut given = arguments(&deployment["spec"]["template"]["spec"]);
    // Both are what the environment chooses: the program's first word, and a port that is free.
    given.retain(|it| it != "run" && !it.starts_with("--admin-listen="));
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    Operator::launch(server, account, HOME, &given)
}

/// Runs the operator's program as a container of `namespace` would, to its end; what it said.
fn run_pod(
    server: &ApiServer,
    who: &ClusterIdentity,
    namespace: &str,
    arguments: &[String],
) -> Result<(bool, String)> {
    let kubeconfig = server.kubeconfig_file("pod", who, namespace)?;
    let output = std::process::Command::new(edge::binary()?)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .output()?;
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

/// Installs the chart as the admin, without waiting for pods that nobody runs.
fn install(helm: &Helm, namespace: &str, more: &[&str]) -> Result<()> {
    let chart = chart();
    let mut all = vec!["install", "xmpp-edge", &chart, "--namespace", namespace];
    all.extend(more);
    helm.run(&all)?;
    Ok(())
}

/// An object as kubectl shows it.
fn get(server: &ApiServer, namespace: &str, what: &str) -> Result<Value> {
    let text = server
        .kubectl()
        .run(&["get", "--namespace", namespace, what, "--output=json"])?;
    serde_json::from_str(&text).with_context(|| what.to_owned())
}

/// Names of the objects of a kind, over all namespaces where it has them.
fn names(server: &ApiServer, kind: &str) -> Result<Vec<String>> {
    let text = server
        .kubectl()
        .run(&["get", kind, "--all-namespaces", "--output=name"])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// How a command ended, once it has.
async fn ended(child: std::process::Child, what: &str) -> Result<String> {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{what}: {said}");
    Ok(said)
}

/// Says in a Deployment's status that its pods are ready, as the controller for it would.
fn pods_are_ready(server: &ApiServer, namespace: &str, name: &str) -> Result<()> {
    let status = r#"{"status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}}"#;
    let what = format!("deployment/{name}");
    let place = ["--namespace", namespace, "--subresource=status"];
    let patch = ["--type=merge", "--patch", status];
    server
        .kubectl()
        .run(&[&["patch", &what], &place[..], &patch].concat())?;
    Ok(())
}
