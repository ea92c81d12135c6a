//! A small host that loads the plugin through the real ABI, without Fluent Bit.
//!
//! `cargo run --example embedded_host -- -e target/debug/libin_trendmicro.so -c FILE`, where FILE is
//! a configuration in Fluent Bit's classic format. The integration tests run it as a process of its
//! own, to stop, kill and starve it.

fn main() -> std::process::ExitCode {
    embedded_host::main()
}
