#![no_main]

#[path = "../oracles/framer.rs"]
mod framer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| framer::check(data));
