//! Compiles the C side: the mirrored structs (static), the exported functions (shared objects that
//! stand in for the host executable's symbol table) and the probe plugin of this crate's tests.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rerun-if-changed=csrc");
    cc::Build::new().file("csrc/abi.c").warnings(true).compile("embedded_host_abi");

    // A real host executable offers these symbols to everything it loads. A test executable does
    // not, so they live in a library that is loaded with RTLD_GLOBAL before the plugin.
    let exports = Path::new("csrc/exports.c");
    shared(exports, &out_dir.join("libflbhost.so"), &[]);
    shared(exports, &out_dir.join("libflbhost_bare.so"), &["-DNO_APPEND", "-DNO_METRICS"]);
    shared(exports, &out_dir.join("libflbhost_append.so"), &["-DNO_METRICS"]);
    shared(exports, &out_dir.join("libflbhost_metrics.so"), &["-DNO_APPEND"]);
    // One test leaves a thread behind, which would run in unmapped code after dlclose.
    let probe = Path::new("csrc/probe_plugin.c");
    shared(probe, &out_dir.join("probe_plugin.so"), &["-Wl,-z,nodelete"]);
    println!("cargo:rustc-env=EMBEDDED_HOST_OUT={}", out_dir.display());
}

fn shared(source: &Path, target: &Path, flags: &[&str]) {
    let _ = fs::remove_file(target);
    let mut command = cc::Build::new().get_compiler().to_command();
    command.args(["-shared", "-fPIC", "-O1", "-g", "-Wall", "-Wextra", "-pthread"]);
    command.args(flags).arg("-o").arg(target).arg(source).arg("-ldl");
    let status = command.status().expect("the C compiler runs");
    assert!(status.success(), "compiling {} failed: {status}", source.display());
}
