#![no_main]

#[path = "../src/host.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::host(data));
