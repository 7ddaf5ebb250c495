//! How long a file may be, and where a module with modules below it lies.

use crate::{
    Finding, assert_excepted,
    source::{Source, root, rust_files},
};

/// Lines; CONTRIBUTING says "about 500".
const LONGEST: usize = 600;

const CRATES: &[&str] = &["crds", "proxy", "operator", "tests"];

#[test]
fn a_file_has_one_subject_and_so_an_end() {
    let mut found = Vec::new();
    for source in CRATES.iter().flat_map(|name| Source::all(name)) {
        let lines = source.text.lines().count();
        if lines > LONGEST {
            found.push(Finding {
                key: source.path,
                place: format!("{lines} lines"),
            });
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
