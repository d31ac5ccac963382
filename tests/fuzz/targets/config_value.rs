//! Invents octets for the check `config_value`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("config_value", input));
