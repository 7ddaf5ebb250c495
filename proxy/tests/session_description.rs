//! Replays the fuzzer's corpus of session descriptions, on the stable toolchain.

#[path = "../../tests/fuzz/oracles/session_description.rs"]
mod session_description;

use std::{fs, path::Path};

#[test]
fn descriptions_of_sessions_keep_their_promises_on_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join("../tests/fuzz/corpus/session_description");
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is checked in") {
        session_description::check(&fs::read(entry.expect("readable").path()).expect("readable"));
        inputs += 1;
    }
    assert!(inputs >= 12, "{inputs} inputs in {}", folder.display());
}
