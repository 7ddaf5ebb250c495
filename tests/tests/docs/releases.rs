//! What makes a release: the workflows are right, and what has a version has the same one.

use std::{fs, process::Command};

use xmpp_edge_tests::cluster::{actionlint, skip};

use super::{files, root};

#[test]
fn workflows_are_what_github_takes() {
    let program = match actionlint() {
        Ok(program) => program,
        Err(missing) => return skip(&missing),
    };
    let workflows = files(&root().join(".github/workflows"), "yml");
    assert_eq!(workflows.len(), 2, "CI and release");
    let answer = Command::new(program).args(&workflows).output().unwrap();
    let said = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.status.success(), "{said}");
}

#[test]
fn ci_calls_what_every_change_must_pass() {
    let ci = fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    assert!(ci.lines().any(|line| line.trim() == "run: .ci/run"), "{ci}");
}

#[test]
fn workspace_chart_and_changelog_are_of_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let build = root().join("images/build");
    let of_images = Command::new(build).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&of_images.stdout).trim(), version);
    let chart = fs::read_to_string(root().join("charts/xmpp-edge/Chart.yaml")).unwrap();
    for field in ["version", "appVersion"] {
        let line = format!("{field}: {version}");
        assert!(chart.lines().any(|it| it == line), "{line}: {chart}");
    }
}
