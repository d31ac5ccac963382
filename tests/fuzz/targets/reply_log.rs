//! Invents octets for the check `reply_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("reply_log", input));
