//! The table of manifests, read from its folder: what is accepted, and what is rejected with which
//! words. Also read by the tests on a real API server.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// One manifest of the table.
pub struct Case {
    /// Its file's name without ending.
    pub name: String,
    pub manifest: Value,
    /// `PATH: MESSAGE` of each fault, the message perhaps cut short; empty for what is accepted.
    pub expected: Vec<String>,
}

/// Every manifest that is accepted.
pub fn accepted() -> Vec<Case> {
    read("accepted")
}

/// Every manifest that is rejected.
pub fn rejected() -> Vec<Case> {
    let cases = read("rejected");
    for case in &cases {
        assert!(!case.expected.is_empty(), "{}: expects nothing", case.name);
    }
    cases
}

fn read(folder: &str) -> Vec<Case> {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crds/tests/manifests"
    ));
    let mut found: Vec<_> = fs::read_dir(path.join(folder))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            Case {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                manifest: serde_saphyr::from_str(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
                expected: text
                    .lines()
                    .map_while(|line| line.strip_prefix("# expect: "))
                    .map(str::to_owned)
                    .collect(),
            }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() > 10, "{folder}: the table is there");
    found
}

/// The message of every CEL rule in a definition or a part of it, into `rules`.
pub fn rules(schema: &Value, rules: &mut std::collections::BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            let validations = fields.get("x-kubernetes-validations");
            for rule in validations.and_then(Value::as_array).into_iter().flatten() {
                rules.insert(rule["message"].as_str().unwrap().to_owned());
            }
            fields.values().for_each(|field| self::rules(field, rules));
        }
        Value::Array(items) => items.iter().for_each(|item| self::rules(item, rules)),
        _ => {}
    }
}
