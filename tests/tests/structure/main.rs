//! The architecture, held to the source: which room may name which (`docs/architecture.md`), that no two
//! files need each other, that a type's name is unique in its crate, how long a file may be, how modules
//! lie in folders, that no dependency is unused, and what scripts ask of programs that may be missing or others.
//!
//! What does not hold yet is listed in `exceptions.txt`, a line each, with the reason where it shall
//! stay. That list can only shrink: what is not in it fails, and so does a line for what holds by now.

#![allow(clippy::unwrap_used)]

mod circles;
mod dependencies;
mod files;
mod install;
mod kind;
mod layers;
mod names;
mod source;
mod waits;

use std::{collections::BTreeSet, fs};

/// Compares what was found with the part of `exceptions.txt` that has this title.
///
/// # Panics
/// Where either has what the other has not.
fn assert_excepted(title: &str, found: &[Finding]) {
    let list = fs::read_to_string(source::root().join(LIST)).unwrap();
    let excepted: BTreeSet<&str> = list
        .lines()
        .skip_while(|line| *line != format!("[{title}]"))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .map(|line| line.split(" # ").next().unwrap().trim())
        .filter(|line| !line.is_empty())
        .collect();
    let mut wrong = Vec::new();
    for finding in found {
        if !excepted.contains(finding.key.as_str()) {
            wrong.push(format!("{}\n    {}", finding.key, finding.place));
        }
    }
    let keys: BTreeSet<&str> = found.iter().map(|finding| finding.key.as_str()).collect();
    for stale in excepted.difference(&keys) {
        wrong.push(format!(
            "{stale}\n    holds now: take the line out of {LIST}"
        ));
    }
    assert!(
        wrong.is_empty(),
        "{title}, {} in all:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

const LIST: &str = "tests/tests/structure/exceptions.txt";

/// Something that the rule does not allow.
struct Finding {
    /// What it is called in the list of exceptions: no line numbers, so that it stays the same.
    key: String,
    /// File, line and words.
    place: String,
}
