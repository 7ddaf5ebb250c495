//! Tests wait for what they wait for, not for time to pass. A sleep is the pause between two looks of a
//! loop, or the comment above it says why time itself is the subject.

use std::{fs, str::FromStr};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{
    Finding, assert_excepted,
    source::{Source, from_root, is_punct, root, rust_files},
};

const SLEEPS: [&str; 2] = ["sleep", "sleep_until"];

#[test]
fn a_test_that_sleeps_looks_again_or_says_why() {
    let mut found = Vec::new();
    let mut read = 0;
    for (path, text) in tests() {
        let tokens = TokenStream::from_str(&text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for line in bare_sleeps(tokens) {
            let above = line.checked_sub(2).and_then(|at| lines.get(at));
            if !above.is_some_and(|above| above.trim_start().starts_with("//")) {
                found.push(Finding {
                    key: path.clone(),
                    place: format!(
                        "{path}:{line}: why time itself is the subject, in a comment above"
                    ),
                });
            }
        }
        read += 1;
    }
    assert!(read > 200, "the tests are read wrongly");
    assert_excepted("sleeps in tests", &found);
}

/// Every file of tests, and what they stand on.
fn tests() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in [
        "tests/src",
        "tests/tests",
        "tests/benches",
        "crds/tests",
        "proxy/tests",
        "operator/tests",
    ] {
        for path in rust_files(&root().join(folder)) {
            files.push((from_root(&path), fs::read_to_string(&path).unwrap()));
        }
    }
    for name in ["crds", "proxy", "operator"] {
        let sources = Source::all(name).into_iter();
        files.extend(sources.filter(Source::is_test).map(|it| (it.path, it.text)));
    }
    files
}

/// Lines on which something sleeps outside of any loop.
fn bare_sleeps(tokens: TokenStream) -> Vec<usize> {
    let mut found = Vec::new();
    let mut opens_loop = false;
    let mut before: Option<String> = None;
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Ident(name) => {
                let name = name.to_string();
                let is_call = matches!(tokens.peek(), Some(TokenTree::Group(group))
                    if group.delimiter() == Delimiter::Parenthesis);
                if SLEEPS.contains(&name.as_str()) && is_call && before.as_deref() != Some("fn") {
                    found.push(token.span().start().line);
                }
                // `for … in`, so that `impl … for` opens none.
                opens_loop |= matches!(name.as_str(), "loop" | "while" | "in");
                before = Some(name);
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                if !std::mem::take(&mut opens_loop) {
                    found.extend(bare_sleeps(group.stream()));
                }
                before = None;
            }
            TokenTree::Group(group) => {
                found.extend(bare_sleeps(group.stream()));
                before = None;
            }
            TokenTree::Punct(_) if is_punct(&token, ';') => {
                opens_loop = false;
                before = None;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => before = None,
        }
    }
    found
}

#[test]
fn a_sleep_between_two_looks_is_told_from_one_that_only_waits() {
    let text = "
        fn sleep() {}
        impl Thing for Other { async fn of() { sleep(PAUSE).await; } }
        async fn looks() {
            loop { if done() { return; } tokio::time::sleep(PAUSE).await; }
            while !done() { thread::sleep(PAUSE); }
            for _ in 0..5 { if done() { sleep(PAUSE) } }
            let waits = async { sleep_until(at).await };
            let field = it.sleep;
        }";
    let tokens = TokenStream::from_str(text).unwrap();
    assert_eq!(bare_sleeps(tokens), [3, 8]);
}
