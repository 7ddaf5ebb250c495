#![no_main]

#[path = "../oracles/nonza.rs"]
mod nonza;

libfuzzer_sys::fuzz_target!(|data: &[u8]| nonza::check(data));
