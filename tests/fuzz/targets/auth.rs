//! Invents octets for the check `auth`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("auth", input));
