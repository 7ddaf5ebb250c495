//! Replays the fuzzer's corpus of presence documents, on the stable toolchain.

#[path = "../../tests/fuzz/oracles/pidf.rs"]
mod pidf;

use std::{fs, path::Path};

#[test]
fn presence_documents_keep_their_promises_on_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/pidf");
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is checked in") {
        pidf::check(&fs::read(entry.expect("readable").path()).expect("readable"));
        inputs += 1;
    }
    assert!(inputs >= 16, "{inputs} inputs in {}", folder.display());
}
