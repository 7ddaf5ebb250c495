//! Replays the fuzzer's corpus of bodies of MESSAGE, on the stable toolchain.

#[path = "../../tests/fuzz/oracles/sip_body.rs"]
mod sip_body;

use std::{fs, path::Path};

#[test]
fn bodies_keep_their_promises_on_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/sip_body");
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is checked in") {
        sip_body::check(&fs::read(entry.expect("readable").path()).expect("readable"));
        inputs += 1;
    }
    assert!(inputs >= 16, "{inputs} inputs in {}", folder.display());
}
