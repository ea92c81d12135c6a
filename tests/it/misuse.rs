//! The C ABI used wrongly, by a host written in C against the public header, under tools that see
//! what goes wrong in memory.
//!
//! AddressSanitizer comes with the C compiler. `VALGRIND=valgrind` has the same done under valgrind,
//! which sees the plugin's own accesses too.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use trendmicro_sim::EmailConfig;

use crate::support::{Host, KEY, Place, config, email, plugin, simulate, wait_delivered};

/// What AddressSanitizer ends with, unlike the program itself.
const FOUND: i32 = 99;

/// Compiles the misusing host.
fn compile(dir: &Path, flags: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = dir.join("misuse");
    let mut compile = Command::new("cc");
    compile.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"]);
    compile.arg(root.join("include")).arg(root.join("tests/it/misuse.c")).args(flags);
    let output = compile.arg("-o").arg(&program).arg("-ldl").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// Runs it against a vendor; with `wrong` it reads freed memory at its end.
fn run(mut command: Command, is_wrong: bool) -> Output {
    // The host before 4.1 that it plays has no record counter, so pages are few and small.
    let sim = simulate(EmailConfig { accepted_backlog: 50, ..email() });
    command.arg(plugin()).arg(sim.url()).arg(KEY).args(is_wrong.then_some("wrong"));
    // Everything that is freed is kept apart for a while, or its next owner would hide the mistake.
    command.env("ASAN_OPTIONS", format!("exitcode={FOUND}:detect_leaks=0"));
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let (said, wrong) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{said}\n{wrong}", output.status)
}

#[test]
fn a_host_that_does_everything_wrong_breaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), &["-fsanitize=address,undefined"]);
    let output = run(Command::new(&program), false);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!text(&output).contains("runtime error"), "{}", text(&output));
    assert!(!text(&output).contains(KEY), "the key was printed");
    // The tool is on: what is wrong on purpose is found.
    let output = run(Command::new(&program), true);
    assert_eq!(output.status.code(), Some(FOUND), "{}", text(&output));
    assert!(text(&output).contains("heap-use-after-free"), "{}", text(&output));
}

#[test]
fn a_host_that_does_everything_wrong_breaks_nothing_under_valgrind() {
    let Some(valgrind) = env::var_os("VALGRIND").filter(|name| !name.is_empty()) else {
        // Not captured by the test runner, unlike what eprintln! says.
        let _ = std::io::stderr().write_all(b"VALGRIND is not set: valgrind was not run\n");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), &[]);
    let under_valgrind = || {
        let mut command = Command::new(&valgrind);
        command.args([
            "--error-exitcode=99",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
        ]);
        command.arg(&program);
        command
    };
    let output = run(under_valgrind(), false);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("ERROR SUMMARY: 0 errors"), "{}", text(&output));
    let output = run(under_valgrind(), true);
    assert_eq!(output.status.code(), Some(FOUND), "{}", text(&output));
    assert!(text(&output).contains("Invalid read"), "{}", text(&output));
}

/// The embedded host with the plugin in it, from Init over a delivery to Exit: TLS's code, SQLite's
/// and the plugin's own are all looked at.
#[test]
fn a_host_that_does_everything_right_reads_no_wrong_memory_under_valgrind() {
    let Some(valgrind) = env::var_os("VALGRIND").filter(|name| !name.is_empty()) else {
        let _ = std::io::stderr().write_all(b"VALGRIND is not set: valgrind was not run\n");
        return;
    };
    let (place, sim) = (Place::new(), simulate(EmailConfig { accepted_backlog: 50, ..email() }));
    let mut command = Command::new(valgrind);
    command.args(["--error-exitcode=99", "--undef-value-errors=no"]);
    let host = Host::start_under(&place, command, &config(&sim, &place).classic());
    wait_delivered(&host, &sim, &place.out());
    host.signal("TERM");
    let ending = host.wait_end();
    assert_eq!(ending.code, Some(0), "{}", ending.log);
    // The tool was on: it says so, and the test above shows that it finds what is wrong.
    assert!(ending.log.contains("ERROR SUMMARY: 0 errors"), "{}", ending.log);
}
