//! A peer, an adapter and a program that do anything, around a live engine of sdp-core.
#![no_main]

#[path = "../src/sequence.rs"]
mod sequence;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sequence::run(bytes));
