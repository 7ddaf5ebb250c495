//! Definitions that outlive their release, and a release that no Helm takes away.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::cluster::{ApiServer, Helm, Major, alone};

use super::{HOME, chart, get, has_helm, install, names, run_pod};

const ELSEWHERE: &str = "edge-two";
/// One organisation's, as the guide calls it.
const WATCHED: &str = "edge";
/// What the guide has typed where no hook runs.
const BY_HAND: &str = "prepare-uninstall --lease-name xmpp-edge --watch-namespace edge";

fn taken_over_by_another_name(server: &ApiServer, major: Major) -> Result<()> {
    let helm = Helm::on(server, major, server.admin())?;
    install(&helm, HOME, &["--set=cleanup.enabled=false"])?;
    helm.run(&["uninstall", "xmpp-edge", "--namespace", HOME])?;
    ensure!(names(server, "crd")?.len() == 3, "definitions are kept");
    let chart = chart();
    let other = ["install", "second", &chart, "--namespace", ELSEWHERE];
    let off = "--set=cleanup.enabled=false";
    let refused = helm.run(&[&other[..], &[off]].concat());
    let said = refused
        .expect_err("the definitions are the first release's")
        .to_string();
    ensure!(said.contains("invalid ownership metadata"), "{said}");
    helm.run(&[&other[..], &[off, "--take-ownership"]].concat())?;
    let crd = get(server, HOME, "crd/xmppfederatedpartners.xmpp-edge.dev")?;
    let owner = &crd["metadata"]["annotations"]["meta.helm.sh/release-name"];
    ensure!(owner == "second", "{owner}");
    // A third one leaves them to it.
    install(&helm, HOME, &[off, "--set=crds.enabled=false"])?;
    for (name, namespace) in [("xmpp-edge", HOME), ("second", ELSEWHERE)] {
        helm.run(&["uninstall", name, "--namespace", namespace])?;
    }
    ensure!(names(server, "crd")?.len() == 3, "definitions are kept");
    Ok(())
}

#[test]
fn k15_definitions_that_were_kept_are_taken_over_as_the_guide_says() {
    if !has_helm(&[Major::Three, Major::Four]) {
        return;
    }
    alone(async {
        for major in [Major::Three, Major::Four] {
            let server = ApiServer::start().await?;
            server.namespace(HOME, &[]).await?;
            server.namespace(ELSEWHERE, &[]).await?;
            restored(&server, major)?;
            taken_over_by_another_name(&server, major)?;
        }
        Ok(())
    });
}

/// The order of the guide: definitions and objects are there before the release that they come with.
fn restored(server: &ApiServer, major: Major) -> Result<()> {
    const DEFINITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
    let kubectl = server.kubectl();
    kubectl.run(&["apply", "--server-side", "--filename", DEFINITIONS])?;
    let helm = Helm::on(server, major, server.admin())?;
    let off = "--set=cleanup.enabled=false";
    let said = match install(&helm, HOME, &[off]) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    ensure!(said.contains("invalid ownership metadata"), "{said}");
    for more in ["--take-ownership", "--set=crds.enabled=false"] {
        install(&helm, HOME, &[off, more])?;
        helm.run(&["uninstall", "xmpp-edge", "--namespace", HOME])?;
        ensure!(names(server, "crd")?.len() == 3, "definitions are kept");
    }
    kubectl.run(&["delete", "--filename", DEFINITIONS, "--timeout=120s"])?;
    Ok(())
}

/// As tools do it that render a chart and leave its hooks out.
fn applied_and_deleted_without_hooks(server: &ApiServer) -> Result<()> {
    let helm = Helm::on(server, Major::Four, server.admin())?;
    let rendered = helm.run(&[
        "template",
        "xmpp-edge",
        &chart(),
        "--no-hooks",
        "--namespace",
        HOME,
        "--set=watchNamespaces={edge}",
    ])?;
    let kubectl = server.kubectl();
    let apply = ["apply", "--server-side", "--filename=-"];
    kubectl.run_with(&apply, &rendered)?;
    let definition = "crd/edgepools.xmpp-edge.dev";
    kubectl.run(&[
        "wait",
        "--for=condition=Established",
        "--timeout=120s",
        definition,
    ])?;
    let pool = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
        "metadata": {"name": "hq", "namespace": WATCHED, "finalizers": ["xmpp-edge.dev/dns"]},
        "spec": {"site": "hq", "domains": ["example.org"],
            "accessEdge": {"fqdn": "edge.example.org", "addresses": ["192.0.2.7"]},
            "gateways": [{"domains": ["example.org"], "address": "192.0.2.1:5269"}],
            "certificate": {"selfSigned": {}}}});
    kubectl.run_with(&apply, &pool.to_string())?;
    // An operator led, and is gone: what the guide says is done by hand, with the administrator's kubeconfig.
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "xmpp-edge", "namespace": HOME}, "spec": {"leaseDurationSeconds": 15}});
    kubectl.run_with(&apply, &lease.to_string())?;
    by_a_name_that_is_wrong_nothing_is_made(server)?;
    let given: Vec<String> = BY_HAND.split(' ').map(str::to_owned).collect();
    let (fine, said) = run_pod(server, server.admin(), HOME, &given)?;
    ensure!(
        fine && said.contains(&format!("released: EdgePool {WATCHED}/hq")),
        "{said}"
    );
    ensure!(!said.contains("there is no Lease"), "{said}");
    let left = kubectl.run(&[
        "get",
        "epool",
        "--all-namespaces",
        "--output=jsonpath={.items[*].metadata.finalizers}",
    ])?;
    ensure!(!left.contains("xmpp-edge.dev/dns"), "{left}");
    let away = [
        "delete",
        "--filename=-",
        "--timeout=120s",
        "--ignore-not-found",
    ];
    kubectl.run_with(&away, &rendered)?;
    // The definitions went with the rest, and their objects with them.
    ensure!(names(server, "crd")?.is_empty());
    Ok(())
}

/// It says which it looked for and which there are, and leaves no Lease of its own.
fn by_a_name_that_is_wrong_nothing_is_made(server: &ApiServer) -> Result<()> {
    let given = ["prepare-uninstall".to_owned()];
    let (fine, said) = run_pod(server, server.admin(), HOME, &given)?;
    for part in [
        "there is no Lease \"xmpp-edge-operator\" in namespace \"edge-system\"",
        "operators have edge-system/xmpp-edge:",
        "done: 0 EdgePools released",
    ] {
        ensure!(fine && said.contains(part), "{part}: {said}");
    }
    let leases = names(server, "lease")?;
    ensure!(
        !leases.iter().any(|it| it.ends_with("/xmpp-edge-operator")),
        "{leases:?}"
    );
    Ok(())
}

#[test]
fn what_is_typed_where_no_hook_runs_stands_in_both_guides() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide");
    for page in ["special-clusters.md", "install.md"] {
        let text = fs::read_to_string(format!("{folder}/{page}")).unwrap();
        let typed = format!("xmpp-edge-operator {BY_HAND}");
        assert!(text.contains(&typed), "{page} lacks: {typed}");
    }
}

#[test]
fn k18_a_release_that_is_applied_and_deleted_without_hooks_leaves_nothing_stuck() {
    if !has_helm(&[Major::Four]) {
        return;
    }
    alone(async {
        let server = ApiServer::start().await?;
        server.namespace(HOME, &[]).await?;
        server.namespace(WATCHED, &[]).await?;
        applied_and_deleted_without_hooks(&server)
    });
}
