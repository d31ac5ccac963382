//! Invents octets for the check `seven_bit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("seven_bit", input));
