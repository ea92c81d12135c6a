//! Links the cdylib so that the host's `dlclose` leaves it mapped.
//!
//! Fluent Bit closes a plugin right after `FLBPluginUnregister`. A thread that outlives its join
//! bound would then run unmapped code; `-z nodelete` makes that impossible.
//!
//! And without symbols in a release: the profile's `strip` spares a library that is an `rlib` as well.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        if std::env::var("PROFILE").as_deref() == Ok("release") {
            println!("cargo:rustc-cdylib-link-arg=-Wl,--strip-all");
        }
    }
}
