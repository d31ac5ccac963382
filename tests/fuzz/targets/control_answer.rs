//! Invents octets for the check `control_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("control_answer", input));
