//! The source files of a crate, read as tokens: comments and strings name nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// A file of source.
pub struct Source {
    /// From the repository's root.
    pub path: String,
    pub text: String,
    /// Its module path: `["tls", "verify"]` for `tls/verify/mod.rs`.
    pub module: Vec<String>,
}

/// A path that starts in the crate, as `crate::tls::Identity`.
pub struct Reference {
    /// Without `crate`; cut where it stops being a plain path.
    pub path: Vec<String>,
    pub line: usize,
}

impl Source {
    /// All files below `src` of this crate, sorted.
    pub fn all(name: &str) -> Vec<Self> {
        let from = root().join(name).join("src");
        let paths = rust_files(&from);
        let sources = paths.iter().map(|path| Self {
            path: from_root(path),
            text: fs::read_to_string(path).unwrap(),
            module: module(path.strip_prefix(&from).unwrap()),
        });
        sources.collect()
    }

    /// The folder or file directly below `src` that it belongs to; `main` and `lib` are their own.
    pub fn room(&self) -> &str {
        self.module.first().map_or_else(
            || {
                let name = self.path.rsplit('/').next().unwrap();
                name.trim_end_matches(".rs")
            },
            String::as_str,
        )
    }

    /// Whether it stands for a folder: `mod.rs`, and the roots of a crate.
    pub fn is_folder(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap();
        matches!(name, "mod.rs" | "lib.rs" | "main.rs")
    }

    /// Whether it is part of tests alone.
    pub fn is_test(&self) -> bool {
        self.module
            .iter()
            .any(|it| it == "tests" || it == "testing")
    }

    /// Every path into the crate that it names, tests left out.
    pub fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        walk(&self.tokens(), &self.module, &mut found);
        found
    }

    /// First segments of all paths (`rustls` of `rustls::Error`), with their lines, tests left out.
    pub fn heads(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        heads(&self.tokens(), &mut found);
        found
    }

    /// What it says, tests left out.
    pub fn tokens(&self) -> Vec<TokenTree> {
        let stream = TokenStream::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path));
        without_tests(stream)
    }
}

/// A path as it is from the repository's root on.
pub fn from_root(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap();
    path.to_string_lossy().into_owned()
}

/// All `.rs` below this folder, sorted; none where there is no folder.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    collect(folder, &mut paths);
    paths.sort();
    paths
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            into.push(path);
        }
    }
}

fn module(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if matches!(
        parts.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        parts.pop();
    }
    parts
}

/// Tokens without items under `#[cfg(test)]`. An attribute is `#` and a group; the item ends with its
/// first `;` or braces.
fn without_tests(stream: TokenStream) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut tokens = stream.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_test = is_punct(&token, '#')
            && matches!(tokens.peek(), Some(TokenTree::Group(group))
                if group.stream().to_string().replace(' ', "").starts_with("cfg(test"));
        if !is_test {
            kept.push(token);
            continue;
        }
        for skipped in tokens.by_ref() {
            let ends = is_punct(&skipped, ';')
                || matches!(&skipped, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
            if ends {
                break;
            }
        }
    }
    kept
}

pub fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    tokens.len() > at + 1 && is_punct(&tokens[at], ':') && is_punct(&tokens[at + 1], ':')
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

/// Finds paths that begin with `crate` or `super`, seen from this module.
fn walk(tokens: &[TokenTree], module: &[String], found: &mut Vec<Reference>) {
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(name)
                if (name == "crate" || name == "super") && is_path_separator(tokens, at + 1) =>
            {
                let mut base = if name == "crate" {
                    Vec::new()
                } else {
                    module[..module.len().saturating_sub(1)].to_vec()
                };
                let line = name.span().start().line;
                at = path(tokens, at + 3, &mut base, line, found);
            }
            // A module in braces is one level more for `super`.
            TokenTree::Ident(name) if name == "mod" => {
                let inner = ident(tokens.get(at + 1));
                if let (Some(inner), Some(TokenTree::Group(body))) = (inner, tokens.get(at + 2)) {
                    let mut below = module.to_vec();
                    below.push(inner);
                    walk(&without_tests(body.stream()), &below, found);
                    at += 3;
                } else {
                    at += 1;
                }
            }
            TokenTree::Group(group) => {
                walk(&without_tests(group.stream()), module, found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Follows one path, or a tree of them as in `use`; says where it ended.
fn path(
    tokens: &[TokenTree],
    mut at: usize,
    base: &mut Vec<String>,
    line: usize,
    found: &mut Vec<Reference>,
) -> usize {
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) if name == "super" => {
                base.pop();
            }
            Some(TokenTree::Ident(name)) => base.push(name.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inner.split(|token| is_punct(token, ',')) {
                    if let Some(first) = branch.first() {
                        let line = first.span().start().line;
                        path(branch, 0, &mut base.clone(), line, found);
                    }
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        if !is_path_separator(tokens, at) {
            break;
        }
        at += 2;
    }
    found.push(Reference {
        path: base.clone(),
        line,
    });
    at
}

fn heads(tokens: &[TokenTree], found: &mut Vec<(String, usize)>) {
    for at in 0..tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(name)
                if is_path_separator(tokens, at + 1)
                    && !(at > 1 && is_path_separator(tokens, at - 2)) =>
            {
                found.push((name.to_string(), name.span().start().line));
            }
            TokenTree::Group(group) => heads(&without_tests(group.stream()), found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(module: &[&str], text: &str) -> Vec<String> {
        let source = Source {
            path: String::new(),
            text: text.to_owned(),
            module: module.iter().map(|it| (*it).to_owned()).collect(),
        };
        let references = source.references().into_iter();
        references.map(|it| it.path.join("::")).collect()
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        let text = "
            use crate::{tls::{Identity, self}, dns};
            // crate::comment::of
            fn of(it: crate::xml::Element) { info!(\"crate::text\", x = crate::routing::of()); }
            mod inner { use super::super::sibling::Type; }
            #[cfg(test)]
            mod tests { use crate::app::App; }
            use super::super::policy::Policy;";
        assert_eq!(
            found(&["net", "deep"], text),
            [
                "tls::Identity",
                "tls::self",
                "dns",
                "xml::Element",
                "routing::of",
                "net::sibling::Type",
                "policy::Policy",
            ]
        );
    }
}
