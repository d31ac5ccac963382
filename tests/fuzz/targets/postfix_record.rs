//! Invents octets for the check `postfix_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("postfix_record", input));
