//! Invents octets for the check `queue_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("queue_file", input));
