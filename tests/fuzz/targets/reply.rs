//! Invents octets for the check `reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("reply", input));
