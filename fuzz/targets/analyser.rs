//! Fuzzes `bodies::analyser`.

#![no_main]
#![allow(dead_code, reason = "each target calls one of the bodies")]

#[path = "../../tests/fuzz/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::analyser(data));
