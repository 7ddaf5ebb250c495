//! How long a file may be, and where a module with modules below it lies.

use std::fs;

use crate::{
    Finding, assert_excepted,
    source::{Source, from_root, root, rust_files},
};

/// Lines; CONTRIBUTING says "about 500".
const LONGEST: usize = 600;

const CRATES: &[&str] = &["crds", "page", "proxy", "operator", "tests"];

/// Folders of a crate with source, its tests among them.
const FOLDERS: &[&str] = &["src", "tests", "benches", "examples", "fuzz"];

#[test]
fn a_file_has_one_subject_and_so_an_end() {
    let mut found = Vec::new();
    for name in CRATES {
        for folder in FOLDERS {
            for path in rust_files(&root().join(name).join(folder)) {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                if lines > LONGEST {
                    found.push(Finding {
                        key: from_root(&path),
                        place: format!("{lines} lines"),
                    });
                }
            }
        }
    }
    assert_excepted(&format!("files of more than {LONGEST} lines"), &found);
}

#[test]
fn a_module_with_modules_below_it_is_the_mod_rs_of_their_folder() {
    let mut found = Vec::new();
    for source in CRATES.iter().flat_map(|name| Source::all(name)) {
        let folder = source.path.trim_end_matches(".rs");
        if !rust_files(&root().join(folder)).is_empty() {
            found.push(Finding {
                place: format!("{folder}/mod.rs is its place"),
                key: source.path,
            });
        }
    }
    assert_excepted("modules beside their folder", &found);
}
