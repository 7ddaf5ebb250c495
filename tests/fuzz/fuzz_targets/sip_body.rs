#![no_main]

#[path = "../oracles/sip_body.rs"]
mod sip_body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sip_body::check(data));
