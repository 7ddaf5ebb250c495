//! No circle of files: of two files, one can be read and changed without the other.
//!
//! A `mod.rs` and the files of its folder are one subject in parts: what they name of each other is no
//! arrow. What a `mod.rs` only hands on is an arrow to the file where it stands.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Item, UseTree};

use crate::{
    Finding, assert_excepted,
    layers::{reaches, sources},
    source::Source,
};

/// What a `use` may lead over, at most: a longer way would go round.
const STEPS: usize = 8;

#[test]
fn no_two_files_need_each_other() {
    let mut found = Vec::new();
    for name in ["crds", "proxy", "operator"] {
        let arrows = arrows(&sources(name));
        assert!(arrows.len() > 20, "{name} is read wrongly");
        let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for arrow in arrows.keys() {
            below.entry(&arrow.from).or_default().insert(&arrow.to);
        }
        // By its files, so that one that joins a circle is found.
        let mut circles: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
        for (arrow, places) in &arrows {
            if reaches(&below, &arrow.to, &arrow.from) {
                let within = |file: &&&str| {
                    reaches(&below, &arrow.from, file) && reaches(&below, file, &arrow.from)
                };
                let files = below.keys().filter(within).copied().collect();
                circles.entry(files).or_default().extend(places.clone());
            }
        }
        for (files, places) in circles {
            found.push(Finding {
                key: files.join(", "),
                place: places.join("\n    "),
            });
        }
    }
    assert_excepted("circles of files", &found);
}

/// One file names something of another.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
}

/// All arrows of a crate, with the lines where they stand.
fn arrows(sources: &[Source]) -> BTreeMap<Arrow, Vec<String>> {
    let files = Files::of(sources);
    let mut arrows: BTreeMap<Arrow, Vec<String>> = BTreeMap::new();
    for source in sources {
        for reference in source.references() {
            let Some(to) = files.of_path(&reference.path) else {
                continue;
            };
            if !is_over(source, to) && !is_over(to, source) && to.path != source.path {
                let arrow = Arrow {
                    from: source.path.clone(),
                    to: to.path.clone(),
                };
                let words = reference.path.join("::");
                let place = format!("{}:{} crate::{words}", source.path, reference.line);
                arrows.entry(arrow).or_default().push(place);
            }
        }
    }
    arrows
}

/// Whether `upper` is the `mod.rs` of a folder in which `lower` lies.
fn is_over(upper: &Source, lower: &Source) -> bool {
    upper.is_folder() && lower.module.starts_with(&upper.module)
}

/// Which file a path leads to.
struct Files<'a> {
    by_module: BTreeMap<&'a [String], &'a Source>,
    /// What a `mod.rs` brings in under a name of its own, by its module and that name.
    brought: BTreeMap<(&'a [String], String), Vec<String>>,
}

impl<'a> Files<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let mut by_module: BTreeMap<&[String], &Source> = BTreeMap::new();
        let mut brought = BTreeMap::new();
        for source in sources {
            // `main.rs` and `lib.rs` are one module; neither is ever the end of an arrow.
            by_module.insert(&source.module, source);
        }
        for source in sources.iter().filter(|it| it.is_folder()) {
            for item in syn::parse_file(&source.text).unwrap().items {
                if let Item::Use(item) = item {
                    let mut names = Vec::new();
                    flatten(&item.tree, Vec::new(), &mut names);
                    for (name, path) in names {
                        let path = absolute(source, path, &by_module);
                        brought.insert((source.module.as_slice(), name), path);
                    }
                }
            }
        }
        Self { by_module, brought }
    }

    fn of_path(&self, path: &[String]) -> Option<&'a Source> {
        let mut path = path.to_vec();
        for _ in 0..STEPS {
            let (module, rest) = self.split(&path);
            let Some(next) = rest
                .first()
                .and_then(|name| self.brought.get(&(module, name.clone())))
            else {
                return self.by_module.get(module).copied();
            };
            path = next.iter().chain(&rest[1..]).cloned().collect();
        }
        None
    }

    /// The longest module that the path begins with, and what is left.
    fn split<'p>(&self, path: &'p [String]) -> (&'p [String], &'p [String]) {
        (0..=path.len())
            .rev()
            .map(|at| path.split_at(at))
            .find(|(module, _)| self.by_module.contains_key(module))
            .unwrap_or((&[], path))
    }
}

