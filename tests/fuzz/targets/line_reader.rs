//! Invents octets for the check `line_reader`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("line_reader", input));
