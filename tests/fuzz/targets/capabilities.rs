//! Invents octets for the check `capabilities`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("capabilities", input));
