//! Invents octets for the check `dropped_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("dropped_file", input));
