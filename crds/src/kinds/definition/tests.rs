#![allow(clippy::unwrap_used)]
use std::{fs, path::Path};

use super::*;

/// `UPDATE_CRDS=1 cargo test -p xmpp-edge-crds --features kinds definition` rewrites the files.
#[test]
fn checked_in_definitions_match_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, text) in files() {
        let path = folder.join(&name);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let on_disk = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == text,
            "{name} is stale: run the tests with UPDATE_CRDS=1"
        );
    }
}
