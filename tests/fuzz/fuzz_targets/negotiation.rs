#![no_main]

#[path = "../oracles/negotiation.rs"]
mod negotiation;

libfuzzer_sys::fuzz_target!(|data: &[u8]| negotiation::check(data));
