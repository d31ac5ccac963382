//! Invents octets for the check `parameters`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("parameters", input));
