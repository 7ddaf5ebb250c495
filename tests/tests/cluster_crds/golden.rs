//! What kubectl prints of each kind, as files that a reviewer reads: `get`, `get -o wide`, `describe`
//! and `explain`. `UPDATE_GOLDEN=1` writes them anew.

use std::{fs, path::PathBuf};

use anyhow::Result;
use xmpp_edge_tests::cluster::Namespace;

use crate::{SERVER, columns};

/// Kind as kubectl is asked, an object of it, and the fields that are explained.
const KINDS: [(&str, &str, &[&str]); 3] = [
    ("xfp", "northwind", &["", ".spec", ".spec.trust", ".status"]),
    ("exap", "sales", &["", ".spec", ".status"]),
    (
        "epool",
        "berlin",
        &[
            "",
            ".spec",
            ".spec.gateways",
            ".spec.listeners",
            ".spec.service",
            ".spec.settings",
            ".spec.podTemplate.securityContext",
            ".status",
        ],
    ),
];

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/cluster_crds/golden"
    ))
}

/// What differs from run to run, written as what it is.
fn normal(namespace: &str, text: &str) -> String {
    let known = text.replace(namespace, "NAMESPACE");
    let lines = known.lines().map(|line| {
        let key = line.trim_start().split(':').next().unwrap_or_default();
        let varies = ["UID", "Resource Version", "Creation Timestamp"].contains(&key);
        if varies {
            format!("{}: VARIES", line.split(':').next().unwrap_or_default())
        } else {
            line.trim_end().to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The age is the last column, and differs.
fn without_age(table: &str) -> String {
    let at = table
        .lines()
        .next()
        .and_then(|head| head.find("AGE"))
        .unwrap_or(usize::MAX);
    let rows = table.lines().map(|row| row[..at.min(row.len())].trim_end());
    rows.collect::<Vec<_>>().join("\n")
}

fn printed(namespace: &Namespace<'_>) -> Result<Vec<(String, String)>> {
    let kubectl = namespace.server.kubectl();
    let at = ["-n", &namespace.name];
    let mut found = Vec::new();
    for (kind, name, fields) in KINDS {
        for (file, more) in [("get", &[][..]), ("get-wide", &["-o", "wide"][..])] {
            let table = kubectl.run(&[&["get", kind], &at[..], more].concat())?;
            let asked = [&["$ kubectl get", kind], more].concat().join(" ");
            found.push((
                format!("{kind}-{file}.txt"),
                format!("{asked}\n{}\n", without_age(&table)),
            ));
        }
        let text = kubectl.run(&[&["describe", kind, name], &at[..]].concat())?;
        found.push((
            format!("{kind}-describe.txt"),
            format!(
                "$ kubectl describe {kind} {name}\n{}",
                normal(&namespace.name, &text)
            ),
        ));
        let mut text = String::new();
        for field in fields {
            let of = format!("{kind}{field}");
            let said = kubectl.run(&["explain", &of])?;
            text.push_str(&format!(
                "$ kubectl explain {of}\n{}\n",
                normal("\u{0}", &said)
            ));
        }
        found.push((format!("{kind}-explain.txt"), text));
    }
    Ok(found)
}

#[test]
fn what_kubectl_prints_of_each_kind_is_what_was_reviewed() {
    SERVER.test(async |namespace| {
        columns::partners(namespace).await?;
        columns::policies(namespace).await?;
        columns::pools(namespace).await?;
        let mut stale = Vec::new();
        for (name, text) in printed(namespace)? {
            let path = folder().join(&name);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::create_dir_all(folder())?;
                fs::write(&path, &text)?;
            }
            if fs::read_to_string(&path).unwrap_or_default() != text {
                stale.push(format!("{name}:\n{text}"));
            }
        }
        assert!(
            stale.is_empty(),
            "UPDATE_GOLDEN=1 shows where: {}",
            stale.join("\n")
        );
        Ok(())
    });
}
