//! A peer that scribbles over everything it can write of a link of the host provider.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sdp_verbs::host::fuzz_link(bytes));
