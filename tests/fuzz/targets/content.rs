//! Invents octets for the check `content`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("content", input));
