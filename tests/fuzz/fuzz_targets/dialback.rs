#![no_main]

#[path = "../oracles/dialback.rs"]
mod dialback;

libfuzzer_sys::fuzz_target!(|data: &[u8]| dialback::check(data));
