//! The host as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    embedded_host::main()
}
