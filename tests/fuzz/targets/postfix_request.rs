//! Invents octets for the check `postfix_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("postfix_request", input));
