//! What a manifest asks for is used: by its crate, by its tests where it stands among theirs, or by a
//! member where the workspace names it.

use std::{collections::BTreeSet, fs, str::FromStr};

use proc_macro2::{TokenStream, TokenTree};

use crate::source::{Source, root, rust_files};

/// Each member, and folders beside its own whose files its tests include by path.
const MEMBERS: &[(&str, &[&str])] = &[
    ("crds", &[]),
    ("proxy", &["tests/fuzz/oracles"]),
    ("operator", &[]),
    ("tests", &[]),
];

#[test]
fn no_manifest_asks_for_what_nothing_uses() {
    let mut wrong = Vec::new();
    let mut wanted = BTreeSet::new();
    for (member, included) in MEMBERS {
        let by_program = words_of_program(member);
        let mut by_tests = words_of_tests(member, included);
        by_tests.extend(by_program.iter().cloned());
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let own = dependencies(&manifest, &["dependencies", "build-dependencies"]);
        let of_tests = dependencies(&manifest, &["dev-dependencies"]);
        for (asked, words, whose) in [
            (&own, &by_program, "the program"),
            (&of_tests, &by_tests, "a test"),
        ] {
            for dependency in asked {
                if !words.contains(&library(dependency)) {
                    wrong.push(format!("{member}/Cargo.toml: {whose} uses no {dependency}"));
                }
            }
        }
        for twice in own.intersection(&of_tests) {
            wrong.push(format!("{member}/Cargo.toml: {twice} is asked for twice"));
        }
        wanted.extend(own);
        wanted.extend(of_tests);
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for dependency in dependencies(&manifest, &["workspace.dependencies"]) {
        if !wanted.contains(&dependency) {
            wrong.push(format!("Cargo.toml: no member uses {dependency}"));
        }
    }
    assert!(wanted.len() > 30, "the manifests are read wrongly");
    assert!(wrong.is_empty(), "unused:\n{}", wrong.join("\n"));
}

/// What the code of a member names, its tests left out.
fn words_of_program(member: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let sources = Source::all(member);
    for source in sources.iter().filter(|it| !it.is_test()) {
        crates(&source.tokens(), &mut words);
    }
    words
}

fn words_of_tests(member: &str, included: &[&str]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let own = ["src", "tests", "benches", "examples"].map(|folder| format!("{member}/{folder}"));
    let folders = own.iter().map(String::as_str);
    for folder in folders.chain(included.iter().copied()) {
        for path in rust_files(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            let tokens = TokenStream::from_str(&text).unwrap();
            crates(&tokens.into_iter().collect::<Vec<_>>(), &mut words);
        }
    }
    words
}

/// Names in these tables of a manifest.
fn dependencies(manifest: &str, tables: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut within = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            within = tables.iter().any(|table| line == format!("[{table}]"));
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
