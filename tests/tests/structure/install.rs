//! `tests/install` on a machine that it cannot install on: a word of what is missing, no trace.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use tempfile::TempDir;

use crate::source::root;

/// Runs it where there are no other programs than these; its code and what it said.
fn install(programs: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    for (name, body) in programs {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let done = Command::new("/bin/sh")
        .arg(root().join("tests/install"))
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    (done.status.code(), said)
}

#[test]
fn without_apt_it_names_what_the_tests_need() {
    let (code, said) = install(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no apt here"), "{said}");
    assert!(
        said.contains(" prosody ") && said.contains(" bind9 "),
        "{said}"
    );
}

#[test]
fn without_the_right_to_install_it_names_what_is_missing() {
    // Everything is there but Prosody.
    let query = r#"case "$4" in prosody) exit 1;; *) echo "install ok installed";; esac"#;
    // What the script itself needs.
    let grep = r#"exec /bin/grep "$@""#;
    let (code, said) = install(&[
        ("apt-get", "exit 99"),
        ("dpkg-query", query),
        ("grep", grep),
        ("id", "echo 1000"),
    ]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("neither root nor sudo"), "{said}");
    assert!(said.contains("Missing: prosody"), "{said}");
    assert!(!said.contains("bind9"), "{said}");
}
