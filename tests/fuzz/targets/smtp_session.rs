//! Invents octets for the check `smtp_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("smtp_session", input));
