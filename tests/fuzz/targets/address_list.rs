//! Invents octets for the check `address_list`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("address_list", input));
