#![no_main]

#[path = "../oracles/session_description.rs"]
mod session_description;

libfuzzer_sys::fuzz_target!(|data: &[u8]| session_description::check(data));
