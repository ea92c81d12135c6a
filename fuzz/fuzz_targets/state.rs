#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| in_trendmicro_fuzz::state(data));
