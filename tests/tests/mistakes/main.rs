//! Each mistake that an administrator can make leads to the message that `docs/mistakes.md` has for
//! it, and nothing else stands there. What takes a cluster is in `operator_pool`, what takes Helm in
//! `chart_cluster`.
#![allow(clippy::unwrap_used)]

mod certificates;
mod commands;
mod objects;
mod secrets;
mod several;
mod standalone;
#[allow(dead_code, reason = "what is accepted is of no use here")]
#[path = "../../../crds/tests/table/mod.rs"]
mod table;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// Runs a program of the workspace; one that goes on where it should not is ended.
fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60"]).arg(program);
    command.args(arguments).output().unwrap()
}

/// What `validate` says of manifests: each error and warning as in the log, its reason before its text.
fn validate(manifests: impl AsRef<[u8]>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), manifests).unwrap();
    let place = folder.path().display().to_string();
    let operator = xmpp_edge_tests::edge::binary().unwrap();
    let arguments = ["validate", "--output", "json", "--manifests", &place];
    let said: Value = serde_json::from_slice(&run(&operator, &arguments).stdout).unwrap();
    let findings = said["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            let words = ["severity", "reason", "field", "text"].map(|word| finding[word].as_str());
            words.into_iter().flatten().collect::<Vec<_>>().join(": ")
        })
        .collect()
}
