//! Invents octets for the check `job_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("job_line", input));
