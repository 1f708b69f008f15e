//! A C program that uses the sockets of libsdp in any order.
#![no_main]

#[path = "../src/handles.rs"]
mod handles;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| handles::run(bytes));
