//! `examples/kind/demo` with programs that write down what they are called with, and do nothing.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use tempfile::TempDir;

use crate::source::root;

/// Docker has no daemon; the cluster is there already.
const PROGRAM: &str = r#"#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
"docker info") exit 1 ;;
"kind get clusters") echo xmpp-edge ;;
"kubectl get --raw "*) echo "$SERVED" ;;
esac
"#;
/// What the API server tells of its admission policies, before Kubernetes 1.36 and from then on.
const BEFORE: &str = r#"{"resources":[{"name":"validatingadmissionpolicies"}]}"#;
const SINCE: &str = r#"{"resources":[{"name":"mutatingadmissionpolicies"},{"name":"validatingadmissionpolicies"}]}"#;

/// How the demonstration ended.
struct Shown {
    is_fine: bool,
    /// A line for each call of a program.
    calls: String,
    said: String,
}

fn shown(sidecar: &str, served: &str) -> Shown {
    let folder = TempDir::new().unwrap();
    for name in ["docker", "podman", "kind", "kubectl", "helm"] {
        let path = folder.path().join(name);
        fs::write(&path, PROGRAM).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let calls = folder.path().join("calls");
    let path = std::env::var("PATH").unwrap();
    let done = Command::new("/bin/sh")
        .arg(root().join("examples/kind/demo"))
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env("CALLS", &calls)
        .env("SERVED", served)
        .env("SIDECAR", sidecar)
        .env_remove("ENGINE")
        .output()
        .unwrap();
    Shown {
        is_fine: done.status.success(),
        calls: fs::read_to_string(calls).unwrap(),
        said: String::from_utf8(done.stderr).unwrap(),
    }
}

#[test]
fn the_node_of_kind_has_the_images_of_podman_under_the_names_that_it_looks_for() {
    let shown = shown("", BEFORE);
    assert!(shown.is_fine, "{}", shown.said);
    let calls: Vec<&str> = shown.calls.lines().collect();
    let saved = calls.iter().find(|it| it.starts_with("podman save "));
    let saved = saved.unwrap();
    assert!(saved.contains(" --multi-image-archive "), "{saved}");
    let version = env!("CARGO_PKG_VERSION");
    for image in [
        format!("xmpp-edge-operator:{version}"),
        format!("xmpp-edge-proxy:{version}"),
        "xmpp-edge-demo-servers:1".to_owned(),
    ] {
        let name = format!("docker.io/library/{image}");
        let tagged = format!("podman tag {image} {name}");
        assert!(calls.contains(&&*tagged), "{tagged}: {calls:#?}");
        assert!(saved.split(' ').any(|it| it == name), "{name}: {saved}");
    }
    let by_docker = calls.iter().find(|it| it.starts_with("docker build"));
    assert_eq!(by_docker, None, "it has no daemon");
}

#[test]
fn a_sidecar_is_not_asked_of_a_cluster_that_cannot_add_it() {
    let refused = shown("1", BEFORE);
    assert!(!refused.is_fine, "{}", refused.calls);
    let told = "kind-demo: SIDECAR=1 needs Kubernetes 1.36 or newer";
    assert!(refused.said.contains(told), "{}", refused.said);
    assert!(!refused.calls.contains("podman build"), "{}", refused.calls);
    let added = shown("1", SINCE);
    assert!(added.is_fine, "{}", added.said);
    assert!(
        added.calls.contains("sidecar.injection=on"),
        "{}",
        added.calls
    );
}
