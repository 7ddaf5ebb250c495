#![no_main]

#[path = "../oracles/sip.rs"]
mod sip;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sip::check(data));
