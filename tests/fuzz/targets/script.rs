//! Invents octets for the check `script`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("script", input));