/// Each name that a tree of `use` brings in, with what it stands for.
fn flatten(tree: &UseTree, mut path: Vec<String>, into: &mut Vec<(String, Vec<String>)>) {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            flatten(&part.tree, path, into);
        }
        UseTree::Name(name) if name.ident == "self" => {
            if let Some(last) = path.last() {
                into.push((last.clone(), path.clone()));
            }
        }
        UseTree::Name(name) => {
            path.push(name.ident.to_string());
            into.push((name.ident.to_string(), path));
        }
        UseTree::Rename(rename) => {
            path.push(rename.ident.to_string());
            into.push((rename.rename.to_string(), path));
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, path.clone(), into);
            }
        }
        UseTree::Glob(_) => {}
    }
}

/// A path as it stands in the `mod.rs` of `source`, from the crate's root on; another crate's path leads
/// nowhere in this one.
fn absolute(
    source: &Source,
    path: Vec<String>,
    modules: &BTreeMap<&[String], &Source>,
) -> Vec<String> {
    let mut base = source.module.clone();
    let mut rest = path.as_slice();
    match rest.first().map(String::as_str) {
        Some("crate") => {
            base.clear();
            rest = &rest[1..];
        }
        Some("self") => rest = &rest[1..],
        Some("super") => {
            while rest.first().is_some_and(|it| it == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        Some(first) => {
            let child: Vec<String> = base.iter().cloned().chain([first.to_owned()]).collect();
            if !modules.contains_key(child.as_slice()) {
                return path;
            }
        }
        None => {}
    }
    base.extend_from_slice(rest);
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, module: &[&str], text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            module: module.iter().map(|it| (*it).to_owned()).collect(),
        }
    }

    fn found(sources: &[Source]) -> Vec<(String, String)> {
        let arrows = arrows(sources).into_keys();
        arrows.map(|it| (it.from, it.to)).collect()
    }

    #[test]
    fn what_a_module_hands_on_is_found_where_it_stands() {
        let sources = [
            source("a/mod.rs", &["a"], "mod b; mod c; pub use b::Thing;"),
            source(
                "a/b.rs",
                &["a", "b"],
                "use super::c::Other; pub struct Thing;",
            ),
            source("a/c.rs", &["a", "c"], "use super::Thing; pub struct Other;"),
        ];
        let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(
            found(&sources),
            [arrow("a/b.rs", "a/c.rs"), arrow("a/c.rs", "a/b.rs")]
        );
    }

    #[test]
    fn a_folder_and_its_mod_rs_are_one_and_other_folders_are_not() {
        let sources = [
            source("lib.rs", &[], "mod a; mod d; use crate::a::b::Thing;"),
            source(
                "a/mod.rs",
                &["a"],
                "mod b; use crate::d::Far; use b::Thing; struct Own;",
            ),
            source("a/b.rs", &["a", "b"], "use super::Own; pub struct Thing;"),
            source(
                "d.rs",
                &["d"],
                "use crate::a::Own; pub struct Far; fn f() { std::mem::drop(1) }",
            ),
        ];
        let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(
            found(&sources),
            [arrow("a/mod.rs", "d.rs"), arrow("d.rs", "a/mod.rs")]
        );
    }

    #[test]
    fn every_arrow_of_a_circle_is_named_and_none_beside_it() {
        let below = BTreeMap::from([
            ("a", BTreeSet::from(["b"])),
            ("b", BTreeSet::from(["c", "d"])),
            ("c", BTreeSet::from(["a"])),
        ]);
        let within = |from, to| reaches(&below, to, from);
        assert!(within("a", "b") && within("b", "c") && within("c", "a"));
        assert!(!within("b", "d"));
    }
}
