//! `xmpp-edge-proxy sidecar key` as an administrator calls it.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn key(state: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xmpp-edge-proxy"))
        .args(["sidecar", "key", "--state"])
        .arg(state)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn it_prints_the_same_key_each_time_as_openssl_counts_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let first = said(&key(&state));
    assert_eq!(said(&key(&state)), first);
    let script = "openssl x509 -in \"$0/tls.crt\" -noout -pubkey | openssl pkey -pubin -outform der | sha256sum";
    let counted = Command::new("sh")
        .args(["-c", script])
        .arg(&state)
        .output()
        .unwrap();
    let counted = said(&counted);
    let digits = counted.split(' ').next().unwrap();
    assert_eq!(first, format!("sha256:{digits}\n"));
}

#[test]
fn a_broken_state_is_told_on_stderr_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    said(&key(folder.path()));
    let path = folder.path().join("tls.key");
    fs::write(&path, "not a key").unwrap();
    let output = key(folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("error: ") && said.contains("tls.key cannot be used"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a key");
}

#[test]
fn without_a_state_folder_it_is_wrong_usage() {
    let output = Command::new(env!("CARGO_BIN_EXE_xmpp-edge-proxy"))
        .args(["sidecar", "key"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--state <DIR>"), "{said}");
}
