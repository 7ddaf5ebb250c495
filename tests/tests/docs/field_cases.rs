//! The table of field cases names tests that there are, and says of each case what became of it.

use std::collections::BTreeSet;

use super::{files, read, root};

const TABLE: &str = "docs/field-cases.md";

/// The rows: id, tests, state.
fn rows() -> Vec<(String, Vec<String>, String)> {
    read(TABLE)
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [id, .., tests, state] = cells.as_slice() else {
                return None;
            };
            let is_id = id.starts_with(['s', 'k']) && id[1..].parse::<u8>().is_ok();
            is_id.then(|| {
                let named = tests.split('`').skip(1).step_by(2);
                (
                    (*id).to_owned(),
                    named.map(str::to_owned).collect(),
                    (*state).to_owned(),
                )
            })
        })
        .collect()
}

/// Names of all functions that the sources have.
fn functions() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["crds", "proxy", "operator", "tests"] {
        for path in files(&root().join(folder), "rs") {
            let text = read(&path);
            for after in text.split("fn ").skip(1) {
                let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                found.insert(after[..end.unwrap_or(after.len())].to_owned());
            }
        }
    }
    found
}

#[test]
fn every_field_case_names_tests_that_there_are_and_says_its_state() {
    let known = functions();
    let rows = rows();
    let mut wrong = Vec::new();
    for (id, tests, state) in &rows {
        wrong.extend(
            tests
                .iter()
                .filter(|test| !known.contains(*test))
                .map(|test| format!("{id}: there is no test {test}")),
        );
        let held = state.contains("hold");
        if held && tests.is_empty() {
            wrong.push(format!("{id} holds by no test"));
        }
        if !held && !state.contains("documented") && !state.contains("open") {
            wrong.push(format!("{id}: what is {state:?}?"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows.len() > 40, "the table is read wrongly");
}

/// A test with the id of a case is a case of the table.
#[test]
fn tests_with_the_id_of_a_case_are_in_the_table() {
    let named: BTreeSet<String> = rows().into_iter().flat_map(|(_, tests, _)| tests).collect();
    let ids: BTreeSet<String> = rows().into_iter().map(|(id, ..)| id).collect();
    let missing: Vec<_> = functions()
        .into_iter()
        .filter(|name| {
            let id = name.split('_').next().unwrap_or_default();
            ids.contains(id) && !named.contains(name)
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?} are not in {TABLE}");
}
