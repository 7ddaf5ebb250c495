//! What a manifest asks for is used: by its crate, or by a member where the workspace names it.

use std::{collections::BTreeSet, fs, str::FromStr};

use proc_macro2::{TokenStream, TokenTree};

use crate::source::{root, rust_files};

/// Each member, and folders beside its own whose files it includes by path.
const MEMBERS: &[(&str, &[&str])] = &[
    ("crds", &[]),
    ("proxy", &["tests/fuzz/oracles"]),
    ("operator", &[]),
    ("tests", &[]),
];

#[test]
fn no_manifest_asks_for_what_nothing_uses() {
    let mut unused = Vec::new();
    let mut wanted = BTreeSet::new();
    for (member, included) in MEMBERS {
        let mut named = BTreeSet::new();
        let own =
            ["src", "tests", "benches", "examples"].map(|folder| format!("{member}/{folder}"));
        for folder in own
            .iter()
            .map(String::as_str)
            .chain(included.iter().copied())
        {
            for path in rust_files(&root().join(folder)) {
                let text = fs::read_to_string(&path).unwrap();
                let tokens = TokenStream::from_str(&text).unwrap();
                crates(&tokens.into_iter().collect::<Vec<_>>(), &mut named);
            }
        }
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        for dependency in dependencies(&manifest, "") {
            if !named.contains(&library(&dependency)) {
                unused.push(format!("{member}/Cargo.toml: {dependency}"));
            }
            wanted.insert(dependency);
        }
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for dependency in dependencies(&manifest, "workspace.") {
        if !wanted.contains(&dependency) {
            unused.push(format!("Cargo.toml: {dependency}"));
        }
    }
    assert!(wanted.len() > 30, "the manifests are read wrongly");
    assert!(unused.is_empty(), "unused:\n{}", unused.join("\n"));
}

/// Names in the tables of dependencies.
fn dependencies(manifest: &str, prefix: &str) -> BTreeSet<String> {
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"]
        .map(|table| format!("[{prefix}{table}]"));
    let mut found = BTreeSet::new();
    let mut within = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            within = tables.iter().any(|table| table == line);
        } else if within && line.starts_with(|c: char| c.is_ascii_lowercase()) {
            let end = line.find(['.', ' ', '=']).unwrap();
            found.insert(line[..end].to_owned());
        }
    }
    found
}

/// What a crate is called in code.
fn library(package: &str) -> String {
    match package {
        "rustls-webpki" => "webpki".to_owned(),
        other => other.replace('-', "_"),
    }
}

/// Names that a path starts with, or `use`, or a path in a string as in `#[serde(with = "…")]`.
fn crates(tokens: &[TokenTree], found: &mut BTreeSet<String>) {
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(name) => {
                let path = matches!(tokens.get(at + 1), Some(TokenTree::Punct(it)) if it.as_char() == ':')
                    && matches!(tokens.get(at + 2), Some(TokenTree::Punct(it)) if it.as_char() == ':');
                let used = at > 0 && matches!(&tokens[at - 1], TokenTree::Ident(it) if it == "use");
                if path || used {
                    found.insert(name.to_string());
                }
            }
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if let Some((head, _)) = text.trim_start_matches('"').split_once("::") {
                    found.insert(head.to_owned());
                }
            }
            TokenTree::Group(group) => {
                crates(&group.stream().into_iter().collect::<Vec<_>>(), found);
            }
            TokenTree::Punct(_) => {}
        }
    }
}
