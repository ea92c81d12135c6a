//! The C header, and the symbols of the library that was built.
//!
//! `UPDATE_EXPECT=1 cargo test --test it header` writes the header anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What a host looks up for an input, from the oldest to the newest.
const SYMBOLS: &[&str] = &[
    "FLBPluginExit",
    "FLBPluginInit",
    "FLBPluginInputCallback",
    "FLBPluginInputCallbackCtx",
    "FLBPluginInputCleanupCallback",
    "FLBPluginInputCleanupCallbackCtx",
    "FLBPluginInputPause",
    "FLBPluginInputPreExit",
    "FLBPluginInputPreRun",
    "FLBPluginInputResume",
    "FLBPluginPreRegister",
    "FLBPluginRegister",
    "FLBPluginUnregister",
];

/// Libraries that every Linux system with glibc has; a plugin that needs more is not one file.
const NEEDED: &[&str] =
    &["ld-linux", "libc.so", "libdl.so", "libgcc_s.so", "libm.so", "libpthread"];

/// The header; the first who asks writes it anew if that is wished.
fn header() -> PathBuf {
    static UPDATE: Once = Once::new();
    let path = Path::new(ROOT).join("include/in_trendmicro.h");
    UPDATE.call_once(|| {
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, generate()).unwrap();
        }
    });
    path
}

/// The library that cargo built beside this test.
fn library() -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name("libin_trendmicro.so");
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

/// Runs a tool that comes with every C compiler.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text_of(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

fn generate() -> String {
    let config = cbindgen::Config::from_file(Path::new(ROOT).join("cbindgen.toml")).unwrap();
    let ffi = Path::new(ROOT).join("src/ffi");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(ffi.join("abi.rs"))
        .with_src(ffi.join("mod.rs"))
        .generate()
        .unwrap();
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_header_is_what_the_code_exports() {
    let generated = generate();
    let committed = fs::read_to_string(header()).unwrap_or_default();
    assert!(
        committed == generated,
        "include/in_trendmicro.h is not what src/ffi exports; write it anew with \
         `UPDATE_EXPECT=1 cargo test --test it header`\n{generated}"
    );
}

#[test]
fn the_header_compiles_alone_and_twice_and_as_cpp() {
    for language in ["c", "c++"] {
        let check = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-x", language];
        let probe = Command::new("cc").args(check).arg("/dev/null").output().unwrap();
        if language == "c++" && !probe.status.success() {
            // A C compiler need not bring C++.
            continue;
        }
        run(Command::new("cc").args(check).arg(header()));
        run(Command::new("cc").args(check).arg("-include").arg(header()).arg(header()));
    }
}

/// The functions that the header declares: each is a name before a parenthesis at a line's start.
fn declared() -> BTreeSet<String> {
    let text = fs::read_to_string(header()).unwrap();
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '(');
    names
        .filter_map(|word| word.split_once('('))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("FLBPlugin"))
        .collect()
}

#[test]
fn the_header_declares_what_the_library_exports_and_the_host_looks_up() {
    let symbols = text_of(run(Command::new("nm").args(["-D", "--defined-only"]).arg(library())));
    let exported: BTreeSet<String> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect();
    let expected: BTreeSet<String> = SYMBOLS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(exported, expected, "exported by the library");
    assert_eq!(declared(), expected, "declared by the header");
    for line in symbols.lines() {
        assert_eq!(line.split_whitespace().nth(1), Some("T"), "a function: {line}");
    }
}

#[test]
fn the_library_stays_mapped_and_needs_nothing_but_libc() {
    let dynamic = text_of(run(Command::new("readelf").args(["-d", "-W"]).arg(library())));
    let flags = dynamic.lines().find(|line| line.contains("(FLAGS_1)")).unwrap_or_default();
    assert!(flags.contains("NODELETE"), "{dynamic}");
    let mut needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let name = |line: &str| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned());
    let foreign = needed
        .clone()
        .filter_map(name)
        .find(|name| !NEEDED.iter().any(|known| name.starts_with(known)));
    assert_eq!(foreign, None);
    assert!(needed.any(|line| line.contains("libc.so")), "{dynamic}");
    assert!(!dynamic.contains("(RPATH)") && !dynamic.contains("(RUNPATH)"), "{dynamic}");
}
