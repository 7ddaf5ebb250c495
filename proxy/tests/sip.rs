//! Replays the fuzzer's corpus of what a SIP server sends, on the stable toolchain.

#[path = "../../tests/fuzz/oracles/sip.rs"]
mod sip;

use std::{fs, path::Path};

#[test]
fn sip_messages_keep_their_promises_on_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/sip");
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is checked in") {
        sip::check(&fs::read(entry.expect("readable").path()).expect("readable"));
        inputs += 1;
    }
    assert!(inputs >= 16, "{inputs} inputs in {}", folder.display());
}
