//! Invents octets for the check `nexthop`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::run("nexthop", input));
