#![no_main]

#[path = "../oracles/sidecar_document.rs"]
mod sidecar_document;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecar_document::check(data));
