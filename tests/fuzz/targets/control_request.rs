//! Invents octets for the check `control_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("control_request", input));
