//! Links the cdylib so that the host's `dlclose` leaves it mapped.
//!
//! Fluent Bit closes a plugin right after `FLBPluginUnregister`. A thread that outlives its join
//! bound would then run unmapped code; `-z nodelete` makes that impossible.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
