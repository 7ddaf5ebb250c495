#![no_main]

#[path = "../oracles/pidf.rs"]
mod pidf;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pidf::check(data));
