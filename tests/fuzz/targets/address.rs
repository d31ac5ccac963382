//! Invents octets for the check `address`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("address", input));
