//! Replays the fuzzer's corpus of PROXY headers, on the stable toolchain.

#[path = "../../tests/fuzz/oracles/proxy_header.rs"]
mod proxy_header;

use std::{fs, path::Path};

#[test]
fn proxy_headers_keep_their_promises_on_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/proxy_header");
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is checked in") {
        proxy_header::check(&fs::read(entry.expect("readable").path()).expect("readable"));
        inputs += 1;
    }
    assert!(inputs >= 8, "{inputs} inputs in {}", folder.display());
}
